"""Simulated drivers: `ClientHost` runs a client, `HubHost` runs and restarts the hub."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import inf
from typing import TYPE_CHECKING, Any, NoReturn

from presence_proto.endpoint import CloseTransport, ConnId, OpenTransport, SendData
from presence_proto.errors import PresenceError
from presence_proto.events import TopicJoined
from presence_proto.presence_client import PresenceClient
from presence_proto.realtime_client import RealtimeClient
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
# A host is a simulated driver, which carries out the outputs of one endpoint and reports facts and times.
#
# Each host has its own clock, which may jump. A frozen host passes no facts to its endpoint. When the host
# thaws, it passes all missed facts at once.


MAX_OUTPUTS = 512
"""Maximum number of outputs caused by one fact. A full queue of at most 100 commands may fail at once."""


class Host(ABC):
    """Simulated driver of one endpoint. `clock` is the initial time of the driver's clock, in seconds."""

    def __init__(self, name: str, endpoint: Any, stage: Stage, *, clock: float) -> None:
        self.name = name
        self.endpoint = endpoint
        self.ends: dict[ConnId, End] = {}  # the transports that the endpoint knows
        self.is_up = True
        self.is_lost = False  # the whole machine is down: not even its kernel answers
        self.is_frozen = False
        self.lateness = 0.0  # seconds; the longest random delay of a tick
        self._stage = stage
        self._agenda = stage.agenda
        self._log = stage.log
        self._contract = Contract(endpoint)
        self._offset = clock
        self._told = -inf  # the latest `now` that the endpoint has received
        self._deadline: float | None = None  # the endpoint's deadline, on this host's clock
        self._wake = inf  # the time of the next tick, in the world's time
        self._inbox: list[tuple[Callable[..., None], tuple[Any, ...]]] = []  # facts that wait for the thaw

    @property
    def now(self) -> float:
        """The current time of this host's clock, in seconds."""
        return self._agenda.now + self._offset

    @property
    def told(self) -> float:
        """The latest `now` that the endpoint has received. Endpoints ignore earlier times."""
        return self._told

    # ---------------------------------------------------------------- commands of the application

    def do(self, command: str, *args: Any, **kwargs: Any) -> Any:
        """Call a command of the endpoint and carry out its outputs. Return the command's result."""
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
        """Report to the endpoint that a requested connection is open."""
        if not self._later(self.opened, end) and end.conn in self.ends:
            self._fact("transport_opened", end.conn)

    def opened_too_late(self, end: End) -> None:
        """Report, as a stale fact, a connection that opened after the endpoint had closed the connection."""
        self._stage.stale(self, "transport_opened", end.conn)

    def received(self, end: End, data: bytes, sent: float) -> None:
        """Pass received bytes to the endpoint. `sent` is the world's time at which the bytes were sent."""
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
        """Report to the endpoint that a connection was closed, or that a connection attempt failed."""
        if not self._later(self.closed, end, reason) and self.ends.pop(end.conn, None) is not None:
            self._log.note(self.name, "loses connection {}: {}", end.conn, reason)
            self._contract.closed(end.conn)
            self._fact("transport_closed", end.conn, reason=reason)
            self._stage.stale(self, "transport_closed", end.conn)

    def stale_fact(self, fact: str, conn: ConnId) -> None:
        """Report a fact about a forgotten connection, and check that the endpoint ignores the fact."""
        if self.is_up and not self._later(self.stale_fact, fact, conn):
            deadline = self.endpoint.next_deadline()
            self._log.note(self.name, "is told late: {} of {}", fact, conn)
            due = deadline is not None and deadline <= self._clock()
            outputs = self._fact(fact, conn)
            if not due and (outputs or self.endpoint.next_deadline() != deadline):
                self.broke(FORGOTTEN, f"{fact} of {conn}: {outputs}")

    def early_tick(self) -> None:
        """Call the endpoint's `tick` before the deadline, and check that the call has no effect."""
        if not self.is_frozen:
            deadline, now = self.endpoint.next_deadline(), self._clock()
            if deadline is None or now < deadline:
                try:
                    self._contract.idle_tick(now)
                except ContractError as exc:
                    self.broke(CONTRACT, str(exc))
                except Exception as exc:
                    self._raised("tick", exc)

    # ---------------------------------------------------------------- faults of a host

    def freeze(self) -> None:
        """Report no more facts to the endpoint until `thaw`."""
        self.is_frozen = True
        self._log.note(self.name, "freezes")

    def thaw(self, *, tick_first: bool = False) -> None:
        """Report all facts since `freeze`, then tick. With `tick_first`, also tick before the first fact."""
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
        """Move the clock by `seconds`, forward or backward."""
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
        """Keep an action for `thaw` while the host is frozen. Return whether the action was kept."""
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
        """Tick, unless the wake-up time has changed since this call was scheduled."""
        if when == self._wake and not self.is_frozen:
            deadline, self._deadline, self._wake = self._deadline, None, inf
            assert deadline is not None
            # `max`: due to rounding, this host's clock may still be slightly before the deadline.
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
        """Drain the endpoint, carry out its outputs and schedule its next tick. Return the outputs.

        `sent` is the time when the bytes that caused the outputs were sent, or `None` without such bytes.
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
        """Check the `outputs` of a drain. `happened` contains the events among the outputs."""

    def _schedule(self, deadline: float | None) -> None:
        """Schedule the next tick at `deadline`, plus a random delay of up to `lateness`."""
        self._deadline, self._wake = deadline, inf
        if deadline is not None:
            self._wake = deadline - self._offset
            if self.lateness:
                self._wake += self.lateness * self._stage.rng.random()
            self._agenda.at(self._wake, self._woken, self._wake)

    def broke(self, law: str, details: str) -> NoReturn:
        """Raise `SimViolation` for this host."""
        self._stage.broken(law, self.name, details)

    def _raised(self, what: str, exc: Exception) -> NoReturn:
        try:
            self.broke(WEATHER, f"{what} raised {exc!r}")
        except AssertionError as violation:
            raise violation from exc


def _call_in_words(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    return f"({', '.join([*map(repr, args), *(f'{name}={value!r}' for name, value in kwargs.items())])})"


# ------------------------------------------------------------------------------------------------ client host
# The host of a client knows what the application wants, how connects end, and which watch checks the client.


class ClientHost(Host):
    """Simulated driver of a client. `on_event` receives each event after its check, and may call `do`.

    `patience` is the maximum time until the outcome of a command, in seconds. `hears_chat` is true if the
    client's protocol supports chat. `has_grace` is true if the client's `restart_grace` is on.
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
        self.wanted = False  # whether the application wants to be connected
        self.connects = "ok"  # the network's effect on connects: "ok", "refuse", "hang" or "slow"
        self.watch: Watch | None = None
        if isinstance(endpoint, PresenceClient):
            self.watch = RoomWatch(self, endpoint, stage, post)
        elif isinstance(endpoint, RealtimeClient):
            self.watch = ChannelWatch(self, endpoint, stage)
        self._on_event = on_event
        self._seen = -1  # the version of the truth in the last comparison with the client's view

    @property
    def end(self) -> End | None:
        """The client's end of its open or connecting link, or `None` without a link."""
        return next(iter(self.ends.values()), None)

    def do(self, command: str, *args: Any, **kwargs: Any) -> Any:
        """Call a command of the client and carry out its outputs. Return the command's result."""
        result = self._call(command, args, kwargs)
        if command in ("connect", "disconnect"):
            self.wanted = command == "connect"
        elif self.watch is not None:
            self.watch.commanded(command, args, kwargs, result)
        self.settle()
        return result

    def settled(self, outputs: list[Any], happened: list[Any], sent: float | None) -> None:
        """Check the events and the client's view, then pass the events to `on_event`."""
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
        """Check the client's view, unless bytes from the hub are still in flight."""
        end = self.end
        if end is not None and end.peer.is_through:
            self._seen = self._stage.hub.truth.version
            wrong = watch.wrong_view()
            if wrong is not None:
                self.broke(VIEW, wrong)


