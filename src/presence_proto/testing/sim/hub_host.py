"""The host of the hub: it listens, it falls, and it comes up again with a new hub."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from presence_proto.events import TopicJoined
from presence_proto.outputs import ConnId, SendData
from presence_proto.testing.contract import Contract
from presence_proto.testing.sim.host import Host
from presence_proto.testing.sim.truth import Truth

if TYPE_CHECKING:
    from collections.abc import Callable

    from presence_proto.hub import Hub
    from presence_proto.testing.sim.link import End
    from presence_proto.testing.sim.stage import Stage

LAST_WORDS = 10.0
"""Seconds that a hub which is being stopped has for its goodbyes, before its process is killed."""

SMALL = 72
"""An answer of so many bytes, not compressed, to nobody but the asker, such as that to a heartbeat, changes
nobody's presence."""


class HubHost(Host):
    """Where the hub runs. `make_hub` is called for the first one, and after each fall for the next.

    `is_terse`: what it says of the presence may be short, compressed or put off.
    """

    endpoint: Hub

    def __init__(self, make_hub: Callable[[], Hub], stage: Stage, *, clock: float, is_terse: bool) -> None:
        super().__init__("hub", make_hub(), stage, clock=clock)
        self.truth = Truth()
        self.starts = 1
        self._make_hub = make_hub
        self._small = 0 if is_terse else SMALL
        self._joined: dict[tuple[ConnId, str], float] = {}  # no id comes twice, in whatever life
        self._last_conn = 0

    # ---------------------------------------------------------------- facts

    def knocked(self, end: End, refused: str | None) -> None:
        """A client wants a connection, and this is its end. `refused`: why the network does not want it."""
        if self.is_up and refused is None:
            end.peer.is_open = True
            self._accepted(end.peer)
            end.answer(None)
        elif not self.is_lost:
            end.answer(refused or "connection refused")

    def _accepted(self, end: End) -> None:
        if not self._later(self._accepted, end) and not end.was_closed:
            self._last_conn += 1
            end.conn = ConnId(self._last_conn)
            self.ends[end.conn] = end
            self._contract.accepted(end.conn)
            self._fact("transport_opened", end.conn)

    def settled(self, outputs: list[Any], happened: list[Any], sent: float | None) -> None:
        """See what has become of the truth."""
        if sent is None or len(outputs) > 1 or (outputs and not self._is_small(outputs[0])):
            self.truth.look(self.endpoint, self._agenda.now)
            for event in happened:
                self._log.note(self.name, "reports {}", event)
                if isinstance(event, TopicJoined):
                    self._joined[event.conn, event.topic] = self._agenda.now

    def joined_at(self, conn: ConnId, topic: str) -> float:
        """When a connection came into a topic, the last time that it did."""
        return self._joined.get((conn, topic), -inf)

    def _is_small(self, output: Any) -> bool:
        return isinstance(output, SendData) and len(output.data) <= self._small

    # ---------------------------------------------------------------- falling, and coming up again

    def stop(self, down: float) -> None:
        """Shut down in order: clients are told to come back. The next hub is up `down` seconds later."""
        if self.is_up and not self.endpoint.is_closed:
            self.is_up = False  # nobody new is let in
            self.do("shutdown")
            self._agenda.after(LAST_WORDS, self._gone, self.starts, down)

    def kill(self, down: float, *, lost: bool = False) -> None:
        """End the process. `lost`: with its machine, and not even its system says goodbye to anybody."""
        if self.is_up:
            self._log.note(self.name, "is killed{}", " with its machine" if lost else "")
            self.is_up, self.is_lost = False, lost
            self._gone(self.starts, down)

    def start(self) -> None:
        """A new hub comes up, if there is none."""
        if not self.is_up:
            self._leave_all()
            self.starts += 1
            self.is_up, self.is_lost = True, False
            self.endpoint, self._told = self._make_hub(), -inf
            self._contract = Contract(self.endpoint)
            self._log.note(self.name, "is up, in its life number {}", self.starts)

    def _gone(self, start: int, down: float) -> None:
        if start == self.starts and not self.is_up:
            self._leave_all()
            self._agenda.after(down, self._start_again, start)

    def _start_again(self, start: int) -> None:
        if start == self.starts:
            self.start()

    def _leave_all(self) -> None:
        """The process is gone, and does nothing any more."""
        self.is_frozen, self._deadline, self._wake = False, None, inf
        self._inbox.clear()
        for end in self.ends.values():
            if self.is_lost:
                end.vanish()
            else:
                end.close(abort=bool(self._stage.rng.getrandbits(1)))
        self.ends.clear()
        self.truth.clear(self._agenda.now)
