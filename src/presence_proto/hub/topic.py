"""One topic: its members, their presence, and the messages that its listeners receive.

The hub sends presence in two ways. A new member receives the complete current state (`Topic.state`). All
listeners receive later changes as diffs. The topic collects changes in a diff until `flush` sends the diff:
at once, or at the end of the hub's presence window. A meta that is tracked and removed before the flush is
not in the diff, with one exception. If a member joined in between, that member's state contained the meta, so
the diff reports the leave of the meta.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from attrs import frozen
from msgspec import Raw

from presence_proto.endpoint import ConnId
from presence_proto.errors import LocalProtocolError
from presence_proto.hub.limits import Allowance, MetaTooLargeError, Rates, is_limited
from presence_proto.json_text import decode_object, encode_payload, plain
from presence_proto.serializer import EncodedFrame, Message, Serializer, UserBroadcast, V2Serializer
from presence_proto.validators import MOST_NESTING
from presence_proto.websocket.frames import server_frame

if TYPE_CHECKING:
    from random import Random

    from presence_proto.endpoint import Outbox
    from presence_proto.events import HubEvent
    from presence_proto.hub.config import HubConfig
    from presence_proto.timers import Clock, Timers


# -------------------------------------------------------------------------------------------------------- ids
# Names that a hub uses: the names of its timers, and the refs and presence keys that the hub generates.


@frozen
class Grace:
    """Timer name: the offline grace of a Jarvis user. Until this timer fires, the user stays online."""

    user_id: str


@frozen
class SlowJoin:
    """Timer name: the join delay of a Phoenix connection."""

    conn: ConnId


@frozen
class Leave:
    """Timer name: the delayed leave of a channel of a Phoenix connection."""

    conn: ConnId


TimerName: TypeAlias = ConnId | str | Grace | SlowJoin | Leave
"""The name of a timer of the hub.

A `ConnId` names the timer of a transport, whose meaning depends on the transport's phase. A `str` is the name
of a topic; its timer fires at the end of the topic's presence window.
"""


class Ids:
    """Generator of names that are unique during the lifetime of one hub.

    With an `rng`, the names also differ from the names of a previous hub, which clients may still remember.
    Without an `rng`, the names come from counters only and are the same in every run.
    """

    __slots__ = ("_keys", "_prefix", "_rng", "refs")

    def __init__(self, rng: Random | None = None) -> None:
        self._rng = rng
        self._prefix = (0 if rng is None else rng.getrandbits(48)).to_bytes(6, "big")
        self._keys = 0
        self.refs = 0
        """Number of refs generated so far, which is also the serial number of the newest ref."""

    def ref(self) -> str:
        """Return a new `phx_ref`: 16 characters of url-safe base64, like Phoenix's refs."""
        self.refs += 1
        return urlsafe_b64encode(self._prefix + self.refs.to_bytes(6, "big")).decode("ascii")

    def key(self) -> str:
        """Return a new presence key, a UUID version 4, for a client whose join names no key."""
        self._keys += 1
        number = self._keys if self._rng is None else self._rng.getrandbits(128)
        digits = f"{number:032x}"
        variant = "89ab"[int(digits[16], 16) % 4]
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


# ------------------------------------------------------------------------------------------------------ topic


Meta: TypeAlias = Mapping[str, Any]

_V2 = V2Serializer(server=True)

META_COST = 256  # bytes counted per meta besides its JSON, for its refs and its entries in states and diffs

LARGE_DIFF = 256 * 1024  # bytes; a larger diff is sent in parts, one part per presence window

RESERVED_EVENTS = frozenset({"presence_state", "presence_diff"})


def is_reserved(event: str) -> bool:
    """Whether only the hub may send `event`. A client's `presence_diff` could make members disappear."""
    return event.startswith("phx_") or event in RESERVED_EVENTS


class EncodedMessage:
    """A message for many receivers, as encoded by one serializer.

    The WebSocket frame of the message is built only once for each window size of permessage-deflate.
    """

    __slots__ = ("_frames", "encoded")

    def __init__(self, encoded: EncodedFrame) -> None:
        self.encoded = encoded
        self._frames: dict[int | None, bytes] = {}

    def frame(self, deflate_bits: int | None) -> bytes:
        """Return the WebSocket frame for a connection with these `deflate_bits`."""
        frame = self._frames.get(deflate_bits)
        if frame is None:
            data, text = self.encoded.data, self.encoded.text
            frame = self._frames[deflate_bits] = server_frame(data, text=text, deflate_bits=deflate_bits)
        return frame


