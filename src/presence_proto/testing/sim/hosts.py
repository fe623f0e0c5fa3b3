"""The host of the hub: it listens, it falls, and it comes up again with a new hub."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import inf
from typing import TYPE_CHECKING, Any, NoReturn

from presence_proto.client import PresenceClient
from presence_proto.endpoint import CloseTransport, ConnId, OpenTransport, SendData
from presence_proto.errors import PresenceError
from presence_proto.events import TopicJoined
from presence_proto.realtime import RealtimeClient
from presence_proto.testing.contract import Contract, ContractError
from presence_proto.testing.sim._judges import ChannelWatch, RoomWatch, Truth, Watch
from presence_proto.testing.sim.laws import ALIVE, BOUNDS, CONTRACT, FORGOTTEN, VIEW, WEATHER

if TYPE_CHECKING:
    from collections.abc import Callable

    from presence_proto.hub import Hub
    from presence_proto.testing.sim._judges import MessageLog
    from presence_proto.testing.sim.links import End
    from presence_proto.testing.sim.stage import Stage


# ------------------------------------------------------------------------------------------------------- host
# A simulated driver: it carries out what one endpoint asks for, and tells it facts and the time.
#
# A host has a clock of its own, which may jump, and may be frozen: then its endpoint sees nothing of the
# world, and afterwards everything at once.


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


# ------------------------------------------------------------------------------------------------ client host
# The host of a client: what its application wants, how it reaches the hub, and who watches it.


class ClientHost(Host):
    """Where a client runs. `on_event` gets its events, after they were checked, and may call `do`.

    `patience`: seconds after which every command must have an outcome. `hears_chat`: whether its protocol has
    chat. `has_grace`: whether its `restart_grace` is on.
    """

    def __init__(
        self,
        name: str,
        endpoint: Any,
        stage: Stage,
        post: MessageLog,
        *,
        clock: float,
        patience: float,
        hears_chat: bool = True,
        has_grace: bool = True,
        on_event: Callable[[Any], None] | None = None,
    ) -> None:
        super().__init__(name, endpoint, stage, clock=clock)
        self.hears_chat = hears_chat
        self.has_grace = has_grace
        self.patience = patience
        self.wanted = False  # the application wants to be connected
        self.connects = "ok"  # or "refuse", "hang", "slow": what its network does to connects
        self.watch: Watch | None = None
        if isinstance(endpoint, PresenceClient):
            self.watch = RoomWatch(self, endpoint, stage, post)
        elif isinstance(endpoint, RealtimeClient):
            self.watch = ChannelWatch(self, endpoint, stage)
        self._on_event = on_event
        self._seen = -1  # the version of the truth that our view was compared with

    @property
    def end(self) -> End | None:
        """Our end of the link, if there is one, or one is being made."""
        return next(iter(self.ends.values()), None)

    def do(self, command: str, *args: Any, **kwargs: Any) -> Any:
        """Call a command of the client, now, and carry out what comes of it. Returns what it returns."""
        result = self._call(command, args, kwargs)
        if command in ("connect", "disconnect"):
            self.wanted = command == "connect"
        elif self.watch is not None:
            self.watch.commanded(command, args, kwargs, result)
        self.settle()
        return result

    def settled(self, outputs: list[Any], happened: list[Any], sent: float | None) -> None:
        """Judge what has happened, then tell the application."""
        watch = self.watch
        if happened:
            self._stage.stats.events += len(happened)
            for event in happened:
                self._log.note(self.name, "reports {}", event)
            self._seen = -1
            if watch is not None:
                watch.happened(happened, sent)
        if watch is not None and sent is not None and self._seen != self._stage.hub.truth.version:
            self._compare(watch)
        if self._deadline is None and not self.endpoint.is_closed:
            self.broke(ALIVE, "it has no deadline, and is not closed")
        if happened and self._on_event is not None:
            for event in happened:
                self._on_event(event)

    def _compare(self, watch: Watch) -> None:
        """If all that the hub has sent is here, we must see what the hub sees."""
        end = self.end
        if end is not None and end.peer.is_through:
            self._seen = self._stage.hub.truth.version
            wrong = watch.wrong_view()
            if wrong is not None:
                self.broke(VIEW, wrong)


# --------------------------------------------------------------------------------------------------- hub host


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
