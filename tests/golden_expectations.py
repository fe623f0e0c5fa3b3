"""What phoenix.js makes of the recordings in `golden/`: writes the expectations of recordings that have none.

    python tests/golden_expectations.py

Needs node. The official `Presence` class gets the recorded presence messages, on a channel whose join_ref is
that of the last recorded join.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

from attrs import asdict

import golden_files
import node_tools
from presence_proto.errors import RemoteProtocolError
from presence_proto.serializer import Message, serializer_for
from presence_proto.websocket import BinaryMessage, TextMessage

PRESENCE = ("presence_state", "presence_diff")


def vsn_of(name: str) -> str | None:
    """The `vsn` parameter of the recorded connection."""
    url = next(line.data for line in golden_files.msgs(name) if line.kind == "connect")
    return parse_qs(urlsplit(str(url)).query).get("vsn", [None])[0]


def decoded(line: golden_files.Line, vsn: str | None) -> Message:
    """The message of a line. Raises `RemoteProtocolError` when it is malformed."""
    frame = BinaryMessage(line.data) if isinstance(line.data, bytes) else TextMessage(line.data)
    return serializer_for(vsn, server=line.dir == "out").decode(frame)


def steps(name: str) -> list[dict[str, Any]]:
    """The joins and the presence messages of a recording, as `interop/presence_lines.mjs` takes them."""
    found: list[dict[str, Any]] = []
    vsn = vsn_of(name)  # once: it reads the whole recording
    for line in golden_files.msgs(name):
        if line.kind not in ("text", "binary"):
            continue
        try:
            message = decoded(line, vsn)
        except RemoteProtocolError:
            continue  # malformed on purpose
        step: dict[str, Any] = {"line": line.number, "topic": message.topic}
        if line.dir == "out" and message.event == "phx_join":
            found.append(step | {"join": message.ref})
        elif line.dir == "in" and message.event in PRESENCE:
            found.append(step | {"event": message.event, "payload": message.payload})
    return found


@cache
def names() -> list[str]:
    """The recordings with presence messages."""
    return [name for name in golden_files.names() if any("event" in step for step in steps(name))]


def expected(name: str) -> list[golden_files.Expected]:
    """The presence after each presence message of a recording: as committed, or as phoenix.js says it now.

    Skips the test when there is neither a file nor node.
    """
    return golden_files.expected(name) or compute([name])[name]


def compute(recordings: list[str]) -> dict[str, list[golden_files.Expected]]:
    """The presence after each presence message of each recording, by phoenix.js. Requires node."""
    printed = node_tools.run_script("presence_lines.mjs", json.dumps([steps(name) for name in recordings]))
    return {
        name: [golden_files.Expected(**entry) for entry in entries]
        for name, entries in zip(recordings, json.loads(printed), strict=True)
    }


def main() -> None:
    """Write the files that are missing."""
    missing = sorted(set(names()) - set(golden_files.names(golden_files.EXPECTED)))
    for name, entries in compute(missing).items():
        path = golden_files.path_of(name, golden_files.EXPECTED)
        path.parent.mkdir(exist_ok=True)
        lines = [json.dumps(asdict(entry), separators=(",", ":")) + "\n" for entry in entries]
        path.write_text("".join(lines), "utf-8")
        print(f"{name}: {len(entries)} presence messages")


if __name__ == "__main__":
    main()
