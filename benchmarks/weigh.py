"""How much memory something takes: it is made many times over in this process, which then looks at itself.

    python -m benchmarks.weigh KIND COUNT tracemalloc | rss

It prints `{"bytes": ...}`, for one. `tracemalloc` counts what Python's allocators gave out, exactly; `rss`
what the system gave to the process, its rounding and fragmentation included.
"""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from benchmarks import workloads
from benchmarks.contestants.ours import LIMIT, URL, Online
from benchmarks.contestants.stream import RSV1, Stream
from benchmarks.plain_client import join_as, upgrade, user_id
from benchmarks.workloads import TOPIC, envelope
from presence_proto import (
    ConnId,
    Hub,
    HubConfig,
    Identity,
    OpenTransport,
    PresenceClient,
    PresenceConfig,
    RealtimeClient,
    RealtimeConfig,
    SendData,
)

Make = Callable[[int], Any]
"""Makes that many, and returns them."""

FEW = 2
"""So many are made first, and with them all that is made once."""

V2 = "2.0.0"
SEED = 1


class Clients:
    """Clients of one kind, each online: connected, joined, with the state taken in.

    There is one server for all of them: they say the same, so its answers to the first serve all.
    """

    def __init__(self, make: Callable[[Random], Any], texts: list[str]) -> None:
        self._make, self._rng = make, Random()
        self._said = Online(self._new()).said + Stream().chunks(texts)

    def __call__(self, count: int) -> list[Any]:
        return [self._online() for _ in range(count)]

    def _new(self) -> Any:
        # It draws the nonce of its upgrade, by which it knows the answer.
        self._rng.seed(SEED)
        return self._make(self._rng)

    def _online(self) -> Any:
        client, conn, said = self._new(), ConnId(0), iter(self._said)
        if not client.is_connected:
            client.connect(now=0)
        while outputs := client.drain():
            for output in outputs:
                if isinstance(output, OpenTransport):
                    conn = output.conn
                    client.transport_opened(conn, now=0)
                elif isinstance(output, SendData):
                    client.receive_data(conn, next(said), now=0)
        for data in said:
            client.receive_data(conn, data, now=0)
            client.drain()
        return client


def presence_client(rng: Random) -> PresenceClient:
    return PresenceClient(IDENTITY, PRESENCE, rng=rng)


def realtime_client(rng: Random) -> RealtimeClient:
    client = RealtimeClient(REALTIME, rng=rng)
    client.join(TOPIC, now=0)
    return client


IDENTITY = Identity(user_id(0), "Me")
PRESENCE = PresenceConfig(server_url=URL, deflate=False, max_message_size=LIMIT)
REALTIME = RealtimeConfig(server_url=URL, deflate=False, max_message_size=LIMIT)


def alone() -> list[str]:
    """What a client is told that has just become present, and sees nobody else."""
    room = workloads.Room(Random(SEED))
    room.join(user_id(0))
    return [envelope(V2, *room.state())]


def after_traffic() -> list[str]:
    """The same, when many have come and gone."""
    room = workloads.Room(Random(SEED))
    room.join(user_id(0))
    texts = [envelope(V2, *room.state())]
    for _ in range(1_000):
        key, meta = room.join()
        texts.append(envelope(V2, *room.diff([(key, meta)], [])))
        texts.append(envelope(V2, *room.diff([], [room.leave(key)])))
    return texts


def a_state(users: int) -> str:
    """The state of a room with so many users."""
    room = workloads.Room(Random(SEED))
    for _ in range(users):
        room.join()
    return envelope(V2, *room.state())


def a_room(make: Callable[[Random], Any]) -> Callable[[int], Make]:
    """One client, in a room with `count` users; they are what is weighed."""

    def prepare(count: int) -> Make:
        rooms = {users: Clients(make, [a_state(users)]) for users in (FEW, count)}
        return lambda users: rooms[users](1)

    return prepare


def decoded(count: int) -> Make:
    """The state of a room, as the JSON library has it."""
    states = {users: a_state(users) for users in (FEW, count)}
    return lambda users: json.loads(states[users])


# ---------------------------------------------------------------------------------------------- servers


