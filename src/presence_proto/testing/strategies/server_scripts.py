"""`server_scripts`: random scripts for a well-behaved, slow, buggy or hostile server and its network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from hypothesis import strategies as st

from presence_proto.testing import server_script as steps
from presence_proto.testing.strategies.presence import diffs, entries, tracked_payloads
from presence_proto.testing.strategies.values import json_values, texts

if TYPE_CHECKING:
    from presence_proto.testing.server_script import Step

Kind: TypeAlias = Literal["well-behaved", "slow", "buggy", "hostile"]

KEYS = st.sampled_from(["ann", "bob", "cy"])
METAS = tracked_payloads()

_numbers = st.integers(0, 3)
_topics = st.integers(0, 1)
_ends = st.sampled_from(["phx_error", "phx_close"])
_seconds = st.sampled_from([0.5, 1.0, 5.0, 10.0, 31.0, 100.0])
_broadcasts = st.sampled_from(["hello", "activity_update", "poke", "game_invite", "chat_message"])
_claims = st.fixed_dictionaries(
    {"user_id": KEYS, "display_name": st.sampled_from(["Ann", "Bob"])},
    optional={
        "status": st.sampled_from(["idle", "away"]),
        "activity": st.none() | st.just("Chess"),
        "target_user_id": st.just("me"),
        "game": st.just("Chess"),
        "channel": st.just("lobby"),
        "content": st.just("hi"),
    },
)
_json = json_values(max_leaves=4)


def _well_behaved(keys: st.SearchStrategy[str], metas: st.SearchStrategy[Any]) -> list[Any]:
    return [
        st.builds(steps.Track, keys, metas, _topics),
        st.builds(steps.Untrack, _numbers),
        st.builds(steps.Retrack, _numbers, metas),
        st.builds(steps.Track, keys, metas),
        st.builds(steps.SendBroadcast, _broadcasts, _claims),
        st.builds(steps.Wait, _seconds),
        st.builds(steps.Sleep, _seconds),
        st.builds(steps.Cut, st.sampled_from([True, False])),
        st.builds(steps.Die),
        st.builds(steps.SendClose, st.sampled_from([1000, 1001, 1012])),
        st.builds(steps.Refuse, st.sampled_from([429, 503])),
        st.builds(steps.Crash, _ends, _topics),
    ]


_SLOW: list[Any] = [
    st.builds(steps.Stall),
    st.builds(steps.Serve),
    st.builds(steps.ServeOne, st.booleans()),
    st.builds(steps.Wait, _seconds),
]
_which = st.sampled_from(["now", "old", "none", "unknown"])
_BUGGY: list[Any] = [
    st.builds(steps.RepeatDiff),
    st.builds(steps.Echo, st.sampled_from(["phx_close", "phx_error", "phx_reply"]), _topics),
    st.builds(steps.SendReply, _numbers, st.sampled_from(["ok", "error"]), _json),
    st.builds(steps.Say, st.just("presence_diff"), diffs()),
    st.builds(steps.Say, st.just("presence_state"), entries()),
    st.builds(steps.Say, _ends, st.just({"reason": "no reason"}), _which, _which),
    st.builds(steps.Say, st.just("system"), st.just({"status": "error", "message": "too fast"})),
]
_names = st.sampled_from(
    ["presence_state", "presence_diff", "phx_reply", "phx_close", "broadcast", "system", "hello"]
)
_HOSTILE: list[Any] = [
    st.builds(steps.Say, _names, _json | st.binary(max_size=8), _which, _which, _topics),
    st.builds(steps.SendText, texts()),
    st.builds(steps.SendText, st.sampled_from(['{"topic":"phoenix"}', '[null,null,"a","b"]', "[" * 9000])),
    st.builds(steps.SendBinary, st.binary(max_size=30)),
    st.builds(steps.SendBytes, st.binary(max_size=30)),
    st.builds(steps.SendClose, st.sampled_from([1002, 1007, 1009, 1011, 3000, 4999])),
    st.builds(steps.Refuse, st.sampled_from([301, 400, 401, 404, 500])),
]


def server_scripts(
    kind: Kind = "well-behaved",
    *,
    keys: st.SearchStrategy[str] = KEYS,
    metas: st.SearchStrategy[Any] = METAS,
    max_size: int = 30,
) -> st.SearchStrategy[list[Step]]:
    """Scripts for `presence_proto.testing.play`. Each kind of server adds actions to the previous kind.

    - `"well-behaved"`: Users with `keys` join, track `metas` and leave. Connections fail and recover.
    - `"slow"`: The server delays its replies.
    - `"buggy"`: The server repeats messages, replies twice, sends events of earlier joins, and sends
      presence states and diffs that contradict earlier messages.
    - `"hostile"`: The server sends arbitrary messages and bytes.

    Any part of a script is a script, so scripts shrink to few steps. Raise `KeyError` for an unknown `kind`.
    """
    more = {"well-behaved": [], "slow": _SLOW, "buggy": _SLOW + _BUGGY, "hostile": _SLOW + _BUGGY + _HOSTILE}
    return st.lists(st.one_of(*_well_behaved(keys, metas), *more[kind]), max_size=max_size)
