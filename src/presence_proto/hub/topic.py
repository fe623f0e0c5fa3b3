"""One topic: its members, their presence, and what all of them are told.

Presence is told in two ways. A member that comes gets the whole truth of now (`state`), and everything that
changes afterwards goes to all in diffs. A diff is collected until it is flushed: at once, or after the hub's
presence window. What came and went in between is not in it, with one exception: a member that came in between
was shown the truth of then, so what it was shown must be seen to leave.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from attrs import frozen
from msgspec import Raw

from presence_proto.endpoint import ConnId
from presence_proto.errors import LocalProtocolError
from presence_proto.hub.limits import Allowance, MetaTooLargeError, Rates, is_limited
from presence_proto.json_text import decode_object, encode_payload, plain
from presence_proto.serializer import EncodedFrame, Message, Serializer, UserBroadcast, V2Serializer
from presence_proto.validators import MOST_NESTING
from presence_proto.websocket.protocol import server_frame

if TYPE_CHECKING:
    from random import Random

    from presence_proto.config import HubConfig
    from presence_proto.endpoint import Outbox
    from presence_proto.events import HubEvent
    from presence_proto.timers import Clock, Timers


# -------------------------------------------------------------------------------------------------------- ids
# The names in a hub: of its timers, and those that it makes, refs of metas and presence keys.


@frozen
class Grace:
    """Names the timer of a Jarvis user who is away, and may come back unnoticed."""

    user_id: str


@frozen
class SlowJoin:
    """Names the timer of a Phoenix connection that is busy with a join."""

    conn: ConnId


@frozen
class Leave:
    """Names the timer of a Phoenix connection that leaves a channel."""

    conn: ConnId


TimerName: TypeAlias = ConnId | str | Grace | SlowJoin | Leave
"""A transport's timer, with the meaning of its phase; a topic's, whose diff waits; a user's; a join's; a
leave's."""


class Ids:
    """Makes names that are unique over the life of one hub.

    With an `rng` they also differ from those of the hub that ran before, which clients may still remember.
    Without one they come from counters alone, the same in every run.
    """

    __slots__ = ("_keys", "_prefix", "_rng", "refs")

    def __init__(self, rng: Random | None = None) -> None:
        self._rng = rng
        self._prefix = (0 if rng is None else rng.getrandbits(48)).to_bytes(6, "big")
        self._keys = 0
        self.refs = 0
        """How many refs were made; the number of the newest one."""

    def ref(self) -> str:
        """A new `phx_ref`: 16 characters of url-safe base64, as Phoenix's are."""
        self.refs += 1
        return urlsafe_b64encode(self._prefix + self.refs.to_bytes(6, "big")).decode("ascii")

    def key(self) -> str:
        """A new presence key: a UUID, version 4, for a client that has named none."""
        self._keys += 1
        number = self._keys if self._rng is None else self._rng.getrandbits(128)
        digits = f"{number:032x}"
        variant = "89ab"[int(digits[16], 16) % 4]
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


# ------------------------------------------------------------------------------------------------------ topic


Meta: TypeAlias = Mapping[str, Any]

_V2 = V2Serializer(server=True)

META_COST = 256  # bytes; what each meta counts besides its JSON: its refs, and its place in states and diffs

LARGE_DIFF = 256 * 1024  # bytes; of a diff of more, a part goes out at the end of each presence window

RESERVED_EVENTS = frozenset({"presence_state", "presence_diff"})


def is_reserved(event: str) -> bool:
    """Whether only the hub itself may say `event`: anybody else could make members vanish with it."""
    return event.startswith("phx_") or event in RESERVED_EVENTS


class EncodedMessage:
    """A message as one protocol encodes it, for many receivers: framed once, deflated once per window."""

    __slots__ = ("_frames", "encoded")

    def __init__(self, encoded: EncodedFrame) -> None:
        self.encoded = encoded
        self._frames: dict[int | None, bytes] = {}

    def frame(self, deflate_bits: int | None) -> bytes:
        """The WebSocket frame for a connection with these `deflate_bits`."""
        frame = self._frames.get(deflate_bits)
        if frame is None:
            data, text = self.encoded.data, self.encoded.text
            frame = self._frames[deflate_bits] = server_frame(data, text=text, deflate_bits=deflate_bits)
        return frame


Encoding: TypeAlias = tuple[Serializer, int | None]
"""How a connection gets what is sent: its serializer, and the window of its permessage-deflate, if any."""