def said(number: int, *, deflate: bool) -> tuple[bytes, bytes]:
    """What a client says: the upgrade, then the join."""
    frame = join_as(user_id(number))
    if not deflate:
        return upgrade(), frame
    # A small window, so that any server takes it. The mask is zero.
    deflater = zlib.compressobj(wbits=-9)
    data = (deflater.compress(frame[8:]) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
    size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
    return upgrade(deflate=True), bytes([frame[0] | RSV1]) + size + bytes(4) + data


def a_hub(*, deflate: bool) -> Make:
    """Connections of one hub, each with one joined channel."""

    def connections(count: int) -> Hub:
        hub = Hub(HubConfig(deflate=deflate))
        for number in range(count):
            conn = ConnId(number)
            hub.transport_opened(conn, now=0)
            for data in said(number, deflate=deflate):
                hub.receive_data(conn, data, now=0)
                hub.drain()
        return hub

    return connections


def of_websockets(*, deflate: bool) -> Make:
    """Connections of `websockets`, without their sockets, which have got and said one message."""
    from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
    from websockets.http11 import Request
    from websockets.server import ServerProtocol

    # The settings of `websockets.serve`.
    factory = ServerPerMessageDeflateFactory(
        server_max_window_bits=12, client_max_window_bits=12, compress_settings={"memLevel": 5}
    )

    def connections(count: int) -> list[ServerProtocol]:
        made = []
        for number in range(count):
            server = ServerProtocol(extensions=[factory] if deflate else None)
            request, frame = said(number, deflate=deflate)
            server.receive_data(request)
            [event] = server.events_received()
            assert isinstance(event, Request)
            server.send_response(server.accept(event))
            server.receive_data(frame)
            assert len(server.events_received()) == 1
            server.send_text(
                b'["1","1","realtime:jarvis-presence","phx_reply",{"status":"ok","response":{}}]'
            )
            server.data_to_send()
            made.append(server)
        return made

    return connections


def of_wsproto(*, deflate: bool) -> Make:
    """Connections of `wsproto`, which have got and said one message."""
    from wsproto import ConnectionType, WSConnection
    from wsproto.events import AcceptConnection, TextMessage
    from wsproto.extensions import PerMessageDeflate

    def connections(count: int) -> list[WSConnection]:
        made = []
        for number in range(count):
            server = WSConnection(ConnectionType.SERVER)
            request, frame = said(number, deflate=deflate)
            server.receive_data(request)
            assert len(list(server.events())) == 1
            server.send(AcceptConnection(extensions=[PerMessageDeflate()] if deflate else []))
            server.receive_data(frame)
            assert len(list(server.events())) == 1
            server.send(TextMessage(data="[]"))
            made.append(server)
        return made

    return connections


KINDS: dict[str, Callable[[int], Make]] = {
    "presence-client": lambda _: Clients(presence_client, alone()),
    "presence-client-used": lambda _: Clients(presence_client, after_traffic()),
    "realtime-client": lambda _: Clients(realtime_client, alone()),
    "realtime-client-used": lambda _: Clients(realtime_client, after_traffic()),
    "presence-user": a_room(presence_client),
    "realtime-user": a_room(realtime_client),
    "json-user": decoded,
    "hub": lambda _: a_hub(deflate=False),
    "hub-deflate": lambda _: a_hub(deflate=True),
    "websockets": lambda _: of_websockets(deflate=False),
    "websockets-deflate": lambda _: of_websockets(deflate=True),
    "wsproto": lambda _: of_wsproto(deflate=False),
    "wsproto-deflate": lambda _: of_wsproto(deflate=True),
}
"""What can be weighed. Each gets ready to make `FEW` or the number that is asked for."""


def rss() -> int:
    """Bytes of this process that are in memory. Raises `OSError` where there is no /proc."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * 4096


def traced() -> int:
    """Bytes that Python's allocators have given out, and not got back."""
    return tracemalloc.get_traced_memory()[0]


def weigh(make: Make, count: int, *, trace: bool) -> float:
    """Bytes for one."""
    few = make(FEW)
    gc.collect()
    if trace:
        tracemalloc.start()
    size: Callable[[], int] = traced if trace else rss
    before = size()
    many = make(count)
    gc.collect()
    after = size()
    del few, many
    return (after - before) / count


def main(kind: str, count: str, method: str) -> None:
    """Print it."""
    print(json.dumps({"bytes": weigh(KINDS[kind](int(count)), int(count), trace=method == "tracemalloc")}))


if __name__ == "__main__":
    main(*sys.argv[1:])
