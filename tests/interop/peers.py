"""A peer: one client in a room, whatever library it is. All are told to do the same and note the same.

Our own clients are here; those of node and PyPI have files of their own. The families differ in what a room
is: in a `supabase` room presence starts with a track and everything else is a broadcast; in a `plain` Phoenix
room presence comes with the join, and any event goes.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

from presence_adapters.asyncio import Channel, EventsDropped, JoinError, PushError, RealtimeClient
from presence_proto import (
    Broadcast,
    ChannelConfig,
    ChannelDown,
    ChannelJoined,
    ChannelMessage,
    JoinFailed,
    PresenceDiffed,
    PresenceSynced,
    ProtocolViolation,
    RealtimeConfig,
    SocketConnected,
    SocketDisconnected,
    SystemMessage,
    TrackFailed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

API_KEY = "a-key"
ROOMS = {"supabase": "realtime:lobby 🎈", "plain": "room:lobby 🎈"}

Roster = dict[str, list[dict[str, Any]]]  # by key: the metas, with their ref as "ref"


def roster_of(state: Mapping[str, Any]) -> Roster:
    """A presence state in one form, whichever library it is of: Supabase's rename the ref, and hide the
    previous one."""
    names = {"phx_ref": "ref", "presence_ref": "ref"}
    return {
        key: [
            {names.get(name, name): value for name, value in meta.items() if name != "phx_ref_prev"}
            for meta in metas
        ]
        for key, metas in state.items()
    }


async def until(condition: Callable[[], Any], what: str, *peers: Peer, seconds: float = 10.0) -> None:
    """Wait until a condition holds. Fails saying `what` did not happen, and what `peers` have noted."""
    try:
        async with asyncio.timeout(seconds):
            await asyncio.sleep(0)  # what has arrived is noted first
            while not condition():
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s: {what}; {peers}") from None


class Peer(ABC):
    """What a peer can do, and what it has noted.

    - `statuses`: of the channel, in the words of Supabase's clients; `details`: what came with each
    - `syncs`: the roster after each time that the presence was synced
    - `flips`: who came online and went offline, as `("online", key)`; an update is neither
    - `heard`: broadcasts, or in plain rooms messages, as `(event, payload)`
    - `systems`: payloads of Supabase's system messages
    - `opened`, `closed`: how often the socket opened, and the close codes that it ended with
    - `heartbeats`: how often a heartbeat was answered
    """

    family: str

    def __init__(self, name: str, url: str, vsn: str) -> None:
        self.name = name
        self.url = url
        self.vsn = vsn
        self.topic = ROOMS[self.family]
        self.statuses: list[str] = []
        self.details: list[Any] = []
        self.syncs: list[Roster] = [{}]
        self.flips: list[tuple[str, str]] = []
        self.heard: list[tuple[str, Any]] = []
        self.systems: list[dict[str, Any]] = []
        self.opened = 0
        self.closed: list[int | None] = []
        self.heartbeats = 0

    def __repr__(self) -> str:
        return f"<{self.name}: {self.statuses}, {self.closed}, {self.syncs[-1]}, {self.flips}, {self.heard}>"

    @property
    def roster(self) -> Roster:
        """Who is there, as of the last sync."""
        return self.syncs[-1]

    @property
    def is_in(self) -> bool:
        """Whether it is joined."""
        return self.statuses[-1:] == ["SUBSCRIBED"]

    @abstractmethod
    async def connect(self, *, heartbeat: float = 25.0, token: str | None = None) -> None:
        """Connect, and wait for it."""

    @abstractmethod
    async def ask_to_join(self, key: str, *, ack: bool = False, echo: bool = False) -> None:
        """Join the room under a presence key. `ack` and `echo`: Supabase's broadcast settings."""

    @abstractmethod
    async def track(self, meta: dict[str, Any]) -> None:
        """Be present with this meta."""

    @abstractmethod
    async def untrack(self) -> None:
        """Be absent, but stay in the room."""

    @abstractmethod
    async def say(self, event: str, payload: Any) -> str:
        """Broadcast, or in a plain room push. Returns the status of the answer."""

    @abstractmethod
    async def leave(self) -> None:
        """Leave the room."""

    @abstractmethod
    async def set_token(self, token: str) -> None:
        """Use another access token."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect. May be called twice."""

    async def join(self, key: str, *, ack: bool = False, echo: bool = False) -> None:
        """Join the room and wait for it."""
        await self.ask_to_join(key, ack=ack, echo=echo)
        await self.until(lambda peer: peer.is_in, "joins")

    async def until(self, condition: Callable[[Self], Any], what: str) -> None:
        """Wait until a condition holds for this peer, which then `what`: "hears it"."""
        await until(lambda: condition(self), f"{self.name} {what}", self)

    def note_flip(self, kind: str, key: str, others: int) -> None:
        """An official client says that a meta came (`"join"`) or went (`"leave"`), next to `others`."""
        if not others:
            self.flips.append(("online" if kind == "join" else "offline", key))


