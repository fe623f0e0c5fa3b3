"""Phoenix messages that one side may send, of every shape that the protocol has."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from presence_proto.serializer import Message, UserBroadcast
from presence_proto.testing.strategies.presence import diffs, entries, tracked_payloads
from presence_proto.testing.strategies.values import Role, Vsn, json_values, texts

Some = st.SearchStrategy[Any]

NAMES = st.sampled_from(["room:7", "realtime:lobby", "phoenix"]) | texts()
JSON = json_values(max_leaves=5)
_REFS = st.none() | st.sampled_from(["1", "2", "10"]) | texts() | st.integers()
# In a binary frame no ref is empty, and none is a number.
BINARY_REFS = st.none() | st.sampled_from(["1", "2", "10"]) | texts(min_size=1)
DATA = st.binary(max_size=20)


def messages(role: Role = "server", *, vsn: Vsn = "2.0.0", binary: bool = True) -> st.SearchStrategy[Message]:
    """Messages of `role`. The serializer of `vsn` carries them, and the other side reads them as they are.

    They are joins, replies, broadcasts, presence and so on, as Phoenix and Supabase have them, and any other
    event with any JSON. `binary`: on V2 they may have a binary payload, and a `UserBroadcast`.
    """
    shapes = _FROM_CLIENT if role == "client" else _FROM_SERVER
    # A server says no join_ref in V1.
    join_refs = st.none() if role == "server" and vsn == "1.0.0" else _REFS
    found = st.one_of(*[st.builds(Message, join_refs, _REFS, NAMES, *shape) for shape in shapes])
    if binary and vsn == "2.0.0":
        found |= _BINARY_FROM_CLIENT if role == "client" else _BINARY_FROM_SERVER
    return found


def user_broadcasts() -> st.SearchStrategy[UserBroadcast]:
    """The payload of a broadcast that has a binary frame of its own."""
    # All of the metadata has at most 255 bytes.
    metadata = st.dictionaries(st.sampled_from(["id", "é"]), st.booleans() | st.integers(0, 99))
    return st.builds(UserBroadcast, texts(), JSON | DATA, metadata)


def _object(**fields: Some) -> Some:
    return st.fixed_dictionaries(fields)


def _just(**fields: Any) -> Some:
    return st.builds(dict, **{name: st.just(value) for name, value in fields.items()})


_YES = st.booleans()
_ANY: tuple[Some, Some] = (texts(), JSON)
_BROADCAST: tuple[Some, Some] = (
    st.just("broadcast"),
    _object(type=st.just("broadcast"), event=texts(), payload=JSON),
)
_CONFIG = _object(
    broadcast=_object(ack=_YES, self=_YES),
    presence=_object(enabled=_YES, key=texts()),
    private=_YES,
)
_TRACK = _object(type=st.just("presence"), event=st.just("track"), payload=tracked_payloads())
# Event and payload. The first has nothing to draw: shrinking leads there.
_FROM_CLIENT: list[tuple[Some, Some]] = [
    (st.just("phx_leave"), _just()),
    _ANY,
    _BROADCAST,
    (st.just("phx_join"), st.fixed_dictionaries({"config": _CONFIG}, optional={"access_token": texts()})),
    (st.just("heartbeat"), _just()),
    (st.just("access_token"), _object(access_token=texts())),
    (st.just("presence"), _TRACK | _just(type="presence", event="untrack")),
]
_FROM_SERVER: list[tuple[Some, Some]] = [
    (st.just("phx_close"), _just()),
    _ANY,
    _BROADCAST,
    (st.just("phx_reply"), _object(status=st.sampled_from(["ok", "error"]), response=JSON)),
    (st.just("presence_state"), entries()),
    (st.just("presence_diff"), diffs()),
    (st.just("phx_error"), _just() | _just(reason="channel_crash")),
    (
        st.just("system"),
        _object(status=st.sampled_from(["ok", "error"]), message=texts(), extension=st.just("system")),
    ),
]
_USER_BROADCAST: tuple[Some, Some] = (st.just("broadcast"), user_broadcasts())
_BINARY_FROM_CLIENT = st.one_of(
    st.builds(Message, BINARY_REFS, BINARY_REFS, NAMES, texts(), DATA),
    st.builds(Message, BINARY_REFS, BINARY_REFS, NAMES, *_USER_BROADCAST),
)
_BINARY_FROM_SERVER = st.one_of(
    st.builds(Message, BINARY_REFS, st.none(), NAMES, texts(), DATA),
    st.builds(
        Message, BINARY_REFS, BINARY_REFS, NAMES, st.just("phx_reply"), _object(status=texts(), response=DATA)
    ),
    st.builds(Message, st.none(), st.none(), NAMES, *_USER_BROADCAST),
)
