"""A Supabase Realtime channel, `realtime:…`: presence, broadcasts and tokens as its server has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from zlib import crc32

from presence_proto.hub.allowance import MetaTooLargeError, NoRoomError
from presence_proto.hub.member import JoinRefusedError, PhoenixMember, ask, authorize, join_request
from presence_proto.hub.rates import TOO_MANY_JOINS, TOO_MANY_MESSAGES, Bucket
from presence_proto.hub.topic import Diff, broadcast_in, said, same_payload
from presence_proto.hub.topics import JARVIS_TOPIC, SUPABASE_PREFIX
from presence_proto.json_text import encode_payload
from presence_proto.payloads import NAMED_EVENTS
from presence_proto.serializer import Message, UserBroadcast

if TYPE_CHECKING:
    from presence_proto.hub.member import ChannelSocket

_WINDOW = 30.0  # seconds, in which `presence_limit` presence calls are allowed
_CODE = re.compile(r"[A-Z][A-Za-z]+: ")  # in front of the reason of a refused join, and of that only


class SupabaseMember(PhoenixMember):
    """A member by the config in its join. It is present once it tracks.

    A channel is private when its join says so: then `HubConfig.private_rule` says whether the client may
    write. Supabase's own words are sent as they were recorded, or as they are in its source
    (`realtime_channel.ex`, `presence_handler.ex`).
    """

    TOO_MANY = "ChannelRateLimitReached: Too many channels"
    TOO_MANY_JOINS = TOO_MANY_JOINS

    __slots__ = (
        "_ack",
        "_asked_key",
        "_calls",
        "_echo",
        "_hears_diffs",
        "_is_named",
        "_key",
        "_may_write",
        "_presence",
        "_private",
        "_token",
    )

    def __init__(self, session: ChannelSocket, message: Message) -> None:
        """Raises `JoinRefusedError`."""
        super().__init__(session, message)
        if self.name == SUPABASE_PREFIX:
            raise JoinRefusedError("TopicNameRequired: You must provide a topic name")
        payload = message.payload
        if not isinstance(payload, Mapping):
            raise JoinRefusedError(
                f"UnknownErrorOnChannel: expected params to be a :map, got: `{_inspect(payload)}`"
            )
        config = _object(payload, "config")
        broadcast, presence = _object(config, "broadcast"), _object(config, "presence")
        self._ack = _boolean(broadcast, "ack")
        self._echo = _boolean(broadcast, "self")
        self._presence = _boolean(presence, "enabled")  # whether we are told the state
        self._private = _boolean(config, "private")
        # Diffs come unasked; on a private channel only after a track, which asks for the right to read them.
        self._hears_diffs = self._presence or not self._private
        self._calls = Bucket(_WINDOW)  # of presence calls
        token = payload.get("access_token") or payload.get("user_token")  # the older name
        self._token = _digest(token)  # all that is needed of it later, and short
        key = presence.get("key")
        self._asked_key = key if isinstance(key, str) and key else None
        key = self._authorized(token)
        # With a rule that knows who is who, nobody speaks for somebody else. Supabase looks at no names.
        rule = session.topics.config.authorize
        self._is_named = rule is not None and self.name == JARVIS_TOPIC
        self._may_write = True
        if not self._allow(token):
            raise JoinRefusedError(f"Unauthorized: {self._no_permission}")
        _check_replay(broadcast, private=self._private)
        self._key = session.topics.ids.key() if key is None else key

    @property
    def key(self) -> str:
        """The presence key that the client asked for, that the rule gave, or that is made up."""
        return self._key

    @property
    def size(self) -> int:
        """Bytes that the channel counts: its names, and the key that the client asked for in vain."""
        asked = self._asked_key or self._key
        return super().size + (0 if asked == self._key else len(asked.encode()))

    def response(self, message: Message) -> Mapping[str, Any]:
        """The asked for `postgres_changes`, each with an id."""
        changes = _postgres_changes(message)
        return {"postgres_changes": [{"id": _id_of(change)} | change for change in changes]}

    def enter(self, message: Message) -> None:
        """The join `message` is answered: become a member."""
        # An earlier life of the channel may have left just now: Supabase does not tell the new one of it.
        self._session.topics.settle()
        super().enter(message)

    def welcome(self, message: Message) -> None:
        """The presence, if it is enabled. There is no database, but what would come of it is confirmed."""
        if _boolean(_object(_object(message.payload, "config"), "broadcast"), "replication_ready"):
            self._system("ok", "Replication connection established")
        if self._presence:
            self.push("presence_state", self._topic.state())
        if _postgres_changes(message):
            self._system("ok", "Subscribed to PostgreSQL", "postgres_changes")

    def receive(self, message: Message) -> None:
        """Handle a presence call, a broadcast or a new token. Supabase does not answer anything else."""
        match message.event:
            case "presence":
                self._on_presence(message)
            case "broadcast":
                self._on_broadcast(message)
            case "access_token":
                self._on_token(message)

    def on_diff(self, diff: Diff) -> None:
        """Pass a change of the presence on."""
        if self._hears_diffs:
            self._session.send_shared(diff.shared)  # as all do; not by `super()`, for each receiver

    def stop(self, reason: str, *, crashed: bool) -> None:
        """The hub ends the channel. Supabase tells why before it closes one."""
        if not crashed:
            self._system("error", reason)
        super().stop(reason, crashed=crashed)

    # -- broadcasts

    def _on_broadcast(self, message: Message) -> None:
        if not self._may_write:
            return  # in silence, also when an ack was asked for
        payload = message.payload
        if isinstance(payload, UserBroadcast):
            # Metadata is the server's word to receivers: what a client says there goes no further.
            payload = UserBroadcast(payload.event, payload.payload)
        if self._is_named and self._names_another(payload):
            if self._ack:
                self.reply(message, "error", {"reason": "user_id is not the presence key of the sender"})
            return
        shared = said(self.name, "broadcast", payload)
        if shared.size > self._session.topics.config.max_payload_size:
            if self._ack:
                self.reply(message, "error", "payload_size_exceeded")
            return
        if not self._session.rates.allow_delivery(self._topic, shared.size):
            self.stop(TOO_MANY_MESSAGES, crashed=False)
            return
        self._topic.broadcast(shared, speaker=self._key, skip=None if self._echo else self)
        if self._ack:
            self.reply(message, "ok", {})

    def _names_another(self, payload: Any) -> bool:
        """Whether a broadcast of the Jarvis system is in the name of somebody else."""
        event, fields = broadcast_in(payload)
        return event in NAMED_EVENTS and fields.get("user_id") != self._key

    # -- presence

    def _on_presence(self, message: Message) -> None:
        call = message.payload
        if not isinstance(call, Mapping) or "event" not in call:
            self.reply(message, "ok", {})
            return
        if not self._within_limit():
            self.stop("Client presence rate limit exceeded", crashed=False)
            return
        event = call["event"]
        match event.lower() if isinstance(event, str) else None:
            case "track" if self._may_write:
                self._track(message, call.get("payload", {}))
            case "untrack":
                self._topic.untrack(self)
                self.reply(message, "ok", {})
            case _:
                self.reply(message, "error", {})

    def _track(self, message: Message, meta: object) -> None:
        if not isinstance(meta, Mapping):
            self.reply(message, "error", {"reason": "Presence track payload must be a map"})
            return
        held = self._topic.tracked(self)
        if held is None or not same_payload(held.meta, meta):
            try:
                self._topic.track(self, self._key, meta, self._session.allowance)
            except MetaTooLargeError:
                self.stop("Track message size exceeded", crashed=False)
                return
            except NoRoomError as exc:
                self.stop(f"Track refused: {exc}", crashed=False)
                return
        self._hears_diffs = True
        self.reply(message, "ok", {})

    def _within_limit(self) -> bool:
        """Count one more presence call."""
        limit = self._session.presence_limit
        return limit is None or self._calls.take(limit, self._session.topics.clock.now)

    # -- tokens

    def _on_token(self, message: Message) -> None:
        token = message.payload.get("access_token") if isinstance(message.payload, Mapping) else None
        if not isinstance(token, str) or _digest(token) == self._token or token.startswith("sb_"):
            return  # an API key of the new kind, `sb_…`, is not a user's token
        try:
            if self._authorized(token) not in (None, self._key):
                raise JoinRefusedError("The access token is for another presence key")
            if not self._allow(token):
                raise JoinRefusedError(self._no_permission)
        except JoinRefusedError as refused:
            if refused.is_crash:
                self.stop("crashed" + refused.detail, crashed=True)
            else:
                self.stop(_CODE.sub("", refused.reason, count=1), crashed=False)
        else:
            self._token = _digest(token)

    def _allow(self, token: object) -> bool:
        """Set what a client with this token may do, and tell whether it may do anything.

        Raises `JoinRefusedError` when the rule fails.
        """
        rule = self._session.topics.config.private_rule
        if self._private and rule is not None:
            access = ask(rule, self.name, token if isinstance(token, str) else None)
            if access not in ("read", "write", None):
                raise JoinRefusedError("join crashed", f" (the private rule's answer is {access!r:.100})")
            self._may_write = access == "write"
            return access is not None
        return True

    @property
    def _no_permission(self) -> str:
        channel = self.name.removeprefix(SUPABASE_PREFIX)
        return f"You do not have permissions to read from this Channel topic: {channel}"

    def _authorized(self, token: object) -> str | None:
        """The presence key for a client with this token, if there is one. Raises `JoinRefusedError`."""
        rule = self._session.topics.config.authorize
        return authorize(rule, join_request(self.name, token, self._asked_key))

    def _system(self, status: str, text: str, extension: str = "system") -> None:
        channel = self.name.removeprefix(SUPABASE_PREFIX)
        self.push("system", {"channel": channel, "extension": extension, "message": text, "status": status})


def _digest(token: object) -> bytes | None:
    return blake2b(token.encode()).digest() if isinstance(token, str) else None


def _object(payload: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of the join's payload, which may be missing. Raises `JoinRefusedError`."""
    value = payload.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise JoinRefusedError("UnknownErrorOnChannel: no function clause matching in Access.get/3")
    return value


