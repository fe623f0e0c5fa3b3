"""A `RealtimeClient` under a virtual clock, against a scripted server: see `ScriptedServer`."""

from __future__ import annotations

from typing import Any

from presence_proto.config import RealtimeConfig
from presence_proto.events import SocketDisconnected
from presence_proto.realtime_client import RealtimeClient
from presence_proto.testing import ScriptedServer as Rig


def realtime(
    *,
    vsn: Any = "2.0.0",
    rng: Any = None,
    server_deflate: bool = False,
    chunk: int | None = None,
    **settings: Any,
) -> Rig:
    """A pair around a `RealtimeClient` that nobody has connected yet. `settings` are its config's."""
    config = RealtimeConfig(**{"server_url": "ws://host.test/socket", "vsn": vsn} | settings)
    return Rig(RealtimeClient(config, rng=rng), deflate=server_deflate, chunk=chunk)


def online(**settings: Any) -> Rig:
    """The same, connected."""
    rig = realtime(**settings)
    rig.connect()
    rig.take()
    return rig


def lost(rig: Rig) -> SocketDisconnected:
    """The one event of the last moments."""
    [event] = rig.take()
    assert isinstance(event, SocketDisconnected)
    return event
