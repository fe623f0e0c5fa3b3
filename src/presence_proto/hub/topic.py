"""One topic: its members, their presence, and what all of them are told.

Presence is told in two ways. A member that comes gets the whole truth of now (`state`), and everything that
changes afterwards goes to all in diffs. A diff is collected until it is flushed: at once, or after the hub's
presence window. What came and went in between is not in it, with one exception: a member that came in between
was shown the truth of then, so what it was shown must be seen to leave.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from attrs import frozen
from msgspec import Raw

from presence_proto.errors import LocalProtocolError
from presence_proto.serializer import (
    EncodedFrame,
    Message,
    Serializer,
    UserBroadcast,
    V2Serializer,
    encode_payload,
)
from presence_proto.websocket import server_frame

if TYPE_CHECKING:
    from presence_proto.hub.ids import Ids

Meta: TypeAlias = Mapping[str, Any]

_V2 = V2Serializer(server=True)

RESERVED_EVENTS = frozenset({"presence_state", "presence_diff"})


def is_reserved(event: str) -> bool:
    """Whether only the hub itself may say `event`: anybody else could make members vanish with it."""
    return event.startswith("phx_") or event in RESERVED_EVENTS


class Form:
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


class Shared:
    """One message for many receivers: encoded once per serializer.

    `content` is the payload as it was before it was encoded, for who wants to read it. Raises
    `LocalProtocolError` when V2 cannot carry the message, which carries all that any form does.
    """

    __slots__ = ("_forms", "content", "message")

    def __init__(self, message: Message, content: Any = None) -> None:
        self.message = message
        self.content = content
        self._forms: dict[str, Form | None] = {_V2.vsn: Form(_V2.encode(message))}

    def form(self, serializer: Serializer) -> Form | None:
        """The message as this serializer encodes it, or `None` when it cannot: V1 has no binary."""
        vsn = serializer.vsn
        if vsn not in self._forms:
            try:
                self._forms[vsn] = Form(serializer.encode(self.message))
            except LocalProtocolError:
                self._forms[vsn] = None
        return self._forms[vsn]


def said(topic: str, event: str, payload: Any) -> Shared:
    """What somebody says to a whole topic: JSON, bytes or a `UserBroadcast`. Raises `LocalProtocolError`."""
    # Encoded once for all forms.
    encoded = payload if isinstance(payload, (bytes, UserBroadcast)) else encode_payload(payload)
    return Shared(Message(None, None, topic, event, encoded), payload)


@frozen(eq=False)
class Tracked:
    """One meta: whose it is, its ref, the number of that among all refs of the hub, and the meta as JSON."""

    key: str
    ref: str
    number: int
    meta: Meta
    wire: bytes


@frozen(eq=False)
class Diff:
    """What came and what went. `shared` is the same as a `presence_diff`."""

    joins: tuple[Tracked, ...]
    leaves: tuple[Tracked, ...]
    shared: Shared


class Member(Protocol):
    """Whoever is in a topic, whatever protocol it speaks."""

    def on_broadcast(self, shared: Shared, speaker: str | None) -> None:
        """Somebody said something to all: the hub, or the `speaker` with this presence key.

        Must neither raise nor change the topic.
        """

    def on_diff(self, diff: Diff) -> None:
        """The presence changed. Must neither raise nor change the topic."""

    def stop(self, reason: str, *, crashed: bool) -> None:
        """The hub ends the membership: say so to the client, and leave the topic."""


class Topic:
    """The members of one topic, in the order in which they came, each with its meta if it is present.

    A topic whose diff is waiting puts itself into `waiting`.
    """

    __slots__ = (
        "_entries",
        "_ids",
        "_joins",
        "_leaves",
        "_members",
        "_metas",
        "_shown",
        "_stale",
        "_waiting",
        "name",
    )

    def __init__(self, name: str, ids: Ids, waiting: dict[str, Topic]) -> None:
        self.name = name
        self._ids = ids
        self._waiting = waiting
        self._members: dict[Member, Tracked | None] = {}
        self._metas: dict[str, dict[str, Tracked]] = {}  # by key and ref, the latest last
        self._entries: dict[str, bytes] = {}  # each key with its metas, as the state has it
        self._stale: dict[str, None] = {}  # the keys whose entries are of yesterday
        self._joins: dict[str, Tracked] = {}  # by ref: the diff that waits
        self._leaves: dict[str, Tracked] = {}
        self._shown = 0  # refs up to this number may be known from a state

    # -- getters

    @property
    def members(self) -> tuple[Member, ...]:
        """Everybody, in the order of coming."""
        return tuple(self._members)

    @property
    def is_empty(self) -> bool:
        """Whether nobody is here."""
        return not self._members

    def tracked(self, member: Member) -> Tracked | None:
        """The meta of a member."""
        return self._members[member]

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

    def broadcast(self, shared: Shared, *, speaker: str | None = None, skip: Member | None = None) -> None:
        """Tell everybody, but not `skip`. `speaker`: the presence key of who says it, if it is a member's."""
        for member in self._members:
            if member is not skip:
                member.on_broadcast(shared, speaker)

    # -- presence

    def state(self) -> Raw:
        """The payload of a `presence_state`: the truth of now, also what no diff has told yet."""
        self.reveal()
        # Put together by hand: a large room sends it to each that comes, and little has changed in between.
        for key in self._stale:
            metas = b",".join([tracked.wire for tracked in self._metas[key].values()])
            self._entries[key] = bytes(encode_payload(key)) + b':{"metas":[' + metas + b"]}"
        self._stale.clear()
        return Raw(b"{" + b",".join(self._entries.values()) + b"}")

    def reveal(self) -> None:
        """Somebody is shown the truth of now. What of it goes will be seen to leave, as if it was told."""
        self._shown = self._ids.refs

    def track(self, member: Member, key: str, payload: Meta) -> Tracked:
        """Make `payload` the meta of a member under `key`, in place of the one before.

        The key must be valid Unicode. Raises `LocalProtocolError`, and changes nothing, when the payload is
        not JSON.
        """
        old = self._members[member]
        refs = {"phx_ref": self._ids.ref()}
        if old is not None:
            refs["phx_ref_prev"] = old.ref
        meta = refs | {name: value for name, value in payload.items() if name not in _REFS}
        new = Tracked(key, refs["phx_ref"], self._ids.refs, meta, bytes(encode_payload(meta)))
        self._metas.setdefault(key, {})[new.ref] = new
        self._stale[key] = None
        self._joins[new.ref] = new
        self._members[member] = new
        self._waiting[self.name] = self
        if old is not None:
            self._gone(old)
        return new

    def untrack(self, member: Member) -> None:
        """Make a member absent; nothing happens when it is."""
        old = self._members[member]
        if old is not None:
            self._members[member] = None
            self._gone(old)

    def _gone(self, tracked: Tracked) -> None:
        metas = self._metas[tracked.key]
        del metas[tracked.ref]
        if metas:
            self._stale[tracked.key] = None
        else:
            del self._metas[tracked.key]
            self._entries.pop(tracked.key, None)
            self._stale.pop(tracked.key, None)
        if self._joins.pop(tracked.ref, None) is None or tracked.number <= self._shown:
            self._leaves[tracked.ref] = tracked
        self._waiting[self.name] = self

    def flush(self) -> None:
        """Send the diff that waits, if there is anything in it."""
        joins, leaves = tuple(self._joins.values()), tuple(self._leaves.values())
        if not joins and not leaves:
            return
        self._joins.clear()
        self._leaves.clear()
        payload = {"joins": _by_key(joins), "leaves": _by_key(leaves)}
        shared = Shared(Message(None, None, self.name, "presence_diff", payload))
        diff = Diff(joins, leaves, shared)
        for member in self._members:
            member.on_diff(diff)


_REFS = ("phx_ref", "phx_ref_prev")


def same_payload(meta: Meta, payload: Meta) -> bool:
    """Whether `payload`, tracked, would make the same meta again, but for its refs.

    Compared as JSON, since to Python `1` and `true` are equal. The order of the fields makes no difference,
    that of fields within fields does.
    """
    return _plain(meta) == _plain(payload)


def _plain(meta: Meta) -> Raw:
    return encode_payload({name: meta[name] for name in sorted(meta) if name not in _REFS})


def _by_key(metas: Iterable[Tracked]) -> dict[str, dict[str, list[Raw]]]:
    grouped: dict[str, dict[str, list[Raw]]] = {}
    for tracked in metas:
        grouped.setdefault(tracked.key, {"metas": []})["metas"].append(Raw(tracked.wire))
    return grouped