def _boolean(payload: Mapping[str, Any], name: str) -> bool:
    value = payload.get(name)
    return value is True or (isinstance(value, str) and value.lower() in ("true", "1"))


def _check_replay(broadcast: Mapping[str, Any], *, private: bool) -> None:
    """Refuse what Supabase refuses; see `maybe_replay_messages` in its `realtime_channel.ex`.

    Nothing is replayed: Supabase stores what its database sends, and the hub has none.

    Raises `JoinRefusedError`.
    """
    if "replay" not in broadcast:
        return
    if not private:
        raise JoinRefusedError("UnableToReplayMessages: Replay is not allowed for public channels")
    replay = broadcast["replay"]
    if isinstance(replay, Mapping):
        for value in (replay.get("since"), replay.get("limit")):
            if value not in (None, False) and (isinstance(value, bool) or not isinstance(value, int)):
                raise JoinRefusedError("UnableToReplayMessages: Replay params are not valid")


def _postgres_changes(message: Message) -> list[dict[str, Any]]:
    """What the join subscribes to. One without a config is of an old client: the topic names a table."""
    if "config" not in message.payload:
        parts = message.topic.removeprefix(SUPABASE_PREFIX).split(":", 2)
        return [dict(zip(("schema", "table", "filter"), parts, strict=False))]
    changes = _object(message.payload, "config").get("postgres_changes")
    return [change for change in changes if isinstance(change, dict)] if isinstance(changes, list) else []


def _inspect(payload: object) -> str:
    """Roughly what Elixir's `inspect` shows of a payload."""
    if isinstance(payload, bytes):
        return f"<<{', '.join(map(str, payload[:50]))}>>"
    return "nil" if payload is None else bytes(encode_payload(payload)).decode()[:100]


def _id_of(change: dict[str, Any]) -> int:
    # Like the server's, the id is a hash of the change, of 27 bits.
    return crc32(bytes(encode_payload(change))) & 0x7FFFFFF
