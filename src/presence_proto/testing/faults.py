"""What can be wrong with a hub, and the sessions of one with which it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from presence_proto.hub.handshake import Refusal
from presence_proto.hub.jarvis import JarvisSession
from presence_proto.hub.phoenix import PhoenixSession
from presence_proto.hub.rates import TOO_MANY_MESSAGES, Bucket
from presence_proto.hub.supabase import SupabaseMember
from presence_proto.json_text import decode_object

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from presence_proto.hub.topic import EncodedMessage, SharedMessage
    from presence_proto.serializer import Message


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
