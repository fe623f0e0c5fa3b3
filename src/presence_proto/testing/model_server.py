"""`ModelServer`: a Supabase or Phoenix server that knows which presence the client must hold."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from attrs import define

from presence_proto.events import ChannelLeft
from presence_proto.testing.contract import Fold, fold_of
from presence_proto.testing.scripted_servers import ScriptedServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from presence_proto.presence import Meta
    from presence_proto.serializer import Message
    from presence_proto.websocket import BinaryMessage, TextMessage

Entries = dict[str, dict[str, "Meta"]]  # key -> phx_ref -> meta


@define(eq=False)
class Device:
    """One presence of a user in a topic. `ref` is the `phx_ref` of its meta, or `None` when offline."""

    topic: str
    key: str
    ref: str | None


@define(eq=False)
class ServerJoin:
    """The server's record of one join of a channel."""

    topic: str
    join_ref: Any
    key: str
    config: Mapping[str, Any]
    own: Device | None = None
    token: str | None = None

    @property
    def has_presence(self) -> bool:
        """Whether the server sends presence to the client. Always true for a plain Phoenix channel."""
        return bool(self.config.get("presence", {"enabled": True})["enabled"])


class ModelServer(ScriptedServer):
    """`ScriptedServer` that automatically behaves like a correct server.

    The server accepts connections, replies to messages, sends presence states and diffs, and stores the
    client's own presence. After `stall`, the server is slow: heartbeats wait behind a join, as on Phoenix.
    `say` and the other methods of `ScriptedServer` can send incorrect messages.

        server = ModelServer(client)
        server.do(client.connect)
        ann = server.track("realtime:lobby", "ann", {"mood": "calm"})
        server.cut()
        server.advance(1.0)      # the client reconnects
        server.check()           # the folded events equal the client's state
        assert {**client.presence("realtime:lobby")} == server.expected("realtime:lobby")

    `presence` holds the correct presence of each topic: key -> phx_ref -> meta, latest last. The server
    replies to a push with `ok` and the payload of the push.
    """

    def __init__(
        self, client: Any, *, now: float = 1000.0, deflate: bool = False, chunk: int | None = None
    ) -> None:
        super().__init__(client, now=now, deflate=deflate, chunk=chunk)
        self.fold: Fold = fold_of(client)
        self.presence: dict[str, Entries] = {}
        self.channels: dict[str, ServerJoin] = {}  # topic -> current join on this connection
        self.joins: dict[str, list[Any]] = {}  # topic -> join_refs of all joins on this connection
        self.unanswered: deque[Message] = deque()
        self.refusals: deque[int] = deque()  # HTTP statuses for the next upgrade requests
        self.calls: list[tuple[Any, Any]] = []  # the steps `Call` that did not raise, and their results
        self.stalls = False  # the server reads, but neither accepts nor replies
        self.dead = False  # no bytes arrive on either side
        # Joins that wait for their presence_state, taken at the time of the join. Diffs may overtake this
        # state.
        self._owed: deque[tuple[ServerJoin, Any]] = deque()
        self._asked: dict[str, Any] = {}  # topic -> join_ref of the client's latest join
        self._seen: set[str] = set()  # topics whose state and diffs the client receives
        self._stale: dict[str, Entries] = {}  # topic -> presence that the client saw last, if not in `_seen`
        self._last_diff: tuple[str, Any] | None = None
        self._refs = 0
        self._followed = 0  # number of events that `fold` has followed
        self._busy = False
        self._collects = False  # diffs wait for the end of `one_diff`

    # ---------------------------------------------------------------- presence

    def track(self, topic: str, key: str, meta: Mapping[str, Any] | None = None) -> Device:
        """Bring a device of a user online."""
        device = Device(topic, key, None)
        self._track(device, meta or {})
        return device

    def retrack(self, device: Device, meta: Mapping[str, Any]) -> None:
        """Replace the meta of a device. Do nothing after the device has left."""
        if self._is_online(device):
            self._track(device, meta)

    def untrack(self, device: Device) -> None:
        """Take a device offline. Do nothing after the device has left."""
        if self._is_online(device):
            left = self._remove(device)
            self._diff(device.topic, {}, _entry(device.key, left))

    @contextmanager
    def one_diff(self) -> Iterator[None]:
        """Merge the diffs of a `with` block into one diff for each topic, as a presence window does."""
        before = {topic: _copied(entries) for topic, entries in self.presence.items()}
        self._collects = True
        try:
            yield
        finally:
            self._collects = False
            for topic in [*self.presence]:
                old, new = before.get(topic, {}), self.presence[topic]
                joins, leaves = _minus(new, old), _minus(old, new)
                if joins or leaves:
                    self._diff(topic, joins, leaves)

    @contextmanager
    def one_read(self) -> Iterator[None]:
        """Deliver all bytes that the server sends in a `with` block at once."""
        was_silent, self.silent = self.silent, True
        try:
            yield
        finally:
            if not was_silent:
                self.release()

    def online(self, topic: str) -> dict[str, tuple[Meta, ...]]:
        """Return the presence of a topic as `Hub.online` and `PresenceMap` do: key -> metas, latest last."""
        return _metas(self.presence.get(topic, {}))

    def expected(self, topic: str) -> dict[str, tuple[Meta, ...]]:
        """Return the presence that the client must hold: if `sees(topic)` the current, else the last seen."""
        return self.online(topic) if self.sees(topic) else _metas(self._stale.get(topic, {}))

    def sees(self, topic: str) -> bool:
        """Whether the client has received the state of the topic and receives every diff."""
        return topic in self._seen

    def has_joined(self, topic: str) -> bool:
        """Whether the client's latest join of the topic is the server's current join of the topic."""
        return (
            topic in self._asked
            and topic in self.channels
            and self._asked[topic] == self.channels[topic].join_ref
        )

    @property
    def rejoined(self) -> list[str]:
        """The topics that the client has joined more than once on this connection."""
        return [topic for topic, joins in self.joins.items() if len(joins) > 1]

    # ---------------------------------------------------------------- behavior

    def connect(self) -> None:
        """Call the client's `connect`. The server accepts the connection, except during a stall."""
        self.do(self.client.connect)

    def stall(self) -> None:
        """Stop accepting connections and replying to messages."""
        self.stalls = True

    def serve(self) -> None:
        """Process all waiting tasks, and end the stall."""
        self.stalls = False
        self.exchange()

    def serve_one(self, *, latest: bool = False) -> None:
        """Begin or continue a stall, but process the oldest waiting task.

        With `latest`, process the last message of the client instead, if that message is a push.
        """
        self.stalls = True
        if latest and self.is_open and self.unanswered and self._is_push(self.unanswered[-1]):
            self._answer(self.unanswered.pop())
        else:
            self._do_next()

    def deny(self) -> None:
        """Reply to the oldest waiting push with an error. Do nothing when no push waits."""
        push = next(filter(self._is_push, self.unanswered), None)
        if push is not None and self.is_open:
            self.unanswered.remove(push)
            self.reply(push, "error", {"reason": "denied"})

    def crash(self, topic: str, event: str = "phx_error") -> None:
        """End the channel with `phx_error` or `phx_close`. Do nothing when the channel is not joined."""
        channel = self._end(topic)
        if channel is not None:
            self.say(channel.join_ref, channel.join_ref, topic, event, {})

    def echo(self, topic: str, event: str = "phx_close") -> None:
        """Send `event` for the previous join of the topic. Do nothing if the client joined only once."""
        earlier = self.joins.get(topic, [])[:-1]
        if earlier and self.is_open:
            payload = {"status": "ok", "response": {}} if event == "phx_reply" else {}
            self.say(earlier[-1], earlier[-1], topic, event, payload)

    def repeat_diff(self) -> None:
        """Send the last diff again. Do nothing when no diff was sent."""
        if self._last_diff is not None:
            self._tell_diff(*self._last_diff)

    def cut(self, reason: str = "eof") -> None:
        """End the open transport or the connection attempt. The server notices the end at once."""
        self.hang_up()
        super().cut(reason)

    def restart(self) -> None:
        """Delete all presence and end the current transport, if any, as a restart of the server does."""
        self.hang_up(noticed=False)
        self.presence.clear()
        self._last_diff = None
        if self.conn is not None:
            self.cut()

    def die(self) -> None:
        """Let the network fail silently. The client must detect the failure on its own."""
        self.hang_up()
        self.dead = self.silent = True

    def hang_up(self, *, noticed: bool = True) -> list[Device]:
        """End all joins of this connection, and drop its waiting messages.

        If `noticed`, the client's own presences leave. Otherwise, these presences stay online and are
        returned.
        """
        own = [channel.own for channel in self.channels.values() if channel.own is not None]
        for topic in [*self._asked]:
            self._lose_sight(topic)
        self.channels.clear()
        self.joins.clear()
        self.unanswered.clear()
        self._owed.clear()
        self._asked.clear()
        if noticed:
            for device in own:
                self.untrack(device)
        return [] if noticed else own

    def check(self) -> None:
        """Raise `ContractError` unless the state rebuilt from the events equals the client's state."""
        self.fold.check()

    # ---------------------------------------------------------------- the connection

    def exchange(self) -> None:
        """Deliver bytes and process tasks on both sides until no bytes and no tasks are left."""
        super().exchange()
        while not self._busy and not self.stalls and self._do_next():
            pass

    def heard(self, frame: TextMessage | BinaryMessage) -> None:
        """Queue a message from the client. The server processes queued messages later."""
        super().heard(frame)
        message = self.received[-1]
        if message.topic == "phoenix" or self.dead:
            return
        self.unanswered.append(message)
        if message.event in ("phx_join", "phx_leave"):
            self._lose_sight(message.topic)
        if message.event == "phx_join":
            self._asked[message.topic] = message.ref
            self.joins.setdefault(message.topic, []).append(message.ref)

    def _answer_heartbeat(self, message: Message) -> None:
        # A heartbeat waits behind a waiting join: a Phoenix socket processes one message at a time.
        if any(waiting.event == "phx_join" for waiting in self.unanswered):
            self.unanswered.append(message)
        else:
            super()._answer_heartbeat(message)

    def _drain(self) -> None:
        super()._drain()
        for event in self.events[self._followed :]:
            self.fold.follow(event)
            if isinstance(event, ChannelLeft):
                self._stale.pop(event.topic, None)
        self._followed = len(self.events)

    def _forget(self) -> None:
        self.hang_up()
        self.dead = self.silent = False
        super()._forget()

    def _do_next(self) -> bool:
        """Process one waiting connection, presence state or message. Return whether a task was waiting."""
        self._busy = True
        try:
            if self.conn is not None and self.server is None:
                self.refuse(self.refusals.popleft()) if self.refusals else self.open()
            elif self._owed and self.is_open:
                self._welcome(*self._owed.popleft())
            elif self.unanswered and self.is_open:
                self._answer(self.unanswered.popleft())
            else:
                return False
        finally:
            self._busy = False
        return True

    # ---------------------------------------------------------------- replies

    def _is_push(self, message: Message) -> bool:
        channel = self.channels.get(message.topic)
        known = channel is not None and channel.join_ref == message.join_ref
        return known and message.event not in _NO_PUSHES

    def _answer(self, message: Message) -> None:
        topic, payload = message.topic, message.payload
        channel = self.channels.get(topic)
        if topic == "phoenix":
            super()._answer_heartbeat(message)
            self.exchange()
        elif message.event == "phx_join":
            self._let_in(message)
        elif channel is None:
            response = {} if message.event == "phx_leave" else {"reason": "unmatched topic"}
            self.reply(message, "ok" if message.event == "phx_leave" else "error", response)
        elif message.join_ref != channel.join_ref:
            pass  # for an earlier join
        elif message.event == "phx_leave":
            self.reply(message)
            self.crash(topic, "phx_close")
        elif message.event == "access_token":
            channel.token = payload["access_token"]
        elif message.event == "presence":
            self._own(channel, payload.get("payload") if payload["event"] == "track" else None)
            self.reply(message)
        elif message.event in ("track", "untrack"):
            self._own(channel, payload if message.event == "track" else None)
            self.reply(message)
        elif message.event != "broadcast" or channel.config["broadcast"]["ack"]:
            self.reply(message, "ok", payload if isinstance(payload, dict) else {})

    def _let_in(self, join: Message) -> None:
        payload, old = join.payload, self._end(join.topic)
        config = payload.get("config", {})
        key = config["presence"]["key"] if config else payload.get("user_id")
        channel = ServerJoin(
            join.topic, join.ref, key or f"key-{join.ref}", config, token=payload.get("access_token")
        )
        self.channels[join.topic] = channel
        if channel.has_presence:
            state = {key: {"metas": metas} for key, metas in self.online(channel.topic).items()}
            self._owed.append((channel, state))
        self.reply(join)
        if old is not None and self.is_open:
            self.say(old.join_ref, old.join_ref, join.topic, "phx_close", {})

    def _welcome(self, channel: ServerJoin, state: Any) -> None:
        if self.channels.get(channel.topic) is not channel:
            return
        if self.has_joined(channel.topic):
            self._seen.add(channel.topic)
        self.say(channel.join_ref, None, channel.topic, "presence_state", state)

    def _own(self, channel: ServerJoin, meta: Mapping[str, Any] | None) -> None:
        """Track `meta` as the client's own presence, or untrack if `meta` is `None`."""
        if meta is None:
            if channel.own is not None:
                self.untrack(channel.own)
            channel.own = None
        elif channel.own is None:
            channel.own = self.track(channel.topic, channel.key, meta)
        else:
            held = self.presence[channel.topic][channel.own.key][str(channel.own.ref)]
            if {name: held[name] for name in held if name not in _REFS} != meta:
                self.retrack(channel.own, meta)

    # ---------------------------------------------------------------- bookkeeping

    def _end(self, topic: str) -> ServerJoin | None:
        """End a join, and untrack the client's own presence in the topic."""
        channel = self.channels.pop(topic, None)
        if channel is not None:
            if self._asked.get(topic) == channel.join_ref:
                self._lose_sight(topic)
            if channel.own is not None:
                self.untrack(channel.own)
        return channel

    def _lose_sight(self, topic: str) -> None:
        self._asked.pop(topic, None)
        if topic in self._seen:
            self._seen.remove(topic)
            self._stale[topic] = _copied(self.presence.get(topic, {}))

    def _is_online(self, device: Device) -> bool:
        return device.ref in self.presence.get(device.topic, {}).get(device.key, {})

    def _track(self, device: Device, meta: Mapping[str, Any]) -> None:
        self._refs += 1
        refs = {"phx_ref": f"r{self._refs}"}
        leaves: Any = {}
        if device.ref is not None:
            refs["phx_ref_prev"] = device.ref
            leaves = _entry(device.key, self._remove(device))
        device.ref = refs["phx_ref"]
        tracked = {**meta, **refs}
        self.presence.setdefault(device.topic, {}).setdefault(device.key, {})[device.ref] = tracked
        self._diff(device.topic, _entry(device.key, tracked), leaves)

    def _remove(self, device: Device) -> Meta:
        entries, ref = self.presence[device.topic], str(device.ref)
        device.ref = None
        meta = entries[device.key].pop(ref)
        if not entries[device.key]:
            del entries[device.key]
        return meta

    def _diff(self, topic: str, joins: Any, leaves: Any) -> None:
        if not self._collects:
            self._last_diff = topic, {"joins": joins, "leaves": leaves}
            self._tell_diff(*self._last_diff)

    def _tell_diff(self, topic: str, payload: Any) -> None:
        channel = self.channels.get(topic)
        if channel is not None and channel.has_presence and self.is_open:
            self.say(None, None, topic, "presence_diff", payload)


_REFS = ("phx_ref", "phx_ref_prev")
_NO_PUSHES = ("phx_join", "phx_leave", "access_token", "presence", "track", "untrack")


def _entry(key: str, meta: Meta) -> dict[str, Any]:
    return {key: {"metas": [meta]}}


def _copied(entries: Entries) -> Entries:
    return {key: {**metas} for key, metas in entries.items()}


def _minus(one: Entries, other: Entries) -> dict[str, Any]:
    """Return the metas of `one` that are not in `other`, as in a payload."""
    left = {key: [metas[ref] for ref in metas if ref not in other.get(key, {})] for key, metas in one.items()}
    return {key: {"metas": metas} for key, metas in left.items() if metas}


def _metas(entries: Entries) -> dict[str, tuple[Meta, ...]]:
    return {key: tuple(metas.values()) for key, metas in entries.items()}
