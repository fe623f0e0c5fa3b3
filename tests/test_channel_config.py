"""`ChannelConfig`: what the join of a Supabase channel says, and what is refused before it is sent."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from presence_proto.config import BroadcastReplay, ChannelConfig
from presence_proto.errors import ConfigError
from presence_proto.validators import MAX_EPOCH_MS, MOST_NESTING

PLAIN = {
    "broadcast": {"ack": False, "self": False},
    "presence": {"enabled": True, "key": ""},
    "postgres_changes": (),
    "private": False,
}


def refused(words: str, **fields: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        ChannelConfig(**fields)
    assert words in str(caught.value)


def test_the_defaults_say_what_the_official_clients_say() -> None:
    assert ChannelConfig().join_config() == PLAIN
    assert hash(ChannelConfig()) == hash(ChannelConfig(extra={}))


# ---------------------------------------------------------------------------------------------- replay


@pytest.mark.parametrize(
    ("given", "since", "limit"),
    [
        (BroadcastReplay(), 0, 25),
        (BroadcastReplay(since=1_700_000_000_000, limit=1), 1_700_000_000_000, 1),
        ({}, 0, 25),
        ({"since": 0}, 0, 25),
        ({"since": MAX_EPOCH_MS, "limit": 25}, MAX_EPOCH_MS, 25),
        ({"since": None, "limit": 10}, 0, 10),
    ],
)
def test_a_private_channel_asks_for_a_replay(given: Any, since: int, limit: int) -> None:
    config = ChannelConfig(private=True, broadcast_replay=given)
    assert isinstance(config.broadcast_replay, BroadcastReplay)
    replay = {"since": since, "limit": limit}
    assert config.join_config()["broadcast"] == {"ack": False, "self": False, "replay": replay}


def test_another_channel_may_not() -> None:
    # The server: "UnableToReplayMessages: Replay is not allowed for public channels"
    refused("broadcast_replay needs private=True", broadcast_replay={})
    assert "replay" not in ChannelConfig(private=True).join_config()["broadcast"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"since": -1}, "since must be a whole number of milliseconds since 1970, or None, not -1"),
        ({"since": MAX_EPOCH_MS + 1}, "since must be a whole number of milliseconds"),
        ({"since": 1.5}, "since must be a whole number of milliseconds"),
        ({"since": True}, "since must be a whole number of milliseconds"),
        ({"since": "2026-11-30"}, "since must be a whole number of milliseconds"),
        ({"limit": 0}, "limit must be a whole number from 1 to 25, not 0"),
        ({"limit": 26}, "limit must be a whole number from 1 to 25, not 26"),
        ({"limit": None}, "limit must be a whole number from 1 to 25"),
        ({"limit": True}, "limit must be a whole number from 1 to 25"),
        ({"limit": 5.0}, "limit must be a whole number from 1 to 25"),
        ({"from": 5}, "broadcast_replay accepts only since and limit, not 'from'"),
        (5, "broadcast_replay must be a BroadcastReplay, a mapping or None, not int"),
        (True, "broadcast_replay must be a BroadcastReplay, a mapping or None, not bool"),
    ],
)
def test_a_replay_that_the_server_would_refuse(given: Any, words: str) -> None:
    refused(words, private=True, broadcast_replay=given)


def test_word_that_the_replication_is_ready_is_asked_for() -> None:
    config = ChannelConfig(replication_ready=True)
    assert config.join_config()["broadcast"] == {"ack": False, "self": False, "replication_ready": True}
    refused("replication_ready must be true or false", replication_ready=1)


# ---------------------------------------------------------------------------------------------- extra


def test_what_has_no_field_is_merged_in() -> None:
    extra = {
        "broadcast": {"persist": {"ttl": 60}},
        "presence": {"room": [1, (2, None)]},
        "postgres_changes_options": {"wait": True},
    }
    config = ChannelConfig(private=True, broadcast_ack=True, broadcast_replay={}, extra=extra)
    said = config.join_config()
    assert said == PLAIN | {
        "private": True,
        "broadcast": {
            "ack": True,
            "self": False,
            "replay": {"since": 0, "limit": 25},
            "persist": {"ttl": 60},
        },
        "presence": {"enabled": True, "key": "", "room": [1, [2, None]]},
        "postgres_changes_options": {"wait": True},
    }
    assert json.loads(json.dumps(said))["broadcast"]["persist"] == {"ttl": 60}


def test_it_is_a_copy() -> None:
    extra: dict[str, Any] = {"a": {"b": [1]}}
    change = {"event": "*"}
    config = ChannelConfig(extra=extra, postgres_changes=[change])
    extra["a"]["b"].append(2)
    extra["c"] = 3
    change["event"] = "INSERT"
    assert config == ChannelConfig(extra={"a": {"b": [1]}}, postgres_changes=[{"event": "*"}])


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"private": True}, "extra must not contain 'private': set the field private"),
        (
            {"postgres_changes": []},
            "extra must not contain 'postgres_changes': set the field postgres_changes",
        ),
        ({"broadcast": {"ack": True}}, "extra must not contain 'broadcast.ack': set the field broadcast_ack"),
        ({"broadcast": {"self": None}}, "set the field broadcast_self"),
        (
            {"broadcast": {"replay": {}}},
            "extra must not contain 'broadcast.replay': set the field broadcast_replay",
        ),
        ({"broadcast": {"replication_ready": True}}, "set the field replication_ready"),
        (
            {"presence": {"enabled": True}},
            "extra must not contain 'presence.enabled': set the field presence",
        ),
        ({"presence": {"key": "a"}}, "set the field presence_key"),
        ({"presence": True}, "extra: presence must be a mapping"),
        ({"broadcast": None}, "extra: broadcast must be a mapping"),
        ([], "extra must be a mapping, not list"),
        (None, "extra must be a mapping, not NoneType"),
        ({1: 2}, "extra is not JSON-serializable: a key of the type `int`"),
        ({"a": {"\ud800": 2}}, "extra is not JSON-serializable: a string has a lone surrogate"),
        ({"a": [{"b": b"x"}]}, 'extra is not JSON-serializable: `bytes` at key "a"[0]["b"]'),
        ({"a": math.nan}, 'extra is not JSON-serializable: `nan` is not a finite number at key "a"'),
        ({"a": [1, object()]}, 'extra is not JSON-serializable: `object` at key "a"[1]'),
    ],
)
def test_an_extra_that_contradicts_or_is_no_json(extra: Any, words: str) -> None:
    refused(words, extra=extra)


def nested(levels: int) -> dict[str, Any]:
    value: Any = 1
    for level in range(levels):
        value = {"a": value} if level % 2 else [value]
    return {"a": value}


def test_it_may_be_nested_but_not_without_end() -> None:
    config = ChannelConfig(extra=nested(MOST_NESTING - 1))
    assert config.join_config()["a"] == nested(MOST_NESTING - 1)["a"]
    circle: dict[str, Any] = {}
    circle["a"] = circle
    for name, value in (("extra", nested(MOST_NESTING)), ("extra", circle), ("postgres_changes", [circle])):
        words = f"{name} is not JSON-serializable: nested more than {MOST_NESTING} levels deep, or circular"
        refused(words, **{name: value})
    extra = {"a": [10**400, True, 1.5, None, "ü"]}
    assert ChannelConfig(extra=extra).extra == extra


# ---------------------------------------------------------------------------------------------- changes


def test_postgres_changes_are_a_sequence_of_mappings() -> None:
    change = {"event": "*", "schema": "public"}
    assert ChannelConfig(postgres_changes=[change]) == ChannelConfig(postgres_changes=(change,))
    assert ChannelConfig(postgres_changes=iter([change])).postgres_changes == (change,)
    for value in (change, "text", [1], None, 7, [None]):
        refused("postgres_changes must be a sequence of mappings", postgres_changes=value)
    words = 'postgres_changes is not JSON-serializable: `object` at index 1["a"]'
    refused(words, postgres_changes=[change, {"a": object()}])


ASKED = [
    {"event": "*", "schema": "public", "table": "a"},
    {"event": "INSERT", "schema": "public", "filter": "x"},
]
CONFIRMED = [{"id": n, **change} for n, change in enumerate(ASKED)]


@pytest.mark.parametrize(
    ("response", "same"),
    [
        ({"postgres_changes": CONFIRMED}, True),
        ({"postgres_changes": [{**change, "select": None} for change in CONFIRMED]}, True),
        ({"postgres_changes": CONFIRMED[::-1]}, False),
        ({"postgres_changes": CONFIRMED[:1]}, False),
        ({"postgres_changes": [*CONFIRMED, CONFIRMED[0]]}, False),
        ({"postgres_changes": [CONFIRMED[0], {**CONFIRMED[1], "table": "b"}]}, False),
        ({"postgres_changes": [CONFIRMED[0], {**CONFIRMED[1], "event": "insert"}]}, False),
        ({"postgres_changes": [CONFIRMED[0], {"id": 1}]}, False),
        ({"postgres_changes": [CONFIRMED[0], None]}, False),
        ({"postgres_changes": {}}, False),
        ({}, False),
        (None, False),
    ],
)
def test_the_response_confirms_what_was_asked_for(response: Any, same: bool) -> None:
    assert ChannelConfig(postgres_changes=ASKED).is_confirmed_by(response) is same
    assert ChannelConfig().is_confirmed_by(response)
