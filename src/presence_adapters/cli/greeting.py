"""What a hub says when it listens: its URLs, and a client to paste, in Python and as settings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from presence_adapters.settings import default_config_path

if TYPE_CHECKING:
    from pathlib import Path

    from presence_proto import HubConfig

_PYTHON = """\
import asyncio
{imports}from presence_adapters.asyncio import PresenceClient
from presence_proto import Identity, PresenceConfig

async def main():
    config = PresenceConfig({arguments})
    async with PresenceClient(Identity("alice", "Alice"), config) as client:
        async for event in client:
            print(event)

asyncio.run(main())
"""


def greeting(
    config: HubConfig,
    url: str,
    certificate: Path | None,
    api_key_file: Path | None,
    *,
    shows_jarvis: bool = True,
) -> str:
    """The whole text. `url`: where the hub is, without a path.

    `shows_jarvis`: whether it has the URL of the older JSON protocol, too, which few people need.
    """
    phoenix, jarvis = config.protocol != "jarvis", config.protocol != "phoenix" and shows_jarvis
    urls = [("Supabase", f"{url}/realtime/v1"), ("Phoenix", f"{url}/socket")] if phoenix else []
    urls += [("Jarvis", url)] if jarvis else []
    server = {"server_url": f"{url}/realtime/v1"} if phoenix else {"server_url": url, "protocol": "jarvis"}
    arguments = [f"{name}={json.dumps(value)}" for name, value in server.items()]
    lines = [f"{name} = {json.dumps(value)}" for name, value in server.items()]
    imports = ""
    if api_key_file is not None:
        path = json.dumps(str(api_key_file.absolute()))
        imports = "from pathlib import Path\n"
        arguments.append(f"api_key=Path({path}).read_text().strip()")
        lines.append(f"api_key_file = {path}")
    if certificate is not None:
        path = json.dumps(str(certificate.absolute()))
        lines.append(f"# tls_ca = {path}  # if the certificate is self-signed")
    python = _PYTHON.format(imports=imports, arguments=", ".join(arguments))
    return "\n".join(
        [
            "The hub is running.",
            "",
            *(f"  {f'{name} clients':<18} {where}" for name, where in urls),
            "",
            "A client to try:",
            "",
            *_indented(python),
            "",
            f"Or, for `presence watch`, in {default_config_path()}:",
            "",
            *_indented("\n".join(["[presence]", *lines])),
            "",
            "Ctrl-C stops it.",
        ]
    )


def _indented(text: str) -> list[str]:
    return [f"  {line}" if line else "" for line in text.splitlines()]