Encoding: TypeAlias = tuple[Serializer, int | None]
"""The serializer of a connection, and the window bits of its permessage-deflate (`None` if not in use).
"""


class SharedMessage:
    """One message for many receivers, encoded once per serializer, and framed once per `Encoding`.

    `content` is the payload before the encoding, for listeners that read the payload. The constructor raises
    `LocalProtocolError` when V2 cannot encode the message. If V2 cannot encode a message, no other serializer
    can encode it.
    """

    __slots__ = ("_forms", "content", "frames", "message")

    def __init__(self, message: Message, content: Any = None) -> None:
        self.message = message
        self.content = content
        self.frames: dict[Encoding, bytes] = {}
        """All frames built so far. `PhoenixSession.send_shared` looks here before it calls `frame`."""
        self._forms: dict[str, EncodedMessage | None] = {_V2.vsn: EncodedMessage(_V2.encode(message))}

    @property
    def size(self) -> int:
        """Size in bytes of the message in V2's encoding."""
        form = self._forms[_V2.vsn]
        return 0 if form is None else len(form.encoded.data)

    def frame(self, encoding: Encoding) -> bytes | None:
        """Return the frame for a connection, or `None` if its serializer cannot encode the message."""
        serializer, deflate_bits = encoding
        form = self.form(serializer)
        if form is None:
            return None
        frame = self.frames[encoding] = form.frame(deflate_bits)
        return frame

    def form(self, serializer: Serializer) -> EncodedMessage | None:
        """Return the message as encoded by `serializer`, or `None` if V1 cannot encode a binary message."""
        vsn = serializer.vsn
        if vsn not in self._forms:
            try:
                self._forms[vsn] = EncodedMessage(serializer.encode(self.message))
            except LocalProtocolError:
                self._forms[vsn] = None
        return self._forms[vsn]


def said(topic: str, event: str, payload: Any) -> SharedMessage:
    """Return a message for all listeners of a topic. `payload` is JSON, bytes or a `UserBroadcast`.

    Raises `LocalProtocolError` when the payload cannot be encoded.
    """
    # Encode JSON here, once for all serializers.
    encoded = payload if isinstance(payload, (bytes, UserBroadcast)) else encode_payload(payload)
    return SharedMessage(Message(None, None, topic, event, encoded), payload)


def broadcast_in(content: Any) -> tuple[Any, dict[str, Any]]:
    """Return the event and the payload of a Supabase broadcast, given as JSON or as `UserBroadcast`.

    For content that is not a broadcast, the event is `None` and the payload is empty.
    """
    event: Any = None
    payload: Any = None
    if isinstance(content, UserBroadcast):
        event, payload = content.event, content.payload
    elif isinstance(content, Mapping):
        event, payload = content.get("event"), content.get("payload")
    return event, dict(payload) if isinstance(payload, Mapping) else {}


@frozen(eq=False)
class Tracked:
    """One tracked meta: its presence key, its ref, the serial number of the ref in this hub, and its JSON.

    `charge` is the number of bytes that the meta adds to the allowances of its topic, of the hub and of
    `payer`.
    """

    key: str
    ref: str
    number: int
    encoded: bytes
    charge: int
    payer: Allowance | None

    @property
    def meta(self) -> Meta:
        """The meta, which is decoded from JSON on each access.

        The hub keeps only the JSON, because a decoded meta takes several times the memory.
        """
        return decode_object(self.encoded, "a meta", MOST_NESTING)


@frozen(eq=False)
class Diff:
    """The metas that joined and the metas that left. `shared` is the message for the same diff."""

    joins: tuple[Tracked, ...]
    leaves: tuple[Tracked, ...]
    shared: SharedMessage


