"""The host of a client: what its application wants, how it reaches the hub, and who watches it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from presence_proto.client import PresenceClient
from presence_proto.realtime import RealtimeClient
from presence_proto.testing.sim.host import Host
from presence_proto.testing.sim.laws import ALIVE, VIEW
from presence_proto.testing.sim.watch import ChannelWatch, RoomWatch, Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from presence_proto.testing.sim.link import End
    from presence_proto.testing.sim.post import MessageLog
    from presence_proto.testing.sim.stage import Stage


class ClientHost(Host):
    """Where a client runs. `on_event` gets its events, after they were checked, and may call `do`.

    `patience`: seconds after which every command must have an outcome. `hears_chat`: whether its protocol has
    chat. `has_grace`: whether its `restart_grace` is on.
    """

    def __init__(
        self,
        name: str,
        endpoint: Any,
        stage: Stage,
        post: MessageLog,
        *,
        clock: float,
        patience: float,
        hears_chat: bool = True,
        has_grace: bool = True,
        on_event: Callable[[Any], None] | None = None,
    ) -> None:
        super().__init__(name, endpoint, stage, clock=clock)
        self.hears_chat = hears_chat
        self.has_grace = has_grace
        self.patience = patience
        self.wanted = False  # the application wants to be connected
        self.connects = "ok"  # or "refuse", "hang", "slow": what its network does to connects
        self.watch: Watch | None = None
        if isinstance(endpoint, PresenceClient):
            self.watch = RoomWatch(self, endpoint, stage, post)
        elif isinstance(endpoint, RealtimeClient):
            self.watch = ChannelWatch(self, endpoint, stage)
        self._on_event = on_event
        self._seen = -1  # the version of the truth that our view was compared with

    @property
    def end(self) -> End | None:
        """Our end of the link, if there is one, or one is being made."""
        return next(iter(self.ends.values()), None)

    def do(self, command: str, *args: Any, **kwargs: Any) -> Any:
        """Call a command of the client, now, and carry out what comes of it. Returns what it returns."""
        result = self._call(command, args, kwargs)
        if command in ("connect", "disconnect"):
            self.wanted = command == "connect"
        elif self.watch is not None:
            self.watch.commanded(command, args, kwargs, result)
        self.settle()
        return result

    def settled(self, outputs: list[Any], happened: list[Any], sent: float | None) -> None:
        """Judge what has happened, then tell the application."""
        watch = self.watch
        if happened:
            self._stage.stats.events += len(happened)
            for event in happened:
                self._log.note(self.name, "reports {}", event)
            self._seen = -1
            if watch is not None:
                watch.happened(happened, sent)
        if watch is not None and sent is not None and self._seen != self._stage.hub.truth.version:
            self._compare(watch)
        if self._deadline is None and not self.endpoint.is_closed:
            self.broke(ALIVE, "it has no deadline, and is not closed")
        if happened and self._on_event is not None:
            for event in happened:
                self._on_event(event)

    def _compare(self, watch: Watch) -> None:
        """If all that the hub has sent is here, we must see what the hub sees."""
        end = self.end
        if end is not None and end.peer.is_through:
            self._seen = self._stage.hub.truth.version
            wrong = watch.wrong_view()
            if wrong is not None:
                self.broke(VIEW, wrong)
