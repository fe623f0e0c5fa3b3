"""`FaultyHub` keeps the contract of every endpoint, whatever is wrong with it."""

from __future__ import annotations

from typing import Any

from attrs import fields
from hypothesis import given
from hypothesis import strategies as st

from faulty_rig import BROADCAST, CLOSE, HEARTBEAT, TRACK
from hub_client import SUPABASE, World, masked, supabase_join, upgrade
from presence_proto.endpoint import ConnId
from presence_proto.errors import LocalProtocolError
from presence_proto.hub import Hub
from presence_proto.hub.config import HubConfig
from presence_proto.json_text import encode_payload
from presence_proto.testing import Faults, FaultyHub


def bytes_of(*messages: list[Any]) -> bytes:
    return b"".join(masked(bytes(encode_payload(message))) for message in messages)


SAID = {
    "join": bytes_of(["1", "1", "realtime:x", "phx_join", supabase_join("u")]),
    "track": bytes_of(["1", "2", "realtime:x", "presence", TRACK]),
    "broadcast": bytes_of(["1", "3", "realtime:x", "broadcast", BROADCAST]),
    "heartbeat": bytes_of(list(HEARTBEAT)),
    "leave": bytes_of(["1", "4", "realtime:x", "phx_leave", {}]),
    "nonsense": masked(b"{"),
    "close": CLOSE,
}

CONNS = st.integers(1, 3)
FLAGS = [field.name for field in fields(Faults) if field.default is False]
LIMITS = "presence_limit", "broadcast_limit"
DELAYS = "join_delay", "refusal_delay", "delay"
SWITCHES = st.sampled_from(
    [
        *[("set_faults", {name: value}) for name in FLAGS for value in (False, True)],
        *[("set_faults", {name: value}) for name in LIMITS for value in (None, 0, 2)],
        *[("set_faults", {name: value}) for name in DELAYS for value in (0, 0.5, 3.0)],
        ("set_faults", {"handshakes_to_refuse": 1}),
        *[(name,) for name in ("cut_all", "heal", "shutdown")],
        ("crash_channel", "realtime:x"),
        ("close_channel", "realtime:x"),
    ]
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), CONNS),
        st.tuples(st.just("lose"), CONNS),
        st.tuples(st.just("say"), CONNS, st.sampled_from(sorted(SAID))),
        st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 20.0, 70.0])),
        st.tuples(st.just("switch"), SWITCHES),
    ),
    max_size=40,
)


class Story(World):
    """A hub and what happens to it. Slots name connections."""

    def __init__(self, hub_type: type[Hub] = FaultyHub) -> None:
        super().__init__(HubConfig(max_connections=2), hub_type=hub_type)
        self.slots: dict[int, ConnId] = {}

    def play(self, steps: list[tuple[Any, ...]]) -> Any:
        """Run the steps, and end the hub. Return all that came out of it."""
        for kind, slot, *args in steps:
            conn = ConnId(0) if kind == "switch" else self.slots.get(slot, ConnId(0))
            is_open = conn in self.slots.values() and conn not in self.closed
            if kind == "switch":
                self.switch(*slot)
            elif kind == "wait":
                self.advance(slot)
            elif kind == "open" and not is_open:
                self.slots[slot] = self.open()
                self.receive(self.slots[slot], upgrade(SUPABASE))
            elif kind == "lose" and is_open:
                self.drop(conn)
            elif kind == "say" and is_open:
                self.receive(conn, SAID[args[0]])
        if isinstance(self.hub, FaultyHub):
            self.switch("heal")
        self.switch("shutdown")
        self.advance(1000.0)
        assert self.hub.is_closed
        assert self.hub.next_deadline() is None
        return self.events, self.sent, self.closed

    def switch(self, name: str, *args: Any) -> None:
        options = args[0] if name == "set_faults" else {}
        try:
            getattr(self.hub, name)(*([] if options else args), now=self.now, **options)
        except LocalProtocolError as error:
            if "thaw it first" not in str(error):
                raise
        self.settle()


@given(steps=STEPS)
def test_the_laws_hold_whatever_is_wrong_and_the_same_steps_give_the_same(steps: list[Any]) -> None:
    assert Story().play(steps) == Story().play(steps)


@given(steps=STEPS)
def test_without_a_fault_it_is_a_hub(steps: list[Any]) -> None:
    healthy = [step for step in steps if step[0] != "switch" or hasattr(Hub, step[1][0])]
    assert Story().play(healthy) == Story(Hub).play(healthy)
