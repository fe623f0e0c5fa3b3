"""What every endpoint promises its driver, checked at each drain. See the laws of `docs/contract.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from presence_proto.client import PresenceClient
from presence_proto.events import HubEvent, PresenceEvent, RealtimeEvent
from presence_proto.hub import Hub
from presence_proto.outputs import (
    MERGED,
    AccessTokenNeeded,
    CloseTransport,
    ConnId,
    OpenTransport,
    SendData,
)
from presence_proto.realtime import RealtimeClient

if TYPE_CHECKING:
    from presence_proto.endpoint import Endpoint

_EVENTS: tuple[tuple[type, tuple[type, ...]], ...] = (
    (RealtimeClient, (AccessTokenNeeded, *get_args(RealtimeEvent))),
    (PresenceClient, (AccessTokenNeeded, *get_args(PresenceEvent))),
    (Hub, get_args(HubEvent)),
)


class ContractError(AssertionError):
    """An endpoint did what the contract, or the documentation of its events, rules out."""


def require(condition: bool, rule: str) -> None:
    """Raise `ContractError` with the `rule` that was broken, unless `condition` is true."""
    if not condition:
        raise ContractError(rule)


class Contract:
    """Drains one endpoint, and raises `ContractError` when it breaks a law on the way.

    - Draining runs no protocol code: the deadline is the same before and after it, and nothing is left.
    - The deadline is `None` or lies in the future. That of a hub is now while bytes wait for a turn.
    - `SendData` is never empty. Two for one connection stand side by side only when one of them is pongs, or
      when they have more than 64 KiB together.
    - A `ConnId` is named only while it lives, ids grow, and a client has one at most.
    - An event is one of those that are documented for the endpoint.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.deadline: float | None = None  # as of the last drain
        self._events = next((events for kind, events in _EVENTS if isinstance(endpoint, kind)), (object,))
        self._live: set[ConnId] = set()
        self._last = ConnId(0)

    def accepted(self, conn: ConnId) -> None:
        """A transport was opened without being asked for: those of a hub are."""
        self._live.add(conn)

    def closed(self, conn: ConnId) -> None:
        """A transport is gone. Call this before `transport_closed` tells the endpoint."""
        self._live.discard(conn)

    def drain(self, now: float) -> list[Any]:
        """All outputs, checked. `now` is that of the last fact."""
        # For each fact of a simulated world: a rule is put into words only when it is broken.
        endpoint = self._endpoint
        deadline = self.deadline = endpoint.next_deadline()
        outputs = list(endpoint.drain())
        previous = None
        for output in outputs:
            self._check(output, previous)
            previous = output
        if outputs:
            require(not endpoint.drain(), "a drain takes all outputs: after it there are none")
            require(endpoint.next_deadline() == deadline, "draining does not change the deadline")
        if deadline is not None and deadline <= now and not self._has_backlog():
            raise ContractError(f"the deadline {deadline} is not after {now}")
        return outputs

    def _has_backlog(self) -> bool:
        """Whether bytes wait for a turn. Then the deadline is now."""
        return isinstance(self._endpoint, Hub) and self._endpoint.has_backlog

    def idle_tick(self, now: float) -> None:
        """Tick before the deadline: nothing may come of it."""
        deadline = self._endpoint.next_deadline()
        self._endpoint.tick(now=now)
        require(not self._endpoint.drain(), "an early tick does nothing")
        require(self._endpoint.next_deadline() == deadline, "an early tick does not change the deadline")

    def _check(self, output: Any, previous: Any) -> None:
        if isinstance(output, SendData):
            conn = output.conn
            if conn not in self._live:
                raise ContractError(f"data for connection {conn}, which is not open")
            require(len(output.data) > 0, "SendData is never empty")
            if isinstance(previous, SendData) and previous.conn == conn:
                large = len(previous.data) + len(output.data) > MERGED
                merged = previous.is_pong != output.is_pong or large
                require(merged, "two SendData for one connection stand side by side")
        elif isinstance(output, OpenTransport):
            conn = output.conn
            require(not self._live, "a client has one connection at most")
            require(conn > self._last, f"ids only grow: {conn} came after {self._last}")
            self._live.add(conn)
            self._last = conn
        elif isinstance(output, CloseTransport):
            conn = output.conn
            require(conn in self._live, f"connection {conn} is closed, and is not open")
            self._live.remove(conn)
        elif not isinstance(output, self._events):
            raise ContractError(f"{output!r} is no documented event")
