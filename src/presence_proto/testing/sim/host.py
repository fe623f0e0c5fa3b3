"""A simulated driver: it carries out what one endpoint asks for, and tells it facts and the time.

A host has a clock of its own, which may jump, and may be frozen: then its endpoint sees nothing of the world,
and afterwards everything at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import inf
from typing import TYPE_CHECKING, Any, NoReturn

from presence_proto.errors import PresenceError
from presence_proto.outputs import CloseTransport, ConnId, OpenTransport, SendData
from presence_proto.testing.contract import Contract, ContractError
from presence_proto.testing.sim.laws import BOUNDS, CONTRACT, FORGOTTEN, WEATHER

if TYPE_CHECKING:
    from collections.abc import Callable

    from presence_proto.testing.sim.link import End
    from presence_proto.testing.sim.stage import Stage

MAX_OUTPUTS = 512
"""More outputs for one fact than this are a flood: a queue of commands fails at once, at most 100 of them."""


class Host(ABC):
    """The driver of one endpoint. `clock` is what its clock showed when the world began, in seconds."""

    def __init__(self, name: str, endpoint: Any, stage: Stage, *, clock: float) -> None:
        self.name = name
        self.endpoint = endpoint
        self.ends: dict[ConnId, End] = {}  # the transports that the endpoint knows
        self.is_up = True
        self.is_lost = False  # not even its system answers
        self.is_frozen = False
        self.lateness = 0.0  # ticks come late by up to so many seconds
        self._stage = stage
        self._agenda = stage.agenda
        self._log = stage.log
        self._contract = Contract(endpoint)
        self._offset = clock
        self._told = -inf  # the latest `now` that the endpoint has seen
        self._deadline: float | None = None  # of the endpoint, and on its clock
        self._wake = inf  # when we tick for it, in the time of the world
        self._inbox: list[tuple[Callable[..., None], tuple[Any, ...]]] = []  # while frozen

    @property
    def now(self) -> float:
        """What the clock of this host shows."""
        return self._agenda.now + self._offset

    @property
    def told(self) -> float:
        """The latest time that the endpoint knows of: going backwards is clamped."""
        return self._told

    # ---------------------------------------------------------------- what the application does

    def do(self, command: str, *args: Any, **kwargs: Any) -> Any:
        """Call a command of the endpoint, now, and carry out what comes of it. Returns what it returns."""
        result = self._call(command, args, kwargs)
        self.settle()
        return result

    def _call(self, command: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._log.is_on:
            self._log.note(self.name, "calls {}{}", command, _call_in_words(args, kwargs))
        try:
            return getattr(self.endpoint, command)(*args, now=self._clock(), **kwargs)
        except PresenceError:
            raise
        except Exception as exc:
            self._raised(command, exc)

    # ---------------------------------------------------------------- facts

    def opened(self, end: End) -> None:
        """A link that we asked for is there."""
        if not self._later(self.opened, end) and end.conn in self.ends:
            self._fact("transport_opened", end.conn)

    def opened_too_late(self, end: End) -> None:
        """A link is there that was given up. A driver must not report it; a sloppy one may."""
        self._stage.stale(self, "transport_opened", end.conn)

    def received(self, end: End, data: bytes, sent: float) -> None:
        """Bytes are here, which were sent at `sent`."""
        if self.is_frozen:
            self._inbox.append((self.received, (end, data, sent)))
            return
        end.peer.in_flight -= 1
        conn = end.conn
        if conn in self.ends:
            if self._log.is_on:
                self._log.note(self.name, "gets {} bytes on {}", len(data), conn)
            try:
                self.endpoint.receive_data(conn, data, now=self._clock())
            except Exception as exc:
                self._raised("receive_data", exc)
            self.settle(sent)

    def closed(self, end: End, reason: str) -> None:
        """A link is gone, or could not be made."""
        if not self._later(self.closed, end, reason) and self.ends.pop(end.conn, None) is not None:
            self._log.note(self.name, "loses connection {}: {}", end.conn, reason)
            self._contract.closed(end.conn)
            self._fact("transport_closed", end.conn, reason=reason)
            self._stage.stale(self, "transport_closed", end.conn)

    def stale_fact(self, fact: str, conn: ConnId) -> None:
        """Report something of a connection that the endpoint has forgotten: it must not care."""
        if self.is_up and not self._later(self.stale_fact, fact, conn):
            deadline = self.endpoint.next_deadline()
            self._log.note(self.name, "is told late: {} of {}", fact, conn)
            due = deadline is not None and deadline <= self._clock()
            outputs = self._fact(fact, conn)
            if not due and (outputs or self.endpoint.next_deadline() != deadline):
                self.broke(FORGOTTEN, f"{fact} of {conn}: {outputs}")

    def early_tick(self) -> None:
        """Tick although nothing is due."""
        if not self.is_frozen:
            deadline, now = self.endpoint.next_deadline(), self._clock()
            if deadline is None or now < deadline:
                try:
                    self._contract.idle_tick(now)
                except ContractError as exc:
                    self.broke(CONTRACT, str(exc))
                except Exception as exc:
                    self._raised("tick", exc)

    # ---------------------------------------------------------------- what can happen to a host

    def freeze(self) -> None:
        """From now on, the endpoint is told nothing."""
        self.is_frozen = True
        self._log.note(self.name, "freezes")

    def thaw(self, *, tick_first: bool = False) -> None:
        """Tell the endpoint all that it has missed."""
        if not self.is_frozen:
            return
        self.is_frozen = False
        self._log.note(self.name, "thaws")
        inbox, self._inbox = self._inbox, []
        if tick_first:
            self._tick(self._clock())
        for action, args in inbox:
            action(*args)
        self._tick(self._clock())

    def jump_clock(self, seconds: float) -> None:
        """The clock leaps forward, or steps backward."""
        self._offset += seconds
        self._log.note(self.name, "has its clock jump by {:+.3f} s", seconds)
        self._schedule(self._deadline)

    # ---------------------------------------------------------------- inside

    def _clock(self) -> float:
        now = self._agenda.now + self._offset
        if now > self._told:
            self._told = now
        return now

    def _later(self, action: Callable[..., None], *args: Any) -> bool:
        """While we are frozen: keep it for later."""
        if self.is_frozen:
            self._inbox.append((action, args))
        return self.is_frozen

    def _fact(self, fact: str, conn: ConnId, **kwargs: Any) -> list[Any]:
        try:
            getattr(self.endpoint, fact)(conn, now=self._clock(), **kwargs)
        except Exception as exc:
            self._raised(fact, exc)
        return self.settle()

    def _woken(self, when: float) -> None:
        """It is time for a tick, unless another time was set since."""
        if when == self._wake and not self.is_frozen:
            deadline, self._deadline, self._wake = self._deadline, None, inf
            assert deadline is not None
            # On this host's clock the deadline may be a rounding error away.
            now = max(self._clock(), deadline)
            self._told = max(self._told, now)
            self._tick(now)

    def _tick(self, now: float) -> None:
        try:
            self.endpoint.tick(now=now)
        except Exception as exc:
            self._raised("tick", exc)
        self.settle()

    def settle(self, sent: float | None = None) -> list[Any]:
        """Drain the endpoint, carry out what it wants, and see when it wants to be ticked.

        `sent` is when the bytes were sent that led to it, if bytes did.
        """
        try:
            outputs = self._contract.drain(self._told)
        except ContractError as exc:
            self.broke(CONTRACT, str(exc))
        happened: list[Any] = []
        for output in outputs:
            kind = type(output)
            if kind is SendData:
                if self._log.is_on:
                    self._log.note(self.name, "sends {} bytes on {}", len(output.data), output.conn)
                self.ends[output.conn].send(output.data)
            elif kind is CloseTransport:
                how = " at once" if output.abort else ""
                self._log.note(self.name, "closes connection {}{}", output.conn, how)
                self.ends.pop(output.conn).close(abort=output.abort)
                self._stage.stale(self, "transport_closed", output.conn)
            elif kind is OpenTransport:
                self._log.note(self.name, "opens connection {}", output.conn)
                self.ends[output.conn] = self._stage.connect(self, output.conn)
            else:
                happened.append(output)
        if len(outputs) > MAX_OUTPUTS:
            self.broke(BOUNDS, f"{len(outputs)} of them")
        if self._contract.deadline != self._deadline:
            self._schedule(self._contract.deadline)
        self.settled(outputs, happened, sent)
        return outputs

    @abstractmethod
    def settled(self, outputs: list[Any], happened: list[Any], sent: float | None) -> None:
        """The endpoint is drained, and its `outputs` are carried out; those which are events `happened`."""

    def _schedule(self, deadline: float | None) -> None:
        """Wake up at `deadline`, and not before."""
        self._deadline, self._wake = deadline, inf
        if deadline is not None:
            self._wake = deadline - self._offset
            if self.lateness:
                self._wake += self.lateness * self._stage.rng.random()
            self._agenda.at(self._wake, self._woken, self._wake)

    def broke(self, law: str, details: str) -> NoReturn:
        """Raise `SimViolation`."""
        self._stage.broken(law, self.name, details)

    def _raised(self, what: str, exc: Exception) -> NoReturn:
        try:
            self.broke(WEATHER, f"{what} raised {exc!r}")
        except AssertionError as violation:
            raise violation from exc


def _call_in_words(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    return f"({', '.join([*map(repr, args), *(f'{name}={value!r}' for name, value in kwargs.items())])})"
