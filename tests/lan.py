"""Our own clients and a hub of ours, in one piece of memory and one virtual time."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from presence_proto.config import HubConfig, Identity, PresenceConfig
from presence_proto.endpoint import CloseTransport, ConnId, OpenTransport, SendData
from presence_proto.hub import Hub
from presence_proto.presence_client import PresenceClient
from presence_proto.realtime_client import RealtimeClient


@define(eq=False)
class Host:
    """A client, what it told, and its connection: the id that it has for itself, and the one for the hub."""

    lan: Lan
    client: Any  # PresenceClient or RealtimeClient
    events: list[Any] = field(factory=list)
    opens: int = 0
    cable: tuple[ConnId, ConnId] | None = None

    def do(self, command: Any, *args: Any) -> Any:
        """Make a command; all that follows from it at once has happened then."""
        result = command(*args, now=self.lan.now)
        self.lan.settle()
        return result

    def take(self) -> list[Any]:
        """The events since the last time."""
        events, self.events = self.events, []
        return events


class Lan:
    """Bytes arrive at once. A cut connection is noticed on both sides at once."""

    def __init__(self, config: HubConfig, hub_type: type[Hub] = Hub) -> None:
        self.hub = hub_type(config)
        self.now = 100.0
        self.hosts: list[Host] = []
        self._conns = 0

    def join(self, user_id: str, url: str, **settings: Any) -> Host:
        """A client that connects. Its name is the id with a capital letter."""
        config = PresenceConfig(server_url=url, **settings)
        return self.add(PresenceClient(Identity(user_id, user_id.title()), config))

    def add(self, client: PresenceClient | RealtimeClient) -> Host:
        """A client, which connects."""
        host = Host(self, client)
        self.hosts.append(host)
        host.do(host.client.connect)
        return host

    def cut(self, host: Host) -> None:
        """The client's connection is gone."""
        assert host.cable is not None
        (own, hubs), host.cable = host.cable, None
        self.hub.transport_closed(hubs, now=self.now)
        host.client.transport_closed(own, now=self.now)
        self.settle()

    def advance(self, seconds: float) -> None:
        """Let time pass, with a tick of everybody at every deadline."""
        end, ticks = self.now + seconds, 0
        while (deadline := self._deadline()) is not None and deadline <= end:
            ticks += 1
            assert ticks < 10_000, "it never comes to rest"
            self._tick(deadline)
        self._tick(end)

    def _tick(self, now: float) -> None:
        self.now = now
        self.hub.tick(now=now)
        for host in self.hosts:
            host.client.tick(now=now)
        self.settle()

    def _deadline(self) -> float | None:
        deadlines = [self.hub.next_deadline(), *(host.client.next_deadline() for host in self.hosts)]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def settle(self) -> None:
        """Bring everything where it belongs, until nothing moves."""
        moved = True
        while moved:
            moved = self._drain_hub()
            if self.hub.has_backlog:
                self.hub.tick(now=self.now)
                moved = True
            for host in self.hosts:
                moved |= self._drain(host)

    def _drain_hub(self) -> bool:
        moved = False
        while outputs := self.hub.drain():
            for output in outputs:
                moved = True
                if isinstance(output, (SendData, CloseTransport)):
                    for host in self.hosts:
                        if host.cable is not None and host.cable[1] == output.conn:
                            self._hear(host, host.cable[0], output)
        return moved

    def _hear(self, host: Host, own: ConnId, output: SendData | CloseTransport) -> None:
        if isinstance(output, SendData):
            host.client.receive_data(own, output.data, now=self.now)
        else:
            host.cable = None
            host.client.transport_closed(own, now=self.now)

    def _drain(self, host: Host) -> bool:
        moved = False
        while outputs := host.client.drain():
            for output in outputs:
                moved = True
                if isinstance(output, OpenTransport):
                    self._conns += 1
                    host.opens += 1
                    host.cable = output.conn, ConnId(self._conns)
                    self.hub.transport_opened(host.cable[1], now=self.now)
                    host.client.transport_opened(output.conn, now=self.now)
                elif isinstance(output, (SendData, CloseTransport)):
                    assert host.cable is None or host.cable[0] == output.conn
                    if host.cable is not None and isinstance(output, SendData):
                        self.hub.receive_data(host.cable[1], output.data, now=self.now)
                    elif host.cable is not None:
                        self.hub.transport_closed(host.cable[1], now=self.now)
                        host.cable = None
                else:
                    host.events.append(output)
        return moved
