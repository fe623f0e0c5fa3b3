"""`FaultyHub`: a hub with switches for faults, to test how clients handle them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from presence_proto.endpoint import CloseTransport, ConnId, Event, OpenTransport, Outbox, SendData, _Chunks
from presence_proto.errors import LocalProtocolError
from presence_proto.hub import Hub
from presence_proto.hub.admission import Refusal
from presence_proto.hub.channels import SupabaseMember
from presence_proto.hub.jarvis import JarvisSession
from presence_proto.hub.limits import TOO_MANY_MESSAGES, Bucket
from presence_proto.hub.peer import ABNORMAL, Phase
from presence_proto.hub.phoenix import PhoenixSession
from presence_proto.json_text import decode_object
from presence_proto.validators import MIN_SECONDS, is_number, is_unicode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from random import Random

    from presence_proto.config import HubConfig
    from presence_proto.events import HubEvent
    from presence_proto.hub.admission import Admission
    from presence_proto.hub.peer import Peer, Session
    from presence_proto.hub.topic import EncodedMessage, SharedMessage
    from presence_proto.serializer import Message
    from presence_proto.timers import Clock
    from presence_proto.websocket import HandshakeRequest


# ------------------------------------------------------------------------------------------------- delay line
# An outbox that delays its bytes.


class DelayLine(Outbox[Event]):
    """`Outbox` that can delay bytes and the orderly closes after them. Other outputs are not delayed.

    Delayed outputs keep their order. `release` queues the outputs that are due.
    """

    __slots__ = ("_clock", "_line", "_seconds")

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._seconds = 0.0
        self._line: deque[tuple[float, SendData | CloseTransport]] = deque()  # (due time in seconds, output)

    @property
    def deadline(self) -> float | None:
        """Time at which the first delayed output is due, in seconds, or `None`."""
        return self._line[0][0] if self._line else None

    def delay(self, seconds: float) -> None:
        """Delay later outputs by `seconds`. 0 ends the delay and queues all delayed outputs at once."""
        self._seconds = seconds
        while not seconds and self._line:
            self._let_go()

    def release(self) -> None:
        """Queue the delayed outputs that are due."""
        while self._line and self._line[0][0] <= self._clock.now:
            self._let_go()

    def send(self, conn: ConnId, data: bytes) -> None:
        """Queue `data` for `conn`. Empty data queues nothing."""
        if not self._seconds:
            super().send(conn, data)
        elif data:
            self._line.append((self._clock.now + self._seconds, SendData(conn, data)))

    def put(self, output: Event | OpenTransport | CloseTransport) -> None:
        """Queue an event or a transport command. An abort drops the delayed outputs of its connection."""
        if isinstance(output, CloseTransport) and self._seconds:
            if not output.abort:
                self._line.append((self._clock.now + self._seconds, output))
                return
            self.forget(output.conn)
        super().put(output)

    def forget(self, conn: ConnId) -> None:
        """Drop the delayed and queued bytes and closes of a transport that has ended."""
        self._line = deque(held for held in self._line if held[1].conn != conn)
        self._open.pop(conn, None)
        about = (_Chunks, CloseTransport)
        self._queue[:] = [one for one in self._queue if not (isinstance(one, about) and one.conn == conn)]

    def cut(self) -> None:
        """Break all transports: drop the delayed bytes, and turn the delayed closes into aborts."""
        closing = [output.conn for _, output in self._line if isinstance(output, CloseTransport)]
        self._line.clear()
        for conn in closing:
            super().put(CloseTransport(conn, abort=True))

    def _let_go(self) -> None:
        _, output = self._line.popleft()
        if isinstance(output, SendData):
            super().send(output.conn, output.data)
        else:
            super().put(output)


# ----------------------------------------------------------------------------------------------------- faults
# The faults that a hub can have, and the sessions that apply them.


_UNAVAILABLE = Refusal(503, "refused for a test")


@frozen(kw_only=True)
class Faults:
    """The current faults of a hub; none by default. The methods of `FaultyHub` document them."""

    handshakes_to_refuse: int = 0
    refusal: Refusal = _UNAVAILABLE  # the response to a refused handshake
    heartbeats_muted: bool = False
    joins_ignored: bool = False
    states_withheld: bool = False
    broadcasts_dropped: bool = False
    diffs_duplicated: bool = False
    join_delay: float = 0.0  # seconds, added to the config's join delay
    refusal_delay: float = 0.0  # seconds, added to the config's refusal delay
    presence_limit: int | None = None  # the most track and untrack calls in 30 seconds
    broadcast_limit: int | None = None  # the most broadcasts in one second
    delay: float = 0.0  # seconds, for all sent bytes
    frozen: bool = False


class FaultyPhoenixSession(PhoenixSession):
    """Phoenix session with the `faults` of its hub."""

    __slots__ = ("_broadcasts", "_faults")

    def __init__(self, faults: Callable[[], Faults], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._faults = faults
        self._broadcasts: dict[str, Bucket] = {}  # topic -> rate limit

    def _on_message(self, message: Message) -> None:
        faults, event = self._faults(), message.event
        if event == "phx_join":
            if faults.joins_ignored:
                return
            self._broadcasts.pop(message.topic, None)
        elif message.topic == "phoenix" and event == "heartbeat":
            if faults.heartbeats_muted:
                return
        elif event == "broadcast" and faults.broadcast_limit is not None and self._is_member(message):
            bucket = self._broadcasts.setdefault(message.topic, Bucket(1.0))
            if not bucket.take(faults.broadcast_limit, self.topics.clock.now):
                self.stop(message.topic, TOO_MANY_MESSAGES, crashed=False)
                return
        super()._on_message(message)

    def _join_delay(self) -> float:
        return super()._join_delay() + self._faults().join_delay

    def _refusal_delay(self) -> float:
        return super()._refusal_delay() + self._faults().refusal_delay

    def _is_member(self, message: Message) -> bool:
        """Whether the message is for the current join of a Supabase channel. Plain channels have no limit."""
        channel = self._channels.get(message.topic)
        return isinstance(channel, SupabaseMember) and message.join_ref in (None, channel.ref)

    @property
    def presence_limit(self) -> int | None:
        """The most track and untrack calls of a channel in 30 s: the config's or the fault's lower limit."""
        limits = super().presence_limit, self._faults().presence_limit
        return min((limit for limit in limits if limit is not None), default=None)

    def send(self, message: Message) -> None:
        """Send a message, unless it is a withheld `presence_state`."""
        if message.event != "presence_state" or not self._faults().states_withheld:
            super().send(message)

    def send_shared(self, shared: SharedMessage) -> None:
        """Send a shared message never, once or twice, depending on the faults."""
        faults = self._faults()
        if shared.message.event == "presence_diff":
            if faults.diffs_duplicated:
                super().send_shared(shared)
        elif faults.broadcasts_dropped:
            return
        super().send_shared(shared)


class FaultyJarvisSession(JarvisSession):
    """Jarvis JSON session with the `faults` of its hub."""

    __slots__ = ("_faults",)

    def __init__(self, faults: Callable[[], Faults], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._faults = faults

    def _on_message(self, message: Mapping[str, Any]) -> None:
        faults, kind = self._faults(), message.get("type")
        if (kind == "ping" and faults.heartbeats_muted) or (kind == "connect" and faults.joins_ignored):
            return
        super()._on_message(message)

    def send_shared(self, form: EncodedMessage) -> None:
        """Send a shared message never, once or twice, depending on the faults."""
        faults = self._faults()
        if faults.broadcasts_dropped or faults.diffs_duplicated:
            kind = decode_object(str(form.encoded.data, "utf-8"), "a message")["type"]
            if kind in ("game_invite", "poke"):
                if faults.broadcasts_dropped:
                    return
            elif faults.diffs_duplicated:
                super().send_shared(form)
        super().send_shared(form)


# ------------------------------------------------------------------------------------------------- faulty hub


class FaultyHub(Hub):
    """`Hub` with switches for faults. With all switches off it behaves like a `Hub`.

    A switch takes effect at once. It stays on until it is turned off or `heal` turns off all switches.
    Earlier effects are not undone. `crash_channel`, `close_channel` and `disconnect` of `Hub` are
    faults, too. Every switch takes `now` in seconds and raises `LocalProtocolError` for invalid values.
    `shutdown` calls `heal` first.
    """

    def __init__(self, config: HubConfig | None = None, *, rng: Random | None = None) -> None:
        super().__init__(config, rng=rng)
        self._faults = Faults()
        self._kept: list[tuple[Callable[..., None], tuple[Any, ...], dict[str, Any]]] = []  # while frozen

    # ---------------------------------------------------------------- getters

    @property
    def faults(self) -> Faults:
        """The current faults."""
        return self._faults

    @property
    def is_closed(self) -> bool:
        """Whether the hub was shut down, the last transport has ended, and no delayed output is left."""
        return super().is_closed and self._line.deadline is None

    # ---------------------------------------------------------------- switches

    def refuse_handshakes(self, count: int = 1, status: int = 503, body: str = "", *, now: float) -> None:
        """Refuse the next `count` handshakes with an HTTP status (300 to 599).

        `body` is JSON by convention: Supabase sends `{"error": "..."}`. A `count` of 0 turns the fault off.
        """
        if not _is_count(count):
            raise LocalProtocolError(f"count must be a whole number of at least 0, not {count!r}")
        if not _is_count(status) or not 300 <= status <= 599:
            raise LocalProtocolError(f"status must be a whole number from 300 to 599, not {status!r}")
        if not is_unicode(body):
            raise LocalProtocolError("body must be a string of valid Unicode")
        refusal = Refusal(status, "refused for a test", body.encode())
        self._switch(now, handshakes_to_refuse=count, refusal=refusal)

    def mute_heartbeats(self, on: bool = True, *, now: float) -> None:
        """Read heartbeats (Jarvis: pings) without replying."""
        self._switch(now, heartbeats_muted=on)

    def ignore_joins(self, on: bool = True, *, now: float) -> None:
        """Read joins (Jarvis: `connect`) and ignore them. Members that have joined stay in their topics."""
        self._switch(now, joins_ignored=on)

    def slow_joins(self, join_delay: float = 0.0, refusal_delay: float = 5.0, *, now: float) -> None:
        """Delay each join by `join_delay` seconds, and each refusal by another `refusal_delay` seconds.

        The defaults are Supabase's; 0 means no delay. As on Phoenix, the joins of a connection run one at a
        time, and its other messages wait. A join that has begun keeps its delay. Jarvis is not affected.
        """
        for name, seconds in (("join_delay", join_delay), ("refusal_delay", refusal_delay)):
            if not is_number(seconds) or (seconds != 0 and seconds < MIN_SECONDS):
                raise LocalProtocolError(
                    f"{name} must be 0 or at least {MIN_SECONDS} seconds, not {seconds!r}"
                )
        self._switch(now, join_delay=join_delay, refusal_delay=refusal_delay)

    def withhold_states(self, on: bool = True, *, now: float) -> None:
        """Send no `presence_state`, like a server with presence disabled. Diffs are still sent.

        Jarvis is not affected: its roster is the reply to `connect`. Use `ignore_joins` there.
        """
        self._switch(now, states_withheld=on)

    def drop_broadcasts(self, on: bool = True, *, now: float) -> None:
        """Drop broadcasts between members (Jarvis: invites and pokes), but acknowledge them as usual."""
        self._switch(now, broadcasts_dropped=on)

    def duplicate_diffs(self, on: bool = True, *, now: float) -> None:
        """Send each `presence_diff` twice (Jarvis: joins, leaves and activity changes)."""
        self._switch(now, diffs_duplicated=on)

    def limit_rate(self, presence_calls: int | None = 5, broadcasts: int | None = 100, *, now: float) -> None:
        """Limit the rate of a Supabase channel. A channel above a limit gets a `system` error and is closed.

        `presence_calls` limits track and untrack calls in 30 seconds, `broadcasts` limits broadcasts in one
        second. The defaults are Supabase's. 0 allows no calls; `None` means no limit. Calls made without a
        limit, or in an earlier join of the channel, do not count.
        """
        for name, limit in (("presence_calls", presence_calls), ("broadcasts", broadcasts)):
            if limit is not None and not _is_count(limit):
                raise LocalProtocolError(
                    f"{name} must be a whole number of at least 0, or None, not {limit!r}"
                )
        self._switch(now, presence_limit=presence_calls, broadcast_limit=broadcasts)

    def delay(self, seconds: float, *, now: float) -> None:
        """Delay all sent bytes by `seconds`, in order. 0 turns the delay off and sends the delayed bytes.

        Orderly closes of transports are delayed, too. Aborts happen at once.
        """
        if not is_number(seconds) or (seconds != 0 and seconds < MIN_SECONDS):
            raise LocalProtocolError(f"seconds must be 0 or at least {MIN_SECONDS}, not {seconds!r}")
        self._switch(now, delay=seconds)
        self._line.delay(seconds)

    def freeze(self, *, now: float) -> None:
        """Stop reading, writing and timers, like a suspended process.

        Incoming data is kept, without a limit. Switches, `heal` and `shutdown` still work. Other commands
        raise `LocalProtocolError` until `thaw`.
        """
        self._switch(now, frozen=True)

    def thaw(self, *, now: float) -> None:
        """Resume: handle the data that arrived while frozen, then run the timers that are due."""
        self._clock.advance(now)  # first, because it may raise
        self._faults = evolve(self._faults, frozen=False)
        kept, self._kept = self._kept, []
        for fact, args, kwargs in kept:
            fact(*args, now=now, **kwargs)
        self._advance(now)

    def cut_all(self, *, now: float) -> None:
        """Abort every transport, like a failing network. Delayed bytes are lost."""
        self._advance(now)
        self._line.cut()
        for peer in tuple(self._peers.values()):
            code = None if peer.phase is Phase.HANDSHAKE else ABNORMAL
            self._forget(peer, self._disconnected(peer, "cut for a test", code), abort=True)
        self._topics.settle()

    def heal(self, *, now: float) -> None:
        """Turn all switches off. Earlier effects on clients and channels stay."""
        self.delay(0, now=now)
        self._faults = Faults(frozen=self._faults.frozen)
        self.thaw(now=now)

    def _switch(self, now: float, **changes: Any) -> None:
        if self._faults.frozen:
            self._clock.advance(now)
        else:
            self._advance(now)
        self._faults = evolve(self._faults, **changes)

    # ---------------------------------------------------------------- freezing

    def transport_opened(self, conn: ConnId, *, now: float, address: str | None = None) -> None:
        """See `Endpoint`. While the hub is frozen, the call is postponed until `thaw`."""
        if not self._keeps(self.transport_opened, conn, now=now, address=address):
            super().transport_opened(conn, now=now, address=address)

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """See `Endpoint`. While the hub is frozen, the call is postponed until `thaw`."""
        if not self._keeps(self.receive_data, conn, bytes(data), now=now):
            super().receive_data(conn, data, now=now)

    def transport_closed(self, conn: ConnId, *, now: float, reason: str = "eof") -> None:
        """See `Endpoint`. While the hub is frozen, the call is postponed until `thaw`."""
        if not self._keeps(self.transport_closed, conn, now=now, reason=reason):
            super().transport_closed(conn, now=now, reason=reason)
            self._line.forget(conn)

    def tick(self, *, now: float) -> None:
        """See `Endpoint`. Timers do not run while frozen."""
        if self._faults.frozen:
            self._clock.advance(now)
        else:
            super().tick(now=now)

    def shutdown(self, *, now: float) -> None:
        """Heal, then close every connection with close code 1012."""
        self.heal(now=now)
        super().shutdown(now=now)

    def _keeps(self, fact: Callable[..., None], *args: Any, now: float, **kwargs: Any) -> bool:
        """Return whether the hub is frozen. If it is, keep the call for `thaw`."""
        if self._faults.frozen:
            self._clock.advance(now)
            self._kept.append((fact, args, kwargs))
        return self._faults.frozen

    def _advance(self, now: float, *, ticks: bool = False) -> None:
        if self._faults.frozen:
            raise LocalProtocolError("the hub is frozen: thaw it first")
        super()._advance(now, ticks=ticks)
        self._line.release()

    # ---------------------------------------------------------------- outputs

    def drain(self) -> Sequence[OpenTransport | SendData | CloseTransport | HubEvent]:
        """Return all outputs since the last drain, oldest first; none while frozen."""
        return () if self._faults.frozen else super().drain()

    def next_deadline(self) -> float | None:
        """Return when to call `tick`, in seconds, or `None`; always `None` while frozen."""
        if self._faults.frozen:
            return None
        deadlines = (super().next_deadline(), self._line.deadline)
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    # ---------------------------------------------------------------- overridden hooks of `Hub`

    def _make_outbox(self) -> Outbox[HubEvent]:
        self._line: DelayLine[HubEvent] = DelayLine(self._clock)
        return self._line

    def _judge(self, request: HandshakeRequest, peer: Peer) -> Admission | Refusal:
        left = self._faults.handshakes_to_refuse
        if not left:
            return super()._judge(request, peer)
        self._faults = evolve(self._faults, handshakes_to_refuse=left - 1)
        return self._faults.refusal

    def _session(self, peer: Peer, admission: Admission) -> Session:
        if admission.serializer is None:
            return FaultyJarvisSession(self._look, peer, self._topics, self._jarvis, admission.token)
        return FaultyPhoenixSession(self._look, peer, self._topics, admission, admission.serializer)

    def _look(self) -> Faults:
        return self._faults


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