# --------------------------------------------------------------------------------------------------- hub host


LAST_WORDS = 10.0
"""Seconds from `Hub.shutdown` to the end of the hub's process, during which the hub closes connections."""

SMALL = 72
"""Maximum size in bytes of a single uncompressed output that is only a reply to one client, for example to a
heartbeat. Such an output means that presence is unchanged and the truth needs no update."""


class HubHost(Host):
    """Simulated driver of the hub, which calls `make_hub` for the first hub and for each restart.

    `is_terse` is true if the hub may compress or delay presence messages, so that `SMALL` does not apply.
    """

    endpoint: Hub

    def __init__(self, make_hub: Callable[[], Hub], stage: Stage, *, clock: float, is_terse: bool) -> None:
        super().__init__("hub", make_hub(), stage, clock=clock)
        self.truth = Truth()
        self.starts = 1
        self._make_hub = make_hub
        self._small = 0 if is_terse else SMALL
        # A restart does not clear this: connection ids are never reused, not even by the next hub.
        self._joined: dict[tuple[ConnId, str], float] = {}
        self._last_conn = 0

    # ---------------------------------------------------------------- facts

    def knocked(self, end: End, refused: str | None) -> None:
        """Accept or refuse a connect of the client at `end`. `refused` is the network's reason, or `None`."""
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
        """Update `truth`, unless the outputs show that presence has not changed (see `SMALL`)."""
        if sent is None or len(outputs) > 1 or (outputs and not self._is_small(outputs[0])):
            self.truth.look(self.endpoint, self._agenda.now)
            for event in happened:
                self._log.note(self.name, "reports {}", event)
                if isinstance(event, TopicJoined):
                    self._joined[event.conn, event.topic] = self._agenda.now

    def joined_at(self, conn: ConnId, topic: str) -> float:
        """Return the time of the last join of a topic on a connection, or `-inf` without a join."""
        return self._joined.get((conn, topic), -inf)

    def _is_small(self, output: Any) -> bool:
        return isinstance(output, SendData) and len(output.data) <= self._small

    # ---------------------------------------------------------------- stopping and starting

    def stop(self, down: float) -> None:
        """Shut the hub down with close code 1012, which asks clients to reconnect.

        The next hub starts `down` seconds after the process has ended.
        """
        if self.is_up and not self.endpoint.is_closed:
            self.is_up = False  # refuse new connections from here on
            self.do("shutdown")
            self._agenda.after(LAST_WORDS, self._gone, self.starts, down)

    def kill(self, down: float, *, lost: bool = False) -> None:
        """Kill the hub's process. The next hub starts `down` seconds later.

        With `lost`, the hub's machine is also down: its kernel sends no FIN or RST on the connections.
        """
        if self.is_up:
            self._log.note(self.name, "is killed{}", " with its machine" if lost else "")
            self.is_up, self.is_lost = False, lost
            self._gone(self.starts, down)

    def start(self) -> None:
        """Start a new hub, unless a hub is running."""
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
        """End the process: clear its timers and facts, close its connections, and end all presences."""
        self.is_frozen, self._deadline, self._wake = False, None, inf
        self._inbox.clear()
        for end in self.ends.values():
            if self.is_lost:
                end.vanish()
            else:
                end.close(abort=bool(self._stage.rng.getrandbits(1)))
        self.ends.clear()
        self.truth.clear(self._agenda.now)