class SharedMessage:
    """One message for many receivers: encoded once per serializer, and framed once per `Encoding`.

    `content` is the payload as it was before it was encoded, for who wants to read it. Raises
    `LocalProtocolError` when V2 cannot carry the message, which carries all that any form does.
    """

    __slots__ = ("_forms", "content", "frames", "message")

    def __init__(self, message: Message, content: Any = None) -> None:
        self.message = message
        self.content = content
        self.frames: dict[Encoding, bytes] = {}
        """Those that were asked for. Whoever has many receivers looks here first."""
        self._forms: dict[str, EncodedMessage | None] = {_V2.vsn: EncodedMessage(_V2.encode(message))}

    @property
    def size(self) -> int:
        """Bytes of the message as V2 encodes it."""
        form = self._forms[_V2.vsn]
        return 0 if form is None else len(form.encoded.data)

    def frame(self, encoding: Encoding) -> bytes | None:
        """The WebSocket frame for a connection, or `None` when its serializer cannot carry the message."""
        serializer, deflate_bits = encoding
        form = self.form(serializer)
        if form is None:
            return None
        frame = self.frames[encoding] = form.frame(deflate_bits)
        return frame

    def form(self, serializer: Serializer) -> EncodedMessage | None:
        """The message as this serializer encodes it, or `None` when it cannot: V1 has no binary."""
        vsn = serializer.vsn
        if vsn not in self._forms:
            try:
                self._forms[vsn] = EncodedMessage(serializer.encode(self.message))
            except LocalProtocolError:
                self._forms[vsn] = None
        return self._forms[vsn]


def said(topic: str, event: str, payload: Any) -> SharedMessage:
    """What somebody says to a whole topic: JSON, bytes or a `UserBroadcast`. Raises `LocalProtocolError`."""
    # Encoded once for all forms.
    encoded = payload if isinstance(payload, (bytes, UserBroadcast)) else encode_payload(payload)
    return SharedMessage(Message(None, None, topic, event, encoded), payload)


def broadcast_in(content: Any) -> tuple[Any, dict[str, Any]]:
    """The event and the payload of a Supabase broadcast, in either form; nothing of anything else."""
    event: Any = None
    payload: Any = None
    if isinstance(content, UserBroadcast):
        event, payload = content.event, content.payload
    elif isinstance(content, Mapping):
        event, payload = content.get("event"), content.get("payload")
    return event, dict(payload) if isinstance(payload, Mapping) else {}


@frozen(eq=False)
class Tracked:
    """One meta: whose it is, its ref, the number of that among all refs of the hub, and the meta as JSON.

    `charge`: the bytes that it counts in the allowances of its topic, of the hub and of `payer`.
    """

    key: str
    ref: str
    number: int
    encoded: bytes
    charge: int
    payer: Allowance | None

    @property
    def meta(self) -> Meta:
        """The meta, decoded anew. It is kept as JSON only: decoded, it takes several times the memory."""
        return decode_object(self.encoded, "a meta", MOST_NESTING)


@frozen(eq=False)
class Diff:
    """What came and what went. `shared` is the same as a `presence_diff`."""

    joins: tuple[Tracked, ...]
    leaves: tuple[Tracked, ...]
    shared: SharedMessage


class Member(Protocol):
    """Whoever is in a topic, whatever protocol it speaks."""

    def on_broadcast(self, shared: SharedMessage, speaker: str | None) -> None:
        """Somebody said something to all: the hub, or the `speaker` with this presence key.

        Must neither raise nor change the topic.
        """

    def on_diff(self, diff: Diff) -> None:
        """The presence changed. Must neither raise nor change the topic."""

    def stop(self, reason: str, *, crashed: bool) -> None:
        """The hub ends the membership: say so to the client, and leave the topic."""


