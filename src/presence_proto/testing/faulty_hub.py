"""`FaultyHub`: a hub whose faults can be switched on, to test how clients handle faults."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

from presence_proto.endpoint import CloseTransport, ConnId, OpenTransport, Outbox, SendData
from presence_proto.errors import LocalProtocolError
from presence_proto.hub import Hub
from presence_proto.hub.admission import Refusal
from presence_proto.hub.channels import SupabaseMember
from presence_proto.hub.jarvis import JarvisSession
from presence_proto.hub.limits import TOO_MANY_MESSAGES, Bucket
from presence_proto.hub.phoenix import PhoenixSession
from presence_proto.json_text import decode_object
from presence_proto.validators import MIN_SECONDS, is_number, is_unicode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from random import Random

    from attrs import Attribute

    from presence_proto.events import HubEvent
    from presence_proto.hub.admission import Admission
    from presence_proto.hub.channels import PhoenixMember
    from presence_proto.hub.config import HubConfig
    from presence_proto.hub.peer import Peer, Session
    from presence_proto.hub.topic import EncodedMessage, SharedMessage
    from presence_proto.serializer import Message
    from presence_proto.websocket import HandshakeRequest


# ----------------------------------------------------------------------------------------------------- faults


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _count(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if not _is_whole(value) or value < 0:
        raise LocalProtocolError(f"{attribute.name} must be a whole number of at least 0, not {value!r}")


def _count_or_none(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if value is not None:
        _count(instance, attribute, value)


def _status(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if not _is_whole(value) or not 300 <= value <= 599:
        raise LocalProtocolError(f"{attribute.name} must be a whole number from 300 to 599, not {value!r}")


def _text(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if not is_unicode(value):
        raise LocalProtocolError(f"{attribute.name} must be a string of valid Unicode")


def _seconds(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if not is_number(value) or (value != 0 and value < MIN_SECONDS):
        raise LocalProtocolError(
            f"{attribute.name} must be 0 or at least {MIN_SECONDS} seconds, not {value!r}"
        )


@frozen(kw_only=True)
class Faults:
    """The current faults of a hub. By default, all faults are off.

    A fault takes effect at once, and lasts until its field is changed. Turning a fault off does not undo its
    earlier effects. Invalid values raise `LocalProtocolError`.
    """

    handshakes_to_refuse: int = field(default=0, validator=_count)
    """Number of handshakes that the hub refuses next, with `refusal_status` and `refusal_body`."""
    refusal_status: int = field(default=503, validator=_status)
    """HTTP status of a refused handshake, from 300 to 599."""
    refusal_body: str = field(default="", validator=_text)
    """Body of a refused handshake, by convention JSON: Supabase sends `{"error": "..."}`."""
    heartbeats_muted: bool = False
    """The hub does not reply to heartbeats (Jarvis: pings)."""
    joins_ignored: bool = False
    """The hub ignores joins (Jarvis: `connect`). Members that have joined stay in their topics."""
    states_withheld: bool = False
    """The hub sends no `presence_state`, like a server with presence disabled. Diffs are still sent.

    Jarvis connections are not affected: their roster is the reply to `connect`. Use `joins_ignored` for
    Jarvis.
    """
    states_late: bool = False
    """Each `presence_state` on a connection with an even `ConnId` is delayed until the next message of its
    topic or from its client. Diffs then precede the state, as on a busy server. Jarvis is not affected.
    """
    broadcasts_dropped: bool = False
    """The hub acknowledges broadcasts (Jarvis: invites and pokes), but does not deliver the broadcasts."""
    diffs_duplicated: bool = False
    """The hub sends each `presence_diff` twice (Jarvis: each join, leave and activity change)."""
    join_delay: float = field(default=0.0, validator=_seconds)
    """Additional delay of each join in seconds, added to `HubConfig.join_delay`. Jarvis is not affected.

    As on Phoenix, a connection processes one join at a time, and its other messages wait. A join that has
    begun keeps its delay.
    """
    refusal_delay: float = field(default=0.0, validator=_seconds)
    """Delay of a refused join in seconds, in addition to `HubConfig.refusal_delay`. Supabase uses 5."""
    presence_limit: int | None = field(default=None, validator=_count_or_none)
    """Maximum presence calls per Supabase channel in 30 seconds, `None` for no limit. Supabase's limit is 5.

    A channel that exceeds a limit gets a `system` error and is closed. Calls made while no limit was set, or
    in an earlier join of the channel, do not count towards the limit.
    """
    broadcast_limit: int | None = field(default=None, validator=_count_or_none)
    """Maximum broadcasts per Supabase channel in one second, `None` for no limit. Supabase's limit is 100."""
    delay: float = field(default=0.0, validator=_seconds)
    """Delay of all sent bytes, in seconds. Bytes keep their order. The value 0 sends delayed bytes at once.

    Orderly closes of transports are also delayed. Aborts happen at once.
    """
    frozen: bool = False
    """The hub reads nothing, writes nothing and runs no timers, like a suspended process.

    The hub keeps incoming data without a limit. `set_faults`, `heal` and `shutdown` still work; other
    commands raise `LocalProtocolError`. When `frozen` is turned off, the hub first handles the kept data,
    then due timers.
    """


