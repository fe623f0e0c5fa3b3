"""`presence` in this process, with a hub and users of the test's own."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner, Result

from adapters.hub_thread import until
from presence_adapters.blocking import PresenceClient
from presence_adapters.cli.app import app
from presence_proto import Identity, PresenceConfig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from presence_adapters.server import HubThread

PRESENCE = [sys.executable, "-W", "error", "-m", "presence_adapters"]
"""The command in a process of its own. Not with `-X dev`: its asyncio says on stderr when it is slow."""
ROOM = "realtime:jarvis-presence"


def presence(*arguments: str, **env: str) -> Result:
    """Run a command. Its standard streams are no terminal."""
    return CliRunner().invoke(app, arguments, prog_name="presence", env=env)


def lines(result: Result) -> list[Any]:
    """Its output, which is JSON."""
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


class Desk:
    """Where a user sits: environment variables for the hub, and an identity called Ann."""

    def __init__(self, hub: HubThread, folder: Path, **more: str) -> None:
        self.hub = hub
        self.env = {
            "PRESENCE_SERVER_URL": hub.url,
            "PRESENCE_API_KEY": hub.api_key,
            "PRESENCE_IDENTITY_FILE": str(folder / "identity.json"),
            "PRESENCE_RECONNECT_DELAY": "0.05",
            "XDG_CONFIG_HOME": str(folder),
            **more,
        }
        (self.identity,) = lines(presence("whoami", "--name", "Ann", "--json", **self.env))
        self.user_id: str = self.identity["user_id"]

    def __call__(self, *arguments: str) -> Result:
        return presence(*arguments, **self.env)

    @contextmanager
    def user(self, user_id: str, name: str, **options: Any) -> Iterator[PresenceClient]:
        """Somebody in the room, whose client is driven by a thread. `options` are of the config."""
        config = PresenceConfig(**{"server_url": self.hub.url, "api_key": self.hub.api_key, **options})
        with PresenceClient(Identity(user_id, name), config) as client:
            client.drive_in_background()
            until(lambda: client.is_connected and user_id in self.hub.online(ROOM))
            yield client
