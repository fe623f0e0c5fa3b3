"""The recordings in `golden/` and its folder `supabase/`: their names, and their lines.

A recording is named by its path below `golden/`, without the suffix: `a_v2_alice`, `supabase/s_tokens_v2`. A
file that is put into one of the two folders is a recording from then on.
"""

from __future__ import annotations

import base64
import json
import re
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


SUPABASE = "supabase/"
"""The prefix of recordings of the true Supabase Realtime (`s_…`), and of a few Phoenix sessions (`p_…`)."""


def names(suffix: str = MSGS) -> list[str]:
    """The sorted names of the recordings that have a file with this suffix: `MSGS`, `RAW` or `EXPECTED`."""
    within = "expected/" if suffix == EXPECTED else ""
    return sorted(
        folder + path.name.removesuffix(suffix)
        for folder in ("", SUPABASE)
        for path in (GOLDEN / folder / within).glob("*" + suffix)
    )


def path_of(name: str, suffix: str) -> Path:
    """The file of a recording, which need not be there."""
    path = GOLDEN / (name + suffix)
    return path.parent / "expected" / path.name if suffix == EXPECTED else path


def _lines(path: Path) -> list[Any]:
    # Not splitlines(): the payloads hold other line separators.
    lines = []
    for number, text in enumerate(path.read_text("utf-8").split("\n"), 1):
        if text:
            try:
                lines.append(json.loads(text))
            except ValueError as exc:
                raise ValueError(f"{path.name}, line {number}: not JSON: {exc}") from exc
    return lines


def msgs(name: str) -> list[Line]:
    """The decoded messages of the recording `name`."""
    return [_line(name, number, entry) for number, entry in enumerate(_lines(path_of(name, MSGS)), 1)]


KINDS = ("connect", "http", "text", "binary", "close", "kill", "note")


def _line(name: str, number: int, entry: dict[str, Any]) -> Line:
    where = f"{name}{MSGS}, line {number}"
    missing = {"t", "dir", "kind", "data"} - set(entry)
    if missing:
        raise ValueError(f"{where}: has no {', '.join(sorted(missing))}")
    kind, data, reason = entry["kind"], entry["data"], entry.get("reason")
    if kind not in KINDS:
        raise ValueError(f"{where}: its kind is {kind!r}, and must be one of {', '.join(KINDS)}")
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
        for number, entry in enumerate(_lines(path_of(name, RAW)), 1)
    ]


def subprotocols(name: str) -> tuple[str, ...]:
    """What the recorded client offered in its upgrade request; nothing when the bytes were not recorded."""
    if not path_of(name, RAW).exists():
        return ()
    offer = re.search(rb"(?i)\r\nsec-websocket-protocol: *([^\r]*)\r\n", raw(name)[0].data)
    return () if offer is None else tuple(re.split(", *", offer[1].decode()))


def expected(name: str) -> list[Expected]:
    """What phoenix.js made of the presence messages of the recording `name`; empty when there were none."""
    path = path_of(name, EXPECTED)
    if not path.exists():
        return []
    return [
        Expected(entry["line"], entry["topic"], entry["pending"], entry["state"]) for entry in _lines(path)
    ]
