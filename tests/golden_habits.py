"""What recorded clients do that our client never does: read in the recording, not listed by name."""

from __future__ import annotations

from functools import cache

from attrs import frozen

import golden_expectations
import golden_files
from presence_proto.errors import RemoteProtocolError


@frozen
class Habits:
    """Topics that a recorded client joined in ways of its own.

    `again`: while they were joined. `miscounted`: after a push to a topic that was not joined. Our client
    does not send such a push, or sends it later, so its refs differ by then.
    """

    again: frozenset[str]
    miscounted: frozenset[str]


@cache
def habits(name: str) -> Habits:
    """Read the recording `name`. One of bytes alone shows none."""
    if not golden_files.path_of(name, golden_files.MSGS).exists():
        return Habits(frozenset(), frozenset())
    vsn = golden_expectations.vsn_of(name)
    again, miscounted = set(), set()
    pushed = False
    joined: dict[str, object] = {}  # topics, with the ref of the join; None while it is unanswered
    for line in golden_files.msgs(name):
        if line.kind not in ("text", "binary"):
            continue
        try:
            message = golden_expectations.decoded(line, vsn)
        except RemoteProtocolError:
            continue  # malformed on purpose
        topic = message.topic
        match line.dir, message.event:
            case _ if topic == "phoenix":
                pass
            case "out", "phx_join":
                if topic in joined:
                    again.add(topic)
                if pushed:
                    miscounted.add(topic)
                joined[topic] = None
            case "out", "phx_leave":
                joined.pop(topic, None)
            case "out", _:
                pushed = pushed or joined.get(topic) is None
            case "in", "phx_reply":
                if topic in joined and joined[topic] is None:
                    if message.payload["status"] == "ok":
                        joined[topic] = message.ref
                    else:
                        del joined[topic]
            case "in", "phx_close" | "phx_error":
                if message.ref == joined.get(topic):
                    joined.pop(topic, None)
    return Habits(frozenset(again), frozenset(miscounted))
