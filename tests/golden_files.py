"""The recordings in `golden/`: which there are, and their lines."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from attrs import frozen

GOLDEN = Path(__file__).parent / "golden"

MSGS = ".msgs.jsonl"
RAW = ".raw.jsonl"
EXPECTED = ".expected.jsonl"


@frozen
class Line:
    """One line of a recording of messages. `number` counts from 1."""

    number: int
    t: float  # seconds
    dir: str  # "in": from the server; "out": from the client; "-": a note
    kind: str  # connect, http, text, binary, close, kill, note
    data: str | bytes  # bytes for binary
    code: int | None = None  # of a close
    reason: bytes | None = None  # of a close that came in
    sent: bool | None = None  # of a close that came in: the client had sent one, too
    clean: bool | None = None  # of a close that came in
    status: int | None = None  # of http
    headers: tuple[tuple[str, str], ...] = ()  # of http


@frozen
class RawLine:
    """One line of a recording of TCP bytes. `number` counts from 1."""

    number: int
    t: float  # seconds
    dir: str  # "in" or "out"
    kind: str  # bytes, eof, reset
    data: bytes


@frozen
class Expected:
    """The presence that phoenix.js holds after line `line` of the recording of messages."""

    line: int
    topic: str
    pending: bool
    state: dict[str, Any]


def names(suffix: str = MSGS) -> list[str]:
    """The sorted names of the recordings that have a file with this suffix: `MSGS`, `RAW` or `EXPECTED`."""
    folder = GOLDEN / "expected" if suffix == EXPECTED else GOLDEN
    return sorted(path.name.removesuffix(suffix) for path in folder.glob("*" + suffix))


def _lines(path: Path) -> list[Any]:
    # Not splitlines(): the payloads hold other line separators.
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def msgs(name: str) -> list[Line]:
    """The decoded messages of the recording `name`."""
    return [_line(number, entry) for number, entry in enumerate(_lines(GOLDEN / (name + MSGS)), 1)]


def _line(number: int, entry: dict[str, Any]) -> Line:
    kind, data, reason = entry["kind"], entry["data"], entry.get("reason")
    return Line(
        number,
        entry["t"],
        entry["dir"],
        kind,
        base64.b64decode(data) if kind == "binary" else data,
        entry.get("code"),
        None if reason is None else base64.b64decode(reason),
        entry.get("sent"),
        entry.get("clean"),
        entry.get("status"),
        tuple((header, value) for header, value in entry.get("headers", ())),
    )


def raw(name: str) -> list[RawLine]:
    """The bytes of the recording `name`, in the recorded chunks."""
    return [
        RawLine(number, entry["t"], entry["dir"], entry["kind"], base64.b64decode(entry["data"]))
        for number, entry in enumerate(_lines(GOLDEN / (name + RAW)), 1)
    ]


def expected(name: str) -> list[Expected]:
    """What phoenix.js made of the presence messages of the recording `name`; empty when there were none."""
    path = GOLDEN / "expected" / (name + EXPECTED)
    if not path.exists():
        return []
    return [
        Expected(entry["line"], entry["topic"], entry["pending"], entry["state"]) for entry in _lines(path)
    ]
