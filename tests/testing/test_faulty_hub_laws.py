"""`FaultyHub` keeps the contract of every endpoint, whatever is wrong with it."""

from __future__ import annotations

from typing import Any

from attrs import fields
from hypothesis import given
from hypothesis import strategies as st

from faulty_rig import BROADCAST, CLOSE, HEARTBEAT, TRACK
from hub_client import SUPABASE, masked, supabase_join, upgrade
from presence_proto.config import HubConfig
from presence_proto.endpoint import CloseTransport, ConnId
from presence_proto.errors import LocalProtocolError
from presence_proto.hub import Hub
from presence_proto.json_text import encode_payload
from presence_proto.testing import Contract, Faults, FaultyHub


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


class Story:
    """A hub and what happens to it, with the contract checked after every step. Slots name connections."""

    def __init__(self, hub_type: type[Hub] = FaultyHub) -> None:
        self.hub = hub_type(HubConfig(max_connections=2))
        self.contract = Contract(self.hub)
        self.now = 100.0
        self.last = 0
        self.slots: dict[int, ConnId] = {}
        self.outputs: list[Any] = []

    def play(self, steps: list[tuple[Any, ...]]) -> list[Any]:
        for kind, *args in steps:
            getattr(self, kind)(*args)
            self.drain()
        if isinstance(self.hub, FaultyHub):
            self.switch(("heal",))
            self.drain()
        self.switch(("shutdown",))
        self.wait(1000.0)
        self.drain()
        assert self.hub.is_closed
        assert self.hub.next_deadline() is None
        return self.outputs

    def drain(self) -> None:
        for output in self.contract.drain(self.now):
            self.outputs.append(output)
            if isinstance(output, CloseTransport):
                self.slots = {slot: conn for slot, conn in self.slots.items() if conn != output.conn}

    def open(self, slot: int) -> None:
        if slot not in self.slots:
            self.last += 1
            conn = self.slots[slot] = ConnId(self.last)
            self.contract.accepted(conn)
            self.hub.transport_opened(conn, now=self.now)
            self.hub.receive_data(conn, upgrade(SUPABASE), now=self.now)

    def lose(self, slot: int) -> None:
        if slot in self.slots:
            conn = self.slots.pop(slot)
            self.contract.closed(conn)
            self.hub.transport_closed(conn, now=self.now)

    def say(self, slot: int, what: str) -> None:
        if slot in self.slots:
            self.hub.receive_data(self.slots[slot], SAID[what], now=self.now)

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while (deadline := self.hub.next_deadline()) is not None and deadline <= end:
            self.now = deadline
            self.hub.tick(now=deadline)
            self.drain()
        self.now = end
        self.hub.tick(now=end)

    def switch(self, command: tuple[Any, ...]) -> None:
        name, *args = command
        options = args.pop() if name == "set_faults" else {}
        try:
            getattr(self.hub, name)(*args, now=self.now, **options)
        except LocalProtocolError as error:
            if "thaw it first" not in str(error):
                raise


@given(steps=STEPS)
def test_the_laws_hold_whatever_is_wrong_and_the_same_steps_give_the_same(steps: list[Any]) -> None:
    assert Story().play(steps) == Story().play(steps)


@given(steps=STEPS)
def test_without_a_fault_it_is_a_hub(steps: list[Any]) -> None:
    healthy = [step for step in steps if step[0] != "switch" or hasattr(Hub, step[1][0])]
    assert Story().play(healthy) == Story(Hub).play(healthy)
