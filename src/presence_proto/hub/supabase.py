"""A Supabase Realtime channel, `realtime:…`: presence, broadcasts and tokens as its server has them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from zlib import crc32

from presence_proto.hub.member import PhoenixMember, Refused, objection
from presence_proto.hub.topic import Diff, said, same_payload
from presence_proto.hub.topics import SUPABASE_PREFIX
from presence_proto.serializer import Message, UserBroadcast, encode_payload

if TYPE_CHECKING:
    from presence_proto.hub.phoenix import PhoenixSession

_LIMIT_SECONDS = 30.0


class SupabaseMember(PhoenixMember):
    """A member by the config in its join. It is present once it tracks."""

    __slots__ = ("_ack", "_calls", "_echo", "_key", "_presence")

    def __init__(self, session: PhoenixSession, message: Message) -> None:
        """Raises `Refused`."""
        super().__init__(session, message)
        if self.name == SUPABASE_PREFIX:
            raise Refused("TopicNameRequired: You must provide a topic name")
        payload = message.payload
        config = _object(payload, "config")
        broadcast, presence = _object(config, "broadcast"), _object(config, "presence")
        self._ack = _boolean(broadcast, "ack")
        self._echo = _boolean(broadcast, "self")
        self._presence = _boolean(presence, "enabled")  # whether we are told of it
        self._calls: deque[float] | None = None  # when the last presence calls came, if they are limited
        reason = self._objection(payload.get("access_token"))
        if reason is not None:
            raise Refused(reason)
        key = presence.get("key")
        self._key = key if isinstance(key, str) and key else session.topics.ids.key()

    @property
    def key(self) -> str:
        """The presence key, ours or made up."""
        return self._key

    def response(self, message: Message) -> Mapping[str, Any]:
        """The asked for `postgres_changes`, each with an id."""
        return {
            "postgres_changes": [{"id": _id_of(change)} | change for change in _postgres_changes(message)]
        }

    def welcome(self, message: Message) -> None:
        """The presence, if it is enabled. There is no database, but the subscription to it is confirmed."""
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
                payload = message.payload
                if isinstance(payload, UserBroadcast):
                    # Metadata is the server's word to receivers: what a client says there goes no further.
                    payload = UserBroadcast(payload.event, payload.payload)
                shared = said(self.name, "broadcast", payload)
                self._topic.broadcast(shared, speaker=self._key, skip=None if self._echo else self)
                if self._ack:
                    self.reply(message, "ok", {})
            case "access_token":
                self._on_token(message)

    def on_diff(self, diff: Diff) -> None:
        """Pass a change of the presence on. A client that disabled presence is spared, until it tracks."""
        if self._presence:
            super().on_diff(diff)

    def stop(self, reason: str, *, crashed: bool) -> None:
        """The hub ends the channel. Supabase tells why before it closes one."""
        if not crashed:
            self._system("error", reason)
        super().stop(reason, crashed=crashed)

    # -- presence

    def _on_presence(self, message: Message) -> None:
        if not self._within_limit():
            self.stop("Client presence rate limit exceeded", crashed=False)
            return
        call = message.payload if isinstance(message.payload, Mapping) else {}
        event = call.get("event")
        meta = call.get("payload", {})
        match event.lower() if isinstance(event, str) else None:
            case "track" if isinstance(meta, Mapping):
                held = self._topic.tracked(self)
                if held is None or not same_payload(held.meta, meta):
                    self._topic.track(self, self._key, meta)
                self._presence = True
                self.reply(message, "ok", {})
            case "untrack":
                self._topic.untrack(self)
                self.reply(message, "ok", {})
            case _:
                self.reply(message, "error", {})

    def _within_limit(self) -> bool:
        """Count one more presence call. Every one counts, also those that change nothing."""
        limit, now = self._session.topics.config.presence_limit, self._session.topics.clock.now
        if limit is None:
            return True
        if self._calls is None:
            self._calls = deque(maxlen=limit)
        exceeded = len(self._calls) == limit and now - self._calls[0] < _LIMIT_SECONDS
        self._calls.append(now)
        return not exceeded

    # -- tokens

    def _on_token(self, message: Message) -> None:
        token = message.payload.get("access_token") if isinstance(message.payload, Mapping) else None
        if not isinstance(token, str):
            return
        try:
            reason = self._objection(token)
        except Refused as refused:
            self.stop("crashed" + refused.detail, crashed=True)
        else:
            if reason is not None:
                self.stop(reason, crashed=False)

    def _objection(self, token: object) -> str | None:
        """Why this token does not do, or `None` when it does. Raises `Refused` when the rule fails."""
        return objection(self._session.topics.config.authorize, self.name, token)

    def _system(self, status: str, text: str, extension: str = "system") -> None:
        channel = self.name.removeprefix(SUPABASE_PREFIX)
        self.push("system", {"channel": channel, "extension": extension, "message": text, "status": status})


def _object(payload: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = payload.get(name)
    return value if isinstance(value, Mapping) else {}


def _boolean(payload: Mapping[str, Any], name: str) -> bool:
    value = payload.get(name)
    return value is True or (isinstance(value, str) and value.lower() in ("true", "1"))


def _postgres_changes(message: Message) -> list[dict[str, Any]]:
    changes = _object(message.payload, "config").get("postgres_changes")
    return [change for change in changes if isinstance(change, dict)] if isinstance(changes, list) else []


def _id_of(change: dict[str, Any]) -> int:
    # Like the server's, the id is a hash of the change, of 27 bits.
    return crc32(bytes(encode_payload(change))) & 0x7FFFFFF