class Listener(Protocol):
    """A receiver of the messages of a topic, for clients of any protocol."""

    def on_broadcast(self, shared: SharedMessage, speaker: str | None) -> None:
        """Receive a message. `speaker` is the presence key of the sender, or `None` without such a key.

        The method must not raise an exception and must not change the topic.
        """

    def on_diff(self, diff: Diff) -> None:
        """Receive a presence change. The method must not raise an exception and must not change the topic."""


class Member(Protocol):
    """A client in a topic, with or without presence. The member or another object is its `Listener`."""

    def stop(self, reason: str, *, crashed: bool) -> None:
        """End the membership on the hub's behalf: notify the client, and leave the topic."""


class Topic:
    """The members and the listeners of one topic, both in join order. A member with presence has one meta.

    Listeners receive the join of a sender before the sender's broadcast. When the sender's join still waits
    in the diff, `broadcast` sends the diff first.

    A topic with a waiting diff adds itself to `waiting`. `total` is the allowance of the whole hub.
    """

    __slots__ = (
        "_allowance",
        "_coming",
        "_config",
        "_diff_size",
        "_entries",
        "_ids",
        "_joins",
        "_leaves",
        "_listeners",
        "_members",
        "_metas",
        "_shown",
        "_stale",
        "_total",
        "_waiting",
        "name",
    )

    def __init__(
        self, name: str, ids: Ids, waiting: dict[str, Topic], config: HubConfig, total: Allowance
    ) -> None:
        self.name = name
        self._config = config
        self._total = total
        self._allowance = Allowance("this topic", config.max_topic_size)
        self._ids = ids
        self._waiting = waiting
        self._listeners: dict[Listener, None] = {}
        self._members: dict[Member, Tracked | None] = {}
        self._metas: dict[str, dict[str, Tracked]] = {}  # by key and ref, newest last
        self._entries: dict[str, bytes] = {}  # by key: the JSON text of its state entry
        self._stale: dict[str, None] = {}  # keys whose state entries are out of date
        self._coming: set[str] = set()  # keys that joined since the last diff
        self._joins: dict[str, Tracked] = {}  # by ref: joins of the waiting diff
        self._leaves: dict[str, Tracked] = {}
        self._diff_size = 0  # bytes: sum of the charges in the waiting diff
        self._shown = 0  # serial number of the newest ref that a sent state may contain

    # -- getters

    @property
    def members(self) -> tuple[Member, ...]:
        """All members of the topic, in join order."""
        return tuple(self._members)

    @property
    def size(self) -> int:
        """Number of members of the topic."""
        return len(self._members)

    @property
    def is_empty(self) -> bool:
        """Whether the topic has no members."""
        return not self._members

    def tracked(self, member: Member) -> Tracked | None:
        """Return the meta of a member, or `None` when the member has no presence."""
        return self._members[member]

    def presences(self) -> Iterator[Tracked]:
        """Return the meta of each member with presence, in the order of the members' joins."""
        return (tracked for tracked in self._members.values() if tracked is not None)

    def count(self, key: str | None = None) -> int:
        """Return the number of metas of `key`. Without a key, return the number of presence keys."""
        return len(self._metas) if key is None else len(self._metas.get(key, ()))

    def latest(self, key: str) -> Tracked | None:
        """Return the newest meta of a presence key, or `None` when the key has no meta."""
        metas = self._metas.get(key)
        return None if metas is None else metas[next(reversed(metas))]

    def online(self) -> dict[str, tuple[Meta, ...]]:
        """Return the current metas by presence key, newest last."""
        return {key: tuple(tracked.meta for tracked in metas.values()) for key, metas in self._metas.items()}

    # -- members and listeners

    def add(self, member: Member) -> None:
        """Add a member, which has no presence at first."""
        self._members[member] = None

    def remove(self, member: Member) -> None:
        """Remove a member and its meta from the topic."""
        self.untrack(member)
        del self._members[member]

    def add_listener(self, listener: Listener) -> None:
        """Send the messages of the topic to a listener from now on."""
        self._listeners[listener] = None

    def remove_listener(self, listener: Listener) -> None:
        """Stop sending the messages of the topic to a listener."""
        del self._listeners[listener]

    def broadcast(
        self, shared: SharedMessage, *, speaker: str | None = None, skip: Listener | None = None
    ) -> None:
        """Send a message to all listeners except `skip`.

        `speaker` is the presence key of the sender, or `None` for the hub or a sender without a presence key.
        """
        if speaker in self._coming:
            self.flush()
        for listener in self._listeners:
            if listener is not skip:
                listener.on_broadcast(shared, speaker)

    # -- presence

    def state(self) -> Raw:
        """Return the payload of a `presence_state` message, which lists the current presence.

        The payload includes changes that no diff has reported yet.
        """
        self.reveal()
        # Concatenate cached entries instead of encoding all metas. Each new member receives the whole state,
        # and only few entries change between two joins.
        for key in self._stale:
            metas = b",".join([tracked.encoded for tracked in self._metas[key].values()])
            self._entries[key] = bytes(encode_payload(key)) + b':{"metas":[' + metas + b"]}"
        self._stale.clear()
        return Raw(b"{" + b",".join(self._entries.values()) + b"}")

    def reveal(self) -> None:
        """Record that a receiver now sees all current metas.

        A diff will report the leave of each current meta, even if no diff has reported the join.
        """
        self._shown = self._ids.refs

    def check(
        self, key: str, payload: Meta, payer: Allowance | None = None, *, freed: int = 0
    ) -> tuple[bytes, int]:
        """Return the JSON of a payload without refs, and the number of bytes to count for the payload.

        `freed` is the number of bytes released when the payload replaces an older meta. Raises
        `LocalProtocolError` when the payload is not JSON, and `NoRoomError` when there is no room for the
        meta.
        """
        if not payload.keys().isdisjoint(_REFS):
            payload = {name: value for name, value in payload.items() if name not in _REFS}
        encoded = bytes(encode_payload(payload))
        size = len(encoded) + len(bytes(encode_payload(key))) - 2  # the quotes around the key are not counted
        if size > self._config.max_meta_size:
            raise MetaTooLargeError(
                f"a meta and its key have at most {self._config.max_meta_size} bytes, not {size}"
            )
        charge = size + META_COST
        more = charge - freed
        if payer is not None:
            payer.check(more)
        self._allowance.check(more)
        self._total.check(more)
        return encoded, charge

    def track(self, member: Member, key: str, payload: Meta, payer: Allowance | None = None) -> Tracked:
        """Make `payload` the meta of a member under `key`, in place of the member's previous meta.

        `payer` is the allowance of the member's connection, if the connection may have several metas. The key
        must be valid Unicode. Raises `LocalProtocolError` when the payload is not JSON, and `NoRoomError`
        when there is no room for the meta. After an exception, the topic is unchanged.
        """
        old = self._members[member]
        encoded, charge = self.check(key, payload, payer, freed=0 if old is None else old.charge)
        ref = self._ids.ref()
        refs = f'{{"phx_ref":"{ref}"' if old is None else f'{{"phx_ref":"{ref}","phx_ref_prev":"{old.ref}"'
        encoded = refs.encode() + (b"," + encoded[1:] if len(encoded) > 2 else b"}")
        new = Tracked(key, ref, self._ids.refs, encoded, charge, payer)
        self._count(new, charge)
        metas = self._metas.get(key)
        if metas is None:
            metas = self._metas[key] = {}
            self._coming.add(key)
        metas[ref] = new
        self._stale[key] = None
        self._joins[ref] = new
        self._diff_size += charge
        self._members[member] = new
        self._waiting[self.name] = self
        if old is not None:
            self._gone(old)
        return new

    def _count(self, tracked: Tracked, charge: int) -> None:
        self._allowance.held += charge
        self._total.held += charge
        if tracked.payer is not None:
            tracked.payer.held += charge

    def untrack(self, member: Member) -> None:
        """Remove the member's meta, if the member has a meta."""
        old = self._members[member]
        if old is not None:
            self._members[member] = None
            self._gone(old)

    def _gone(self, tracked: Tracked) -> None:
        self._count(tracked, -tracked.charge)
        metas = self._metas[tracked.key]
        del metas[tracked.ref]
        if metas:
            self._stale[tracked.key] = None
        else:
            del self._metas[tracked.key]
            self._entries.pop(tracked.key, None)
            self._stale.pop(tracked.key, None)
        is_news = self._joins.pop(tracked.ref, None) is not None
        if is_news:
            self._diff_size -= tracked.charge
        if not is_news or tracked.number <= self._shown:
            self._leaves[tracked.ref] = tracked
            self._diff_size += tracked.charge
        self._waiting[self.name] = self

    def flush(self, limit: int | None = None) -> bool:
        """Send the waiting diff, if not empty. Return whether a part of the diff still waits.

        If the diff is larger than `limit` bytes, only a part is sent, so that other messages need not wait
        for the whole diff. All changes of one key stay in the same part, because an update must not look like
        a leave followed by a join.
        """
        joins, leaves = tuple(self._joins.values()), tuple(self._leaves.values())
        if limit is not None and self._diff_size > limit:
            keys = _first_keys((*joins, *leaves), limit)
            joins = tuple(tracked for tracked in joins if tracked.key in keys)
            leaves = tuple(tracked for tracked in leaves if tracked.key in keys)
            self._coming -= keys
        else:
            self._coming.clear()
        if not joins and not leaves:
            return False
        for waiting, told in ((self._joins, joins), (self._leaves, leaves)):
            for tracked in told:
                del waiting[tracked.ref]
                self._diff_size -= tracked.charge
        payload = {"joins": _by_key(joins), "leaves": _by_key(leaves)}
        shared = SharedMessage(Message(None, None, self.name, "presence_diff", payload))
        diff = Diff(joins, leaves, shared)
        for listener in self._listeners:
            listener.on_diff(diff)
        return bool(self._joins or self._leaves)