class Topic:
    """The members of one topic, in the order in which they came, each with its meta if it is present.

    Nobody is heard before they are seen: when somebody's coming waits in the diff, their broadcast sends the
    diff first.

    A topic whose diff is waiting puts itself into `waiting`. `total` is the allowance of the whole hub.
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
        self._members: dict[Member, Tracked | None] = {}
        self._metas: dict[str, dict[str, Tracked]] = {}  # by key and ref, the latest last
        self._entries: dict[str, bytes] = {}  # each key with its metas, as the state has it
        self._stale: dict[str, None] = {}  # the keys whose entries are of yesterday
        self._coming: set[str] = set()  # keys that have come since the last diff
        self._joins: dict[str, Tracked] = {}  # by ref: the diff that waits
        self._leaves: dict[str, Tracked] = {}
        self._diff_size = 0  # bytes that the waiting diff counts
        self._shown = 0  # refs up to this number may be known from a state

    # -- getters

    @property
    def members(self) -> tuple[Member, ...]:
        """Everybody, in the order of coming."""
        return tuple(self._members)

    @property
    def size(self) -> int:
        """How many members there are."""
        return len(self._members)

    @property
    def is_empty(self) -> bool:
        """Whether nobody is here."""
        return not self._members

    def tracked(self, member: Member) -> Tracked | None:
        """The meta of a member."""
        return self._members[member]

    def presences(self) -> Iterable[tuple[Member, Tracked | None]]:
        """Each member with its meta, if it has one."""
        return self._members.items()

    def count(self, key: str | None = None) -> int:
        """How many metas a key has; without one, how many keys there are."""
        return len(self._metas) if key is None else len(self._metas.get(key, ()))

    def latest(self, key: str) -> Tracked | None:
        """The newest meta of a key."""
        metas = self._metas.get(key)
        return None if metas is None else metas[next(reversed(metas))]

    def online(self) -> dict[str, tuple[Meta, ...]]:
        """Who is present: the metas by key, the latest last."""
        return {key: tuple(tracked.meta for tracked in metas.values()) for key, metas in self._metas.items()}

    # -- members

    def add(self, member: Member) -> None:
        """Somebody comes, without presence yet."""
        self._members[member] = None

    def remove(self, member: Member) -> None:
        """Somebody goes, and its presence too."""
        self.untrack(member)
        del self._members[member]

    def broadcast(
        self, shared: SharedMessage, *, speaker: str | None = None, skip: Member | None = None
    ) -> None:
        """Tell everybody, but not `skip`. `speaker`: the presence key of who says it, if it is a member's."""
        if speaker in self._coming:
            self.flush()
        for member in self._members:
            if member is not skip:
                member.on_broadcast(shared, speaker)

    # -- presence

    def state(self) -> Raw:
        """The payload of a `presence_state`: the truth of now, also what no diff has told yet."""
        self.reveal()
        # Put together by hand: a large room sends it to each that comes, and little has changed in between.
        for key in self._stale:
            metas = b",".join([tracked.encoded for tracked in self._metas[key].values()])
            self._entries[key] = bytes(encode_payload(key)) + b':{"metas":[' + metas + b"]}"
        self._stale.clear()
        return Raw(b"{" + b",".join(self._entries.values()) + b"}")

    def reveal(self) -> None:
        """Somebody is shown the truth of now. What of it goes will be seen to leave, as if it was told."""
        self._shown = self._ids.refs

    def check(
        self, key: str, payload: Meta, payer: Allowance | None = None, *, freed: int = 0
    ) -> tuple[bytes, int]:
        """The JSON of a payload without refs, and what it counts. Raises `NoRoomError` if it may not be kept.

        `freed`: the bytes that are given back when it is tracked, of the meta that it replaces. Raises
        `LocalProtocolError` when the payload is not JSON.
        """
        if not payload.keys().isdisjoint(_REFS):
            payload = {name: value for name, value in payload.items() if name not in _REFS}
        encoded = bytes(encode_payload(payload))
        size = len(encoded) + len(bytes(encode_payload(key))) - 2  # without the quotes of the key
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
        """Make `payload` the meta of a member under `key`, in place of the one before.

        `payer` is the allowance of the member's connection, if it may have several metas. The key must be
        valid Unicode. Raises `LocalProtocolError`, and changes nothing, when the payload is not JSON, and
        `NoRoomError` when there is no room for it.
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
        """Make a member absent; nothing happens when it is."""
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
        """Send the diff that waits, if there is anything in it. Returns whether more of it waits.

        With a `limit`, only so many bytes of it, so that large diffs leave room for other messages. What
        concerns one key stays together: an update must not look like a leave and a join.
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
        for member in self._members:
            member.on_diff(diff)
        return bool(self._joins or self._leaves)


_REFS = ("phx_ref", "phx_ref_prev")


def same_payload(meta: Meta, payload: Meta) -> bool:
    """Whether `payload`, tracked, would make the same meta again, but for its refs.

    Compared as JSON, since to Python `1` and `true` are equal. The order of the fields makes no difference,
    that of fields within fields does.
    """
    return _plain(meta) == _plain(payload)


