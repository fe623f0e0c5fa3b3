"""The events: frozen, comparable, hashable where the peer's data allows it, and all of them in a union."""

from __future__ import annotations

import pickle
from typing import Any, get_args

import msgspec
import pytest

import presence_proto
import presence_proto.hub
from presence_proto import events
from presence_proto.events import (
    ActivityChanged,
    ChatMessage,
    CommandFailed,
    Connected,
    Disconnected,
    Error,
    GameInvite,
    HubEvent,
    OnlineUser,
    Poked,
    PresenceEvent,
    RealtimeEvent,
    UserOffline,
    UserOnline,
    UserStatus,
)

UNIONS = {"RealtimeEvent": RealtimeEvent, "PresenceEvent": PresenceEvent, "HubEvent": HubEvent}
CLASSES = [
    value
    for value in vars(events).values()
    if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__module__ == events.__name__
    if not value.__name__.startswith("_")
]
BO = OnlineUser("bo", "Bo", UserStatus.IN_GAME, "Chess", "2026-01-01T00:00:00Z", {"level": 3})


def make(cls: type[Any]) -> Any:
    """An event of the class, with its required fields only."""
    return cls(*[f"<{field.name}>" for field in msgspec.structs.fields(cls) if field.required])


def test_the_statuses_are_those_of_the_wire() -> None:
    assert [str(status) for status in UserStatus] == [
        "online",
        "idle",
        "in_game",
        "in_skill",
        "do_not_disturb",
        "away",
    ]
    assert UserStatus("in_game") is UserStatus.IN_GAME
    assert UserStatus.DO_NOT_DISTURB == "do_not_disturb"


def test_every_class_is_in_exactly_one_union() -> None:
    in_unions = [cls for union in UNIONS.values() for cls in get_args(union)]
    assert len(in_unions) == len(set(in_unions))
    assert set(CLASSES) - {OnlineUser} == set(in_unions)


def test_the_events_of_the_presence_client() -> None:
    assert [cls.__name__ for cls in get_args(PresenceEvent)] == [
        "Connected",
        "Disconnected",
        "UserOnline",
        "UserOffline",
        "ActivityChanged",
        "GameInvite",
        "Poked",
        "ChatMessage",
        "Error",
        "CommandFailed",
        "InviteSent",
    ]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_is_public_and_says_what_it_is(cls: type[Any]) -> None:
    (module,) = [one for one in (presence_proto, presence_proto.hub) if cls.__name__ in one.__all__]
    assert getattr(module, cls.__name__) is cls
    assert cls.__doc__


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_frozen_equal_and_hashable(cls: type[Any]) -> None:
    one, same = make(cls), make(cls)
    assert one == same
    assert hash(one) == hash(same)
    for name in cls.__struct_fields__:
        with pytest.raises(AttributeError, match="immutable"):
            setattr(one, name, "other")
        assert msgspec.structs.replace(one, **{name: "other"}) != one
    with pytest.raises(AttributeError):
        one.surprise = 1
    assert cls.__match_args__ == cls.__struct_fields__
    assert pickle.loads(pickle.dumps(one)) == one


@pytest.mark.parametrize(
    "event",
    [
        BO,
        Connected(2, (BO, OnlineUser("me", "Me")), False),
        Disconnected("eof", 1.0),
        UserOnline(BO),
        UserOffline(BO),
        ActivityChanged(BO, BO),
        GameInvite("bo", "Bo", "Chess", None, {"x": []}),
        Poked("bo", "Bo", {"x": {}}),
        ChatMessage("bo", "Bo", "lobby", "hi", None, None, {"x": [1]}),
        Error("no"),
        CommandFailed(1, "send_poke", "no"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_the_presence_client_reports_can_stand_in_a_set(event: Any) -> None:
    assert event in {event}


def test_further_fields_count_for_equality_and_not_for_the_hash() -> None:
    other = msgspec.structs.replace(BO, extra={"level": 4})
    assert other != BO
    assert hash(other) == hash(BO)


def test_defaults() -> None:
    assert OnlineUser("bo", "Bo") == OnlineUser("bo", "Bo", UserStatus.ONLINE, None, None, {})
    assert OnlineUser("bo", "Bo").extra is not OnlineUser("bo", "Bo").extra
    assert Error("no").fatal is False


def test_events_can_be_matched_by_position() -> None:
    match UserOnline(BO):
        case UserOnline(OnlineUser(user_id, _, status)):
            assert (user_id, status) == ("bo", UserStatus.IN_GAME)
        case _:
            pytest.fail("no match")
