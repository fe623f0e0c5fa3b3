"""A hub that misbehaves when it is told to, for tests of how others take it."""

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
# An outbox whose bytes take their time.


class DelayLine(Outbox[Event]):
    """An `Outbox` that can hold back bytes, and the orderly closes after them. Nothing else waits.

    What comes out keeps the order in which it came in. `release` lets go what is due.
    """

    __slots__ = ("_clock", "_line", "_seconds")

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._seconds = 0.0
        self._line: deque[tuple[float, SendData | CloseTransport]] = deque()  # each with its time

    @property
    def deadline(self) -> float | None:
        """When something is due, or `None`."""
        return self._line[0][0] if self._line else None

    def delay(self, seconds: float) -> None:
        """Hold back what comes from now on for so long. 0: nothing, and let go what is held."""
        self._seconds = seconds
        while not seconds and self._line:
            self._let_go()

    def release(self) -> None:
        """Let go what is due."""
        while self._line and self._line[0][0] <= self._clock.now:
            self._let_go()

    def send(self, conn: ConnId, data: bytes) -> None:
        """Queue `data` for `conn`; nothing is queued for empty data."""
        if not self._seconds:
            super().send(conn, data)
        elif data:
            self._line.append((self._clock.now + self._seconds, SendData(conn, data)))

    def put(self, output: Event | OpenTransport | CloseTransport) -> None:
        """Queue an event or a transport command. An abort drops what is held for its connection."""
        if isinstance(output, CloseTransport) and self._seconds:
            if not output.abort:
                self._line.append((self._clock.now + self._seconds, output))
                return
            self.forget(output.conn)
        super().put(output)

    def forget(self, conn: ConnId) -> None:
        """A transport is gone, and with it what was to be done with it."""
        self._line = deque(held for held in self._line if held[1].conn != conn)
        self._open.pop(conn, None)
        about = (_Chunks, CloseTransport)
        self._queue[:] = [one for one in self._queue if not (isinstance(one, about) and one.conn == conn)]

    def cut(self) -> None:
        """All transports break: nothing more is sent, and the closes that wait are aborts now."""
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
# What can be wrong with a hub, and the sessions of one with which it is.


_UNAVAILABLE = Refusal(503, "refused for a test")


@frozen(kw_only=True)
class Faults:
    """What is wrong with a hub now: nothing by default. The methods of `FaultyHub` say what each means."""

    handshakes_to_refuse: int = 0
    refusal: Refusal = _UNAVAILABLE  # how
    heartbeats_muted: bool = False
    joins_ignored: bool = False
    states_withheld: bool = False
    broadcasts_dropped: bool = False
    diffs_duplicated: bool = False
    join_delay: float = 0.0  # seconds; more than those of the config
    refusal_delay: float = 0.0  # seconds
    presence_limit: int | None = None  # calls of track and untrack in 30 seconds
    broadcast_limit: int | None = None  # in one second
    delay: float = 0.0  # seconds
    frozen: bool = False