def _plain(meta: Meta) -> Raw:
    return encode_payload({name: meta[name] for name in sorted(meta) if name not in _REFS})


def _first_keys(metas: Iterable[Tracked], limit: int) -> set[str]:
    """The keys whose metas count up to `limit` bytes together, and one key at least."""
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
# All topics of a hub, and what their members share: the config, the clock, the ids, the events.


SUPABASE_PREFIX = "realtime:"
JARVIS_TOPIC = "realtime:jarvis-presence"
"""Where the users of the Jarvis system meet, whichever protocol they speak."""


def announcement(topic: str, event: str, payload: Any, levels: int) -> SharedMessage:
    """What the hub's user says to a whole topic. `payload` is JSON of up to `levels` levels, or bytes.

    A Supabase topic gets it as a broadcast. Raises `LocalProtocolError` for what cannot be said.
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
        raise LocalProtocolError(f"only the hub itself says {event!r}")
    return said(topic, event, payload)


class Topics:
    """The topics that have members, and their diffs that wait. A topic comes and goes with its members."""

    __slots__ = (
        "_outbox",
        "_timers",
        "_topics",
        "_unlimited",
        "_waiting",
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
        self._timers = timers  # a topic's timer has its name
        self._outbox = outbox
        self._topics: dict[str, Topic] = {}
        self._unlimited = None if is_limited(config) else Rates(self)  # for all connections
        self.work = 0  # units, since the hub began; see `hub.turns`
        self._waiting: dict[str, Topic] = {}  # what has changed since the last settle(), in order

    # -- getters

    @property
    def names(self) -> tuple[str, ...]:
        """The topics that have members."""
        return tuple(self._topics)

    @property
    def waiting(self) -> tuple[str, ...]:
        """The topics whose diff waits for the end of the presence window."""
        return tuple(name for name in self._topics if self._timers.get(name) is not None)

    def online(self, name: str) -> dict[str, tuple[Meta, ...]]:
        """Who is present in a topic; nobody in one without members."""
        topic = self._topics.get(name)
        return {} if topic is None else topic.online()

    def members(self, name: str) -> tuple[Member, ...]:
        """Who is in a topic."""
        topic = self._topics.get(name)
        return () if topic is None else topic.members

    # -- for members

    def enter(self, name: str, member: Member) -> Topic:
        """Add a member to a topic, which is made when it is the first."""
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = self._new_topic(name)
        topic.add(member)
        return topic

    def check(
        self, name: str, key: str, payload: Meta, payer: Allowance | None = None, *, freed: int = 0
    ) -> None:
        """Raise as `Topic.track` does if `payload` may not be tracked in a topic, which need not exist yet.

        `freed`: the bytes that will be given back before.
        """
        topic = self._topics.get(name) or self._new_topic(name)
        topic.check(key, payload, payer, freed=freed)

    def _new_topic(self, name: str) -> Topic:
        return Topic(name, self.ids, self._waiting, self.config, self.total)

    def leave(self, topic: Topic, member: Member) -> None:
        """Take a member out of a topic, which is forgotten when it was the last."""
        topic.remove(member)
        if topic.is_empty:
            del self._topics[topic.name]
            self._waiting.pop(topic.name, None)
            self._timers.cancel(topic.name)

    def rates(self) -> Rates:
        """The token buckets of a new connection."""
        return Rates(self) if self._unlimited is None else self._unlimited

    def emit(self, event: HubEvent) -> None:
        """Report an event to the hub's user."""
        self._outbox.put(event)

    def set_timer(self, name: TimerName, seconds: float) -> None:
        """Have the hub tell when so many seconds have passed."""
        self._timers.set(name, self.clock.now + seconds)

    def cancel_timer(self, name: TimerName) -> None:
        """Forget about it."""
        self._timers.cancel(name)

    # -- for the hub

    def broadcast(self, name: str, shared: SharedMessage) -> None:
        """Say something to everybody in a topic."""
        topic = self._topics.get(name)
        if topic is not None:
            topic.broadcast(shared)

    def settle(self) -> None:
        """A moment is over: its diffs go out now, or when the presence window ends."""
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
        """The timer of a topic has fired: its diff goes out, or the next part of it."""
        if self._topics[name].flush(LARGE_DIFF):
            self._timers.set(name, self.clock.now + self.config.presence_window)