# --------------------------------------------------------------------------------------------------- sessions


_LIMITED = {
    "presence": ("presence_limit", 30.0, "Client presence rate limit exceeded"),
    "broadcast": ("broadcast_limit", 1.0, TOO_MANY_MESSAGES),
}
"""For each event with a limit: the field of `Faults`, the period in seconds, and Supabase's error text."""


class FaultyPhoenixSession(PhoenixSession):
    """Phoenix session that applies the `faults` of its hub."""

    __slots__ = ("_buckets", "_hub", "_late")

    def __init__(self, hub: FaultyHub, *args: Any) -> None:
        super().__init__(*args)
        self._hub = hub
        self._late: dict[str, Message] = {}  # by topic: a presence state
        self._buckets: dict[tuple[str, str], Bucket] = {}  # by topic and event

    def _on_message(self, message: Message) -> None:
        for late in tuple(self._late):
            self._catch_up(late)
        faults, topic, event = self._hub.faults, message.topic, message.event
        if event == "phx_join":
            if faults.joins_ignored:
                return
            for limited in _LIMITED:
                self._buckets.pop((topic, limited), None)
        elif topic == "phoenix" and event == "heartbeat":
            if faults.heartbeats_muted:
                return
        elif event in _LIMITED and self._is_member(message):
            name, seconds, text = _LIMITED[event]
            limit: int | None = getattr(faults, name)
            bucket = self._buckets.setdefault((topic, event), Bucket(seconds))
            if limit is not None and not bucket.take(limit, self.topics.clock.now):
                self.stop(topic, text, crashed=False)
                return
        super()._on_message(message)

    def _is_member(self, message: Message) -> bool:
        """Whether the message is for the current join of a Supabase channel. Plain channels have no limit."""
        channel = self._channels.get(message.topic)
        return isinstance(channel, SupabaseMember) and message.join_ref in (None, channel.ref)

    def send(self, message: Message) -> None:
        """Send a message. Depending on the faults, a `presence_state` is sent late or never."""
        if message.event != "presence_state":
            super().send(message)
            self._catch_up(message.topic)
        elif self._hub.faults.states_late and not self.conn % 2:
            self._late[message.topic] = message
        elif not self._hub.faults.states_withheld:
            super().send(message)

    def send_shared(self, shared: SharedMessage) -> None:
        """Drop a shared message, or send the message once or twice, depending on the faults."""
        faults = self._hub.faults
        if shared.message.event == "presence_diff":
            if faults.diffs_duplicated:
                super().send_shared(shared)
        elif faults.broadcasts_dropped:
            return
        super().send_shared(shared)
        self._catch_up(shared.message.topic)

    def forget(self, channel: PhoenixMember) -> None:
        """Remove a channel that has ended, and discard its delayed presence state."""
        super().forget(channel)
        self._late.pop(channel.name, None)

    def _catch_up(self, topic: str) -> None:
        state = self._late.pop(topic, None)
        if state is not None:
            super().send(state)