_REFS = ("phx_ref", "phx_ref_prev")


def same_payload(meta: Meta, payload: Meta) -> bool:
    """Whether tracking `payload` would produce `meta` again, apart from the refs.

    The function compares `meta` and `payload` as JSON, because Python treats `1` and `true` as equal. The
    order of top-level fields does not matter, but the order inside nested objects does.
    """
    return _plain(meta) == _plain(payload)


def _plain(meta: Meta) -> Raw:
    return encode_payload({name: meta[name] for name in sorted(meta) if name not in _REFS})


def _first_keys(metas: Iterable[Tracked], limit: int) -> set[str]:
    """Return the first keys whose metas have at most `limit` bytes together, but at least one key."""
    sizes: dict[str, int] = {}
    for tracked in metas:
        sizes[tracked.key] = sizes.get(tracked.key, 0) + tracked.charge
    keys: set[str] = set()
    for key, size in sizes.items():
        limit -= size
        if limit < 0 and keys:
            break
        keys.add(key)
    return keys


def _by_key(metas: Iterable[Tracked]) -> dict[str, dict[str, list[Raw]]]:
    grouped: dict[str, dict[str, list[Raw]]] = {}
    for tracked in metas:
        grouped.setdefault(tracked.key, {"metas": []})["metas"].append(Raw(tracked.encoded))
    return grouped