class FaultyPhoenixSession(PhoenixSession):
    """A Phoenix socket with the `faults` of its hub."""

    __slots__ = ("_broadcasts", "_faults")

    def __init__(self, faults: Callable[[], Faults], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._faults = faults
        self._broadcasts: dict[str, Bucket] = {}  # by topic

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
        """Whether the message is of the channel as it is now. Only Supabase has limits."""
        channel = self._channels.get(message.topic)
        return isinstance(channel, SupabaseMember) and message.join_ref in (None, channel.ref)

    @property
    def presence_limit(self) -> int | None:
        """Presence calls of one channel in 30 s: the lower limit of the config's and the fault's."""
        limits = super().presence_limit, self._faults().presence_limit
        return min((limit for limit in limits if limit is not None), default=None)

    def send(self, message: Message) -> None:
        """Send a message, unless it is to be withheld."""
        if message.event != "presence_state" or not self._faults().states_withheld:
            super().send(message)

    def send_shared(self, shared: SharedMessage) -> None:
        """Send a message that others get, too: not at all, once or twice."""
        faults = self._faults()
        if shared.message.event == "presence_diff":
            if faults.diffs_duplicated:
                super().send_shared(shared)
        elif faults.broadcasts_dropped:
            return
        super().send_shared(shared)


class FaultyJarvisSession(JarvisSession):
    """A connection of the Jarvis JSON protocol with the `faults` of its hub."""

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
        """Send a message that others get, too: not at all, once or twice."""
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
    """A `Hub` with switches for faults. With none of them on it is the same as a `Hub`.

    Each switch works at once, and stays on until it is turned off or `heal` turns off all; what has happened
    until then is not made undone. `crash_channel`, `close_channel` and `disconnect`, which every hub has, are
    faults, too. All switches are commands: they take `now`, and raise `LocalProtocolError` for values that
    make no sense. `shutdown` heals first.
    """

    def __init__(self, config: HubConfig | None = None, *, rng: Random | None = None) -> None:
        super().__init__(config, rng=rng)
        self._faults = Faults()
        self._kept: list[tuple[Callable[..., None], tuple[Any, ...], dict[str, Any]]] = []  # while frozen

    # ---------------------------------------------------------------- getters

    @property
    def faults(self) -> Faults:
        """What is wrong now."""
        return self._faults

    @property
    def is_closed(self) -> bool:
        """Whether the hub was shut down, the last transport is gone, and so is all that was held back."""
        return super().is_closed and self._line.deadline is None

    # ---------------------------------------------------------------- switches

    def refuse_handshakes(self, count: int = 1, status: int = 503, body: str = "", *, now: float) -> None:
        """Refuse the next `count` handshakes with an HTTP status (300 to 599), whatever they ask for.

        `body` is JSON by convention: Supabase's is `{"error": "..."}`. A count of 0 turns it off.
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
        """Read heartbeats (of Jarvis: pings), and do not answer them."""
        self._switch(now, heartbeats_muted=on)

    def ignore_joins(self, on: bool = True, *, now: float) -> None:
        """Read joins (of Jarvis: `connect`), and do nothing about them. Who is in a topic stays in it."""
        self._switch(now, joins_ignored=on)

    def slow_joins(self, join_delay: float = 0.0, refusal_delay: float = 5.0, *, now: float) -> None:
        """Take so long for a join, and longer for a refused one. The defaults are Supabase's; 0 is no delay.

        Joins of one connection run one after the other, and nothing else of it is handled meanwhile, as on
        Phoenix. Not for Jarvis. A join that has begun keeps its time.
        """
        for name, seconds in (("join_delay", join_delay), ("refusal_delay", refusal_delay)):
            if not is_number(seconds) or (seconds != 0 and seconds < MIN_SECONDS):
                raise LocalProtocolError(
                    f"{name} must be 0 or at least {MIN_SECONDS} seconds, not {seconds!r}"
                )
        self._switch(now, join_delay=join_delay, refusal_delay=refusal_delay)

    def withhold_states(self, on: bool = True, *, now: float) -> None:
        """Send no `presence_state`, as a server does that has presence disabled. Diffs still go out.

        Not for Jarvis, where the roster is the answer to `connect`: see `ignore_joins`.
        """
        self._switch(now, states_withheld=on)

    def drop_broadcasts(self, on: bool = True, *, now: float) -> None:
        """Lose what members say to each other (of Jarvis: invites and pokes), and acknowledge it as ever."""
        self._switch(now, broadcasts_dropped=on)

    def duplicate_diffs(self, on: bool = True, *, now: float) -> None:
        """Send each `presence_diff` twice (of Jarvis: comings, goings and changes of activity)."""
        self._switch(now, diffs_duplicated=on)

    def limit_rate(self, presence_calls: int | None = 5, broadcasts: int | None = 100, *, now: float) -> None:
        """Close a Supabase channel after more than so many calls of track and untrack in 30 seconds, or more
        than so many broadcasts in one second. It is told so with a `system` error first.

        The defaults are Supabase's. With 0 the first one is too many; `None` is no limit. What went on while
        there was no limit does not count, nor what an earlier life of the channel did.
        """
        for name, limit in (("presence_calls", presence_calls), ("broadcasts", broadcasts)):
            if limit is not None and not _is_count(limit):
                raise LocalProtocolError(
                    f"{name} must be a whole number of at least 0, or None, not {limit!r}"
                )
        self._switch(now, presence_limit=presence_calls, broadcast_limit=broadcasts)

    def delay(self, seconds: float, *, now: float) -> None:
        """Hold back all that is sent for so long; the order stays. 0 turns it off, and lets go what is held.

        Orderly closes of transports wait, too; what is aborted is aborted at once.
        """
        if not is_number(seconds) or (seconds != 0 and seconds < MIN_SECONDS):
            raise LocalProtocolError(f"seconds must be 0 or at least {MIN_SECONDS}, not {seconds!r}")
        self._switch(now, delay=seconds)
        self._line.delay(seconds)

    def freeze(self, *, now: float) -> None:
        """Stop as a stopped process does: nothing is read or written, and no timer fires.

        What comes in is kept, without a limit. Switches may be set, other commands are illegal until `thaw`.
        """
        self._switch(now, frozen=True)

    def thaw(self, *, now: float) -> None:
        """Go on: what came in is handled now, late, and what was due is done."""
        self._clock.advance(now)  # raises before anything changes
        self._faults = evolve(self._faults, frozen=False)
        kept, self._kept = self._kept, []
        for fact, args, kwargs in kept:
            fact(*args, now=now, **kwargs)
        self._advance(now)

    def cut_all(self, *, now: float) -> None:
        """Abort every transport, as a failing network does. What was held back is lost."""
        self._advance(now)
        self._line.cut()
        for peer in tuple(self._peers.values()):
            code = None if peer.phase is Phase.HANDSHAKE else ABNORMAL
            self._forget(peer, self._disconnected(peer, "cut for a test", code), abort=True)
        self._topics.settle()

    def heal(self, *, now: float) -> None:
        """Turn all switches off. What a fault has made of clients and channels until now stays."""
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
        """A transport was accepted."""
        if not self._keeps(self.transport_opened, conn, now=now, address=address):
            super().transport_opened(conn, now=now, address=address)

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """Bytes came."""
        if not self._keeps(self.receive_data, conn, bytes(data), now=now):
            super().receive_data(conn, data, now=now)

    def transport_closed(self, conn: ConnId, *, now: float, reason: str = "eof") -> None:
        """The transport is gone."""
        if not self._keeps(self.transport_closed, conn, now=now, reason=reason):
            super().transport_closed(conn, now=now, reason=reason)
            self._line.forget(conn)

    def tick(self, *, now: float) -> None:
        """Time has passed."""
        if self._faults.frozen:
            self._clock.advance(now)
        else:
            super().tick(now=now)

    def shutdown(self, *, now: float) -> None:
        """Heal, and close every connection with code 1012."""
        self.heal(now=now)
        super().shutdown(now=now)

    def _keeps(self, fact: Callable[..., None], *args: Any, now: float, **kwargs: Any) -> bool:
        """Whether the hub is frozen: then a fact is for later."""
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
        """All outputs since the last drain, oldest first; none while the hub is frozen."""
        return () if self._faults.frozen else super().drain()

    def next_deadline(self) -> float | None:
        """When to call `tick`, or `None`, as while it is frozen."""
        if self._faults.frozen:
            return None
        deadlines = (super().next_deadline(), self._line.deadline)
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    # ---------------------------------------------------------------- the seams of the hub

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
