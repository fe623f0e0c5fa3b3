"""What can be wrong with a hub, and the sessions of one with which it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from presence_proto.hub.handshake import Refusal
from presence_proto.hub.jarvis import JarvisSession
from presence_proto.hub.phoenix import PhoenixSession
from presence_proto.hub.supabase import SupabaseMember
from presence_proto.serializer import decode_object

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from presence_proto.hub.topic import Form, Shared
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
    presence_limit: int | None = None  # calls of track and untrack in 30 seconds
    broadcast_limit: int | None = None  # in one second
    delay: float = 0.0  # seconds
    frozen: bool = False


_LIMITED = {
    "presence": (30.0, "Client presence rate limit exceeded"),
    "broadcast": (1.0, "Too many messages per second"),
}
"""The events that have a limit: in how many seconds they are counted, and what Supabase says."""


class FaultyPhoenixSession(PhoenixSession):
    """A Phoenix socket with the `faults` of its hub."""

    __slots__ = ("_calls", "_faults")

    def __init__(self, faults: Callable[[], Faults], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._faults = faults
        self._calls: dict[tuple[str, str], list[float]] = {}  # when, by topic and event: of the last seconds

    def _on_message(self, message: Message) -> None:
        faults, event = self._faults(), message.event
        if event == "phx_join":
            if faults.joins_ignored:
                return
            for limited in _LIMITED:
                self._calls.pop((message.topic, limited), None)
        elif message.topic == "phoenix" and event == "heartbeat":
            if faults.heartbeats_muted:
                return
        elif event in _LIMITED and self._is_member(message):
            limit = faults.presence_limit if event == "presence" else faults.broadcast_limit
            seconds, reason = _LIMITED[event]
            if limit is not None and self._calls_within(seconds, message) > limit:
                self.stop(message.topic, reason, crashed=False)
                return
        super()._on_message(message)

    def _is_member(self, message: Message) -> bool:
        """Whether the message is of the channel as it is now. Only Supabase has limits."""
        channel = self._channels.get(message.topic)
        return isinstance(channel, SupabaseMember) and message.join_ref in (None, channel.ref)

    def _calls_within(self, seconds: float, message: Message) -> int:
        """How many calls like this one there were, this one included."""
        now, key = self.topics.clock.now, (message.topic, message.event)
        recent = [at for at in self._calls.get(key, ()) if now - at < seconds]
        self._calls[key] = [*recent, now]
        return len(recent) + 1

    def send(self, message: Message) -> None:
        """Send a message, unless it is to be withheld."""
        if message.event != "presence_state" or not self._faults().states_withheld:
            super().send(message)

    def send_shared(self, shared: Shared) -> None:
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

    def send_shared(self, form: Form) -> None:
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