class OwnPeer(Peer):
    """Our `RealtimeClient`."""

    def __init__(self, name: str, url: str, vsn: str) -> None:
        super().__init__(name, url, vsn)
        self._client: RealtimeClient | None = None
        self._channel: Channel | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self, *, heartbeat: float = 25.0, token: str | None = None) -> None:
        config = RealtimeConfig(
            server_url=self.url,
            api_key=API_KEY,
            access_token=token,
            vsn="1.0.0" if self.vsn == "1.0.0" else "2.0.0",
            heartbeat_interval=heartbeat,
            reconnect_delay=0.05,
            max_reconnect_delay=0.2,
        )
        self._client = RealtimeClient(config)
        await self._client.__aenter__()
        self._read(self._client, self._note)
        await self.until(lambda peer: peer.opened, "connects")

    async def ask_to_join(self, key: str, *, ack: bool = False, echo: bool = False) -> None:
        assert self._client is not None
        try:
            self._channel = await self._client.join(self.topic, self._params(key, ack, echo))
        except JoinError as error:
            self.statuses.append("CHANNEL_ERROR")
            self.details.append(error.response)
        else:
            self.statuses.append("SUBSCRIBED")
            self.details.append(self._channel.response)
            self._read(self._channel, self._note)

    @abstractmethod
    def _params(self, key: str, ack: bool, echo: bool) -> Mapping[str, Any] | ChannelConfig: ...

    async def track(self, meta: dict[str, Any]) -> None:
        await self.channel.track(meta)

    async def untrack(self) -> None:
        await self.channel.untrack()

    async def leave(self) -> None:
        await self.channel.leave()
        self._status("CLOSED", None)

    async def set_token(self, token: str) -> None:
        assert self._client is not None
        await self._client.set_access_token(token)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__(None, None, None)
            await asyncio.gather(*self._tasks)  # they end with the client, and raise what went wrong

    @property
    def channel(self) -> Channel:
        """The joined channel."""
        assert self._channel is not None
        return self._channel

    def _read(self, source: RealtimeClient | Channel, note: Callable[[Any], None]) -> None:
        async def read() -> None:
            async for event in source:
                note(event)

        self._tasks.append(asyncio.create_task(read()))

    def _note(self, event: object) -> None:
        match event:
            case SocketConnected():
                self.opened += 1
            case SocketDisconnected():
                self.closed.append(event.code)
            case ChannelJoined():
                self._status("SUBSCRIBED", event.response)
            case ChannelDown():
                self._status("CHANNEL_ERROR", event.reason)
            case JoinFailed():
                self._status("CHANNEL_ERROR", event.response)
            case PresenceSynced() | PresenceDiffed():
                for change in event.changes:
                    if change.kind != "updated":
                        self.flips.append(("online" if change.kind == "joined" else "offline", change.key))
                self.syncs.append(roster_of(self.channel.presence))
            case Broadcast() | ChannelMessage():
                self.heard.append((event.event, event.payload))
            case SystemMessage():
                self.systems.append(event.payload)
            case EventsDropped() | TrackFailed() | ProtocolViolation():
                raise AssertionError(event)
            case _:
                pass

    def _status(self, status: str, detail: Any) -> None:
        self.statuses.append(status)
        self.details.append(detail)


class OwnSupabasePeer(OwnPeer):
    """Our client in a Supabase channel."""

    family = "supabase"

    def _params(self, key: str, ack: bool, echo: bool) -> ChannelConfig:
        return ChannelConfig(presence_key=key, broadcast_ack=ack, broadcast_self=echo, track_limit=None)

    async def say(self, event: str, payload: Any) -> str:
        await self.channel.broadcast(event, payload)  # raises unless the answer is ok
        return "ok"


class OwnPlainPeer(OwnPeer):
    """Our client in a plain Phoenix channel."""

    family = "plain"

    def _params(self, key: str, ack: bool, echo: bool) -> dict[str, Any]:
        return {"user_id": key}

    async def say(self, event: str, payload: Any) -> str:
        try:
            await self.channel.push(event, payload)
        except PushError as error:
            return str(error.status)
        return "ok"
