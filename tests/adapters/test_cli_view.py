"""What the demo shows, without a terminal and without a network."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from rich.console import Console

from presence_adapters.asyncio import EventsDropped
from presence_adapters.cli.demo import LiveView, Tally
from presence_adapters.cli.output import STATUS, describe
from presence_proto import (
    ActivityChanged,
    ChatMessage,
    CommandFailed,
    Connected,
    Disconnected,
    Error,
    GameInvite,
    Identity,
    InviteSent,
    OnlineUser,
    Poked,
    PresenceEvent,
    UserOffline,
    UserOnline,
    UserStatus,
)

ADA = OnlineUser("ada", "Ada", UserStatus.IN_SKILL, "Sketching an engine")
YOU = OnlineUser("you", "You")

WORDS: list[tuple[PresenceEvent | EventsDropped, str]] = [
    (Connected(2, (ADA, YOU), False), "Connected, 2 online"),
    (Connected(2, (ADA, YOU), True), "Connected again, 2 online"),
    (Disconnected("eof", 1.25), "Disconnected, next attempt in 1.2 s: eof"),
    (Disconnected("disconnect was called", None), "Disconnected: disconnect was called"),
    (UserOnline(ADA), "Ada is here, in skill (Sketching an engine)"),
    (UserOnline(YOU), "You is here, online"),
    (UserOffline(ADA), "Ada is gone"),
    (ActivityChanged(ADA, ADA), "Ada is in skill (Sketching an engine)"),
    (GameInvite("ada", "Ada", "Go", "0042"), "Ada invites everybody to Go (code 0042)"),
    (GameInvite("ada", "Ada", "Go"), "Ada invites everybody to Go"),
    (Poked("ada", "Ada"), "Ada pokes you"),
    (ChatMessage("ada", "Ada", "lobby", "[bold]hi"), "Ada in lobby: [bold]hi"),
    (Error("no presence"), "Error: no presence"),
    (CommandFailed(1, "send_poke", "expired"), "send_poke failed: expired"),
    (InviteSent(2, ("Ada", "Bob")), "Invited Ada, Bob"),
    (InviteSent(2, ()), "Invited nobody: you are alone"),
    (EventsDropped(7), "7 events dropped"),
]


@pytest.mark.parametrize(("event", "words"), WORDS)
def test_events_in_words(event: PresenceEvent | EventsDropped, words: str) -> None:
    assert describe(event).text == words


def test_every_event_and_every_status_has_words() -> None:
    assert {type(event) for event, _ in WORDS} == {*get_args(PresenceEvent), EventsDropped}
    assert set(STATUS) == set(UserStatus)


def test_the_tally() -> None:
    tally = Tally()
    for event, _ in WORDS:
        tally.add(event)
    first, second, third = tally.summary()
    assert first.endswith("seconds in the room: 2 users, 17 events")
    assert "2 Connected" in second
    assert third == "messages: 4, reconnects: 1"
    assert Tally().summary()[1] == "events: none"


def view(
    width: int, height: int, *, stale: bool = False, missing: str = "", seconds: float | None = None
) -> tuple[LiveView, io.StringIO]:
    output = io.StringIO()
    console = Console(file=output, width=width, height=height, force_terminal=True, legacy_windows=False)
    client: Any = SimpleNamespace(
        online_users=(ADA, YOU),
        online_count=2,
        is_stale=stale,
        is_connected=not stale,
        is_user_stale=lambda user_id: stale or user_id == missing,
        identity=Identity("you", "You"),
    )
    return LiveView(console, Tally(), client, seconds), output


@pytest.mark.parametrize("size", [(120, 40), (99, 24), (80, 24), (59, 10), (30, 5), (10, 3), (3, 2), (1, 1)])
def test_it_fits_every_size(size: tuple[int, int]) -> None:
    one, output = view(*size)
    with one:
        for event, _ in WORDS:
            one.show(event)
        one.say("You do something")
    one.finish()
    assert "Traceback" not in output.getvalue()


def test_the_latest_events_are_in_view_and_text_is_not_markup() -> None:
    one, output = view(120, 30, seconds=60)
    with one:
        for n in range(100):
            one.say(f"step {n}")
        one.show(ChatMessage("ada", "Ada", "lobby", "[bold]hi"))
        output.truncate(0)
        one.refresh()
    text = output.getvalue()
    assert "step 99" in text
    assert "step 50" not in text
    assert "[bold]hi" in text
    assert "s left" in text
    assert "Sketching an engine" in text


def test_a_user_who_may_come_back_is_dimmed() -> None:
    one, output = view(80, 24, missing="ada")
    with one:
        pass
    rows = {name: row for row in output.getvalue().splitlines() for name in ("Ada", "You") if name in row}
    assert "\x1b[2mAda" in rows["Ada"]
    assert "\x1b[2m" not in rows["You"]
    assert "the room, as it was" not in output.getvalue()


def test_a_stale_room_looks_like_one() -> None:
    one, output = view(80, 24, stale=True)
    with one:
        pass
    assert "the room, as it was" in output.getvalue()
    assert "reconnecting" in output.getvalue()