# ----------------------------------------------------------------------------------------------------- topics
# All topics of a hub, and the objects that their members share: the config, the clock, the ids, the events.


SUPABASE_PREFIX = "realtime:"
JARVIS_TOPIC = "realtime:jarvis-presence"
"""The topic that all users of the Jarvis system share, through the Jarvis or the Supabase protocol."""


def announcement(topic: str, event: str, payload: Any, levels: int) -> SharedMessage:
    """Return a message from the hub's user to all members of a topic.

    `payload` is a JSON value with up to `levels` levels of nesting, or bytes. A Supabase topic receives the
    message as a broadcast. Raises `LocalProtocolError` when the payload cannot be encoded, or when the topic
    is plain and `event` is reserved.
    """
    if isinstance(payload, (bytearray, memoryview)):
        payload = bytes(payload)
    if not isinstance(payload, bytes):
        plain(payload, levels)
    if topic.startswith(SUPABASE_PREFIX):
        if isinstance(payload, bytes):
            return said(topic, "broadcast", UserBroadcast(event, payload))
        return said(topic, "broadcast", {"type": "broadcast", "event": event, "payload": payload})
    if is_reserved(event):
        raise LocalProtocolError(f"only the hub itself may send {event!r}")
    return said(topic, event, payload)


class Topics:
    """The topics that have members, and the topics with waiting diffs.

    A topic is created when its first member joins and deleted when its last member leaves.
    """

    __slots__ = (
        "_outbox",
        "_timers",
        "_unlimited",
        "_waiting",
        "by_name",
        "clock",
        "config",
        "ids",
        "total",
        "work",
    )

    def __init__(
        self,
        config: HubConfig,
        clock: Clock,
        timers: Timers[TimerName],
        outbox: Outbox[HubEvent],
        rng: Random | None,
    ) -> None:
        self.config = config
        self.clock = clock
        self.ids = Ids(rng)
        self.total = Allowance("this hub", config.max_total_size)
        self._timers = timers  # the timer of a topic is named after the topic
        self._outbox = outbox
        self.by_name: dict[str, Topic] = {}  # the topics that have members
        self._unlimited = None if is_limited(config) else Rates(self)  # shared by all connections
        self.work = 0  # units of work since the hub was created; see `limits.py`
        self._waiting: dict[str, Topic] = {}  # topics changed since the last settle(), oldest change first

    # -- getters

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the topics that have members."""
        return tuple(self.by_name)

    @property
    def waiting(self) -> tuple[str, ...]:
        """The names of the topics whose diff waits for the end of the presence window."""
        return tuple(name for name in self.by_name if self._timers.get(name) is not None)

    def online(self, name: str) -> dict[str, tuple[Meta, ...]]:
        """Return the current metas of a topic by presence key; `{}` for a topic without members."""
        topic = self.by_name.get(name)
        return {} if topic is None else topic.online()

    def members(self, name: str) -> tuple[Member, ...]:
        """Return the members of a topic; `()` for an unknown topic."""
        topic = self.by_name.get(name)
        return () if topic is None else topic.members

    # -- for members

    def enter(self, name: str, member: Member) -> Topic:
        """Add a member to a topic, and return the topic. The first member creates the topic."""
        topic = self.by_name.get(name)
        if topic is None:
            topic = self.by_name[name] = self._new_topic(name)
        topic.add(member)
        return topic

    def check(
        self, name: str, key: str, payload: Meta, payer: Allowance | None = None, *, freed: int = 0
    ) -> None:
        """Raise the exception that `Topic.track` would raise for `payload`. The topic need not exist yet.

        `freed` is the number of bytes that the caller releases before it tracks the payload.
        """
        topic = self.by_name.get(name) or self._new_topic(name)
        topic.check(key, payload, payer, freed=freed)

    def _new_topic(self, name: str) -> Topic:
        return Topic(name, self.ids, self._waiting, self.config, self.total)

    def leave(self, name: str, member: Member) -> None:
        """Remove a member from a topic. Delete the topic when the last member leaves."""
        topic = self.by_name[name]
        topic.remove(member)
        if topic.is_empty:
            del self.by_name[name]
            self._waiting.pop(name, None)
            self._timers.cancel(name)

    def rates(self) -> Rates:
        """Return the token buckets for a new connection."""
        return Rates(self) if self._unlimited is None else self._unlimited

    def emit(self, event: HubEvent) -> None:
        """Report an event to the hub's user."""
        self._outbox.put(event)

    def set_timer(self, name: TimerName, seconds: float) -> None:
        """Set a timer of the hub, which fires in `seconds`."""
        self._timers.set(name, self.clock.now + seconds)

    def cancel_timer(self, name: TimerName) -> None:
        """Cancel the timer `name` of the hub, if set."""
        self._timers.cancel(name)

    # -- for the hub

    def broadcast(self, name: str, shared: SharedMessage) -> None:
        """Send a message to all listeners of a topic."""
        topic = self.by_name.get(name)
        if topic is not None:
            topic.broadcast(shared)

    def settle(self) -> None:
        """Finish a step of the hub: flush the changed topics, or start their presence windows."""
        if not self._waiting:
            return
        window = self.config.presence_window
        for topic in self._waiting.values():
            if not window:
                topic.flush()
            elif self._timers.get(topic.name) is None:
                self._timers.set(topic.name, self.clock.now + window)
        self._waiting.clear()

    def window_ended(self, name: str) -> None:
        """Send the diff of a topic, or its next part, when the topic's timer fires."""
        if self.by_name[name].flush(LARGE_DIFF):
            self._timers.set(name, self.clock.now + self.config.presence_window)