class FaultyJarvisSession(JarvisSession):
    """Jarvis JSON session that applies the `faults` of its hub."""

    __slots__ = ("_hub",)

    def __init__(self, hub: FaultyHub, *args: Any) -> None:
        super().__init__(*args)
        self._hub = hub

    def _on_message(self, message: Mapping[str, Any]) -> None:
        faults, kind = self._hub.faults, message.get("type")
        if (kind == "ping" and faults.heartbeats_muted) or (kind == "connect" and faults.joins_ignored):
            return
        super()._on_message(message)

    def send_shared(self, form: EncodedMessage) -> None:
        """Drop a shared message, or send the message once or twice, depending on the faults."""
        faults = self._hub.faults
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
    """`Hub` with `Faults`, which `set_faults` changes. Without faults, a `FaultyHub` behaves like a `Hub`.

    Each call of `crash_channel`, `close_channel` or `disconnect` also causes one fault. `shutdown` calls
    `heal` first.
    """

    def __init__(
        self, config: HubConfig | None = None, *, rng: Random | None = None, faults: Faults | None = None
    ) -> None:
        super().__init__(config, rng=rng)
        self._kept: list[Callable[..., None]] = []  # facts, while frozen
        self._ready: Outbox[HubEvent] = Outbox()  # outputs that are not delayed
        self._late: deque[tuple[float, SendData | CloseTransport]] = deque()  # (due time in seconds, output)
        self._lost: set[ConnId] = set()  # transports that ended since the last drain
        self._set(faults or Faults())

    @property
    def faults(self) -> Faults:
        """The current fault settings of the hub."""
        return self._faults

    @property
    def is_closed(self) -> bool:
        """Whether the hub was shut down, the last transport has ended, and no delayed output is left."""
        self._collect()
        return super().is_closed and not self._late

    # ---------------------------------------------------------------- commands

    def set_faults(self, *, now: float, **changes: Any) -> None:
        """Change some fields of `faults`. The other fields keep their values.

        Raises `LocalProtocolError` for an invalid value, and `TypeError` for an unknown fault.
        """
        self._change(evolve(self._faults, **changes), now)

    def heal(self, *, now: float) -> None:
        """Turn all faults off. Earlier effects on clients and channels are not undone."""
        self._change(Faults(), now)

    def _change(self, faults: Faults, now: float) -> None:
        if self._faults.frozen:
            self._clock.advance(now)
        else:
            self._advance(now)
        self._collect()
        self._set(faults)
        if not faults.frozen:
            kept, self._kept = self._kept, []
            for fact in kept:
                fact(now=now)
            self._advance(now)

    def _set(self, faults: Faults) -> None:
        self._faults = faults
        self._topics.config = evolve(
            self._config,
            join_delay=self._config.join_delay + faults.join_delay,
            refusal_delay=self._config.refusal_delay + faults.refusal_delay,
        )

    def cut_all(self, *, now: float) -> None:
        """Abort every transport, like a failing network. Delayed bytes are lost."""
        self._advance(now)
        self._collect()
        cut = [output.conn for _, output in self._late if isinstance(output, CloseTransport)]
        cut += [conn for conn, peer in self._peers.items() if peer.lost is None]
        for conn in cut:
            super().transport_closed(conn, now=now, reason="cut for a test")
        self._collect()
        self._late.clear()
        for conn in cut:  # last: an abort also removes the diffs that the ends of other transports caused
            self._ready.put(CloseTransport(conn, abort=True))

    def shutdown(self, *, now: float) -> None:
        """Turn all faults off, then close every connection with close code 1012."""
        self.heal(now=now)
        super().shutdown(now=now)

    # ---------------------------------------------------------------- facts

    def transport_opened(self, conn: ConnId, *, now: float, address: str | None = None) -> None:
        """Handle a new transport (see `Endpoint`). A frozen hub handles the transport after the freeze."""
        self._handle(partial(super().transport_opened, conn, address=address), now)

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """Handle received bytes (see `Endpoint`). A frozen hub handles the bytes after the freeze."""
        self._handle(partial(super().receive_data, conn, bytes(data)), now)

    def transport_closed(self, conn: ConnId, *, now: float, reason: str = "eof") -> None:
        """Handle the end of a transport (see `Endpoint`). A frozen hub handles the end after the freeze."""
        self._handle(partial(self._lose, conn, reason=reason), now)

    def tick(self, *, now: float) -> None:
        """Run the due timers (see `Endpoint`). A frozen hub runs no timers."""
        if self._faults.frozen:
            self._clock.advance(now)
        else:
            super().tick(now=now)

    def _handle(self, fact: Callable[..., None], now: float) -> None:
        if self._faults.frozen:
            self._clock.advance(now)
            self._kept.append(fact)
        else:
            fact(now=now)

    def _lose(self, conn: ConnId, *, now: float, reason: str) -> None:
        super().transport_closed(conn, now=now, reason=reason)
        self._collect()
        self._drop(conn)
        self._lost.add(conn)

    def _advance(self, now: float, *, ticks: bool = False) -> None:
        if self._faults.frozen:
            raise LocalProtocolError("the hub is frozen: thaw it first")
        super()._advance(now, ticks=ticks)

    # ---------------------------------------------------------------- outputs

    def drain(self) -> Sequence[OpenTransport | SendData | CloseTransport | HubEvent]:
        """Return the due outputs since the last drain, oldest first. A frozen hub returns no outputs."""
        if self._faults.frozen:
            return ()
        self._collect()
        lost, self._lost = self._lost, set()
        about = SendData, CloseTransport
        return [one for one in self._ready.drain() if not (isinstance(one, about) and one.conn in lost)]

    def next_deadline(self) -> float | None:
        """Return the time of the next `tick` in seconds, or `None`. A frozen hub returns `None`."""
        if self._faults.frozen:
            return None
        self._collect()
        deadline = super().next_deadline()
        if not self._late:
            return deadline
        due = self._late[0][0]
        return due if deadline is None else min(due, deadline)

    def _collect(self) -> None:
        """Take the outputs of the hub, and delay their bytes and orderly closes."""
        now, delay = self._clock.now, self._faults.delay
        while self._late and (not delay or self._late[0][0] <= now):
            self._put(self._late.popleft()[1])
        for output in super().drain():
            if isinstance(output, CloseTransport) and output.abort:
                self._drop(output.conn)
                self._put(output)
            elif delay and isinstance(output, (SendData, CloseTransport)):
                self._late.append((now + delay, output))
            else:
                self._put(output)

    def _put(self, output: OpenTransport | SendData | CloseTransport | HubEvent) -> None:
        if isinstance(output, SendData):
            self._ready.send(output.conn, output.data)  # merged with other data that is ready
        else:
            self._ready.put(output)

    def _drop(self, conn: ConnId) -> None:
        """Drop the delayed outputs of a transport that ends."""
        self._late = deque(held for held in self._late if held[1].conn != conn)

    # ---------------------------------------------------------------- connections

    def _judge(self, request: HandshakeRequest, peer: Peer) -> Admission | Refusal:
        faults = self._faults
        if not faults.handshakes_to_refuse:
            return super()._judge(request, peer)
        self._faults = evolve(faults, handshakes_to_refuse=faults.handshakes_to_refuse - 1)
        return Refusal(faults.refusal_status, "refused for a test", faults.refusal_body.encode())

    def _session(self, peer: Peer, admission: Admission) -> Session:
        if admission.serializer is None:
            return FaultyJarvisSession(self, peer, self._topics, self._jarvis, admission.token)
        return FaultyPhoenixSession(self, peer, self._topics, admission, admission.serializer)
