"""What a scene is played on: a hub behind a real socket, which can crash and come back, and its peers."""

from __future__ import annotations

import asyncio
import gc
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from interop.node_peers import NodePeer, PhoenixJsPeer, SupabaseJsPeer
from interop.peers import OwnPlainPeer, OwnSupabasePeer, Peer, Roster, roster_of, until
from interop.pypi_peer import PyPIPeer
from node_tools import require_node
from presence_adapters.server import HubServer
from presence_proto import HubConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from presence_proto.hub import HubEvent

KINDS: dict[str, tuple[type[Peer], str]] = {
    "realtime-js": (SupabaseJsPeer, "2.0.0"),
    "realtime-js V1": (SupabaseJsPeer, "1.0.0"),
    "PyPI": (PyPIPeer, "1.0.0"),
    "ours": (OwnSupabasePeer, "2.0.0"),
    "ours V1": (OwnSupabasePeer, "1.0.0"),
    "phoenix.js": (PhoenixJsPeer, "2.0.0"),
    "phoenix.js V1": (PhoenixJsPeer, "1.0.0"),
    "ours (plain)": (OwnPlainPeer, "2.0.0"),
    "ours (plain, V1)": (OwnPlainPeer, "1.0.0"),
}
MOUNTS = {"supabase": "/realtime/v1", "plain": "/socket"}
NAMES = ("ann", "bob", "cyd")


class Stage:
    """A hub on a port of its own. `events` is all that it reported."""

    def __init__(self, config: HubConfig) -> None:
        self.config = config
        self.events: list[HubEvent] = []
        self.server = HubServer(config, on_event=self.events.append)

    def online(self, topic: str) -> Roster:
        """Who is there, as the hub knows it."""
        return roster_of(self.server.hub.online(topic))

    def run(self, command: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Run a command of the hub."""
        self.server.run(command, *args, **kwargs)

    async def stop(self, *, abruptly: bool) -> None:
        """Stop the hub: with close code 1012 for all, or as when its process is killed."""
        await (self.server.abort() if abruptly else self.server.close())

    async def restart(self) -> None:
        """Start another hub, which knows nothing, on the same port."""
        self.server = HubServer(self.config, port=self.server.port, on_event=self.events.append)
        await self.server.start()


def play(
    scene: Callable[..., Coroutine[Any, Any, None]],
    kinds: Sequence[str],
    config: HubConfig | None = None,
    *,
    connect: bool = True,
) -> None:
    """Play a scene with a stage and a peer of each kind, connected unless `connect` is false.

    Fails when anybody leaves a task behind, or the loop has something to complain about. Requires node for
    peers that do.
    """
    node = require_node() if any(issubclass(KINDS[kind][0], NodePeer) for kind in kinds) else ""
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        stage = Stage(HubConfig() if config is None else config)
        async with asyncio.timeout(40), AsyncExitStack() as stack:
            await stage.server.start()
            stack.push_async_callback(lambda: stage.server.close())  # that of then, not of now
            peers = []
            for name, kind in zip(NAMES, kinds, strict=False):
                make, vsn = KINDS[kind]
                url = stage.server.url + MOUNTS[make.family]
                peer = make(name, url, vsn, node) if issubclass(make, NodePeer) else make(name, url, vsn)
                stack.push_async_callback(peer.close)
                peers.append(peer)
            if connect:
                await asyncio.gather(*(peer.connect() for peer in peers))
            await scene(stage, *peers)
        left_behind = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left_behind

    asyncio.run(main())
    gc.collect()
    assert not complaints


async def all_see(stage: Stage, *peers: Peer, keys: Sequence[str], topic: str | None = None) -> None:
    """Wait until these keys are online, and every peer has the hub's own roster: same metas, same order."""
    room = peers[0].topic if topic is None else topic

    def agree() -> bool:
        truth = stage.online(room)
        return set(truth) == set(keys) and all(peer.roster == truth for peer in peers)

    await until(agree, f"all see {keys}", *peers)
