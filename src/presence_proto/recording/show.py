"""A recording in words: when, what went in, what came out, with the messages in the bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from presence_proto.errors import RecordingError
from presence_proto.recording.outputs import Decoder
from presence_proto.recording.replay import Reader
from presence_proto.recording.values import dump, to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

LIMIT = 1 << 26
"""Bytes of a compressed message that are shown."""


def show_recording(lines: Iterable[str]) -> Iterator[str]:
    """The lines of a recording for people, read as they are needed. Raises `RecordingError`.

    Times are seconds since the first fact or command. `>` is what went in, `<` what came out.
    """
    reader = Reader(lines)
    header = reader.header
    yield f"{header.get('kind')}, recorded by presence-proto {header.get('package')}"
    yield f"config {dump(header.get('config'))}"
    began: float | None = None
    decoders: dict[Any, Decoder] = {}
    for number, line in reader:
        try:
            if (now := line.pop("now", None)) is not None:
                began = now if began is None else began
                when = f"{now - began:10.3f}"
            else:
                when = " " * 10
            if "deadline" in line:
                continue
            yield from (f"{when} {words}" for words in _words(line, decoders))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise RecordingError(number, "the line is malformed") from None


class Narrator:
    """Tells in words what a `Recorder` writes, as it comes: `Recorder(Narrator(print))`. Without times."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._decoders: dict[Any, Decoder] = {}

    def __call__(self, text: str) -> None:
        """Tell one line of a recording."""
        line = json.loads(text)
        line.pop("now", None)
        if "format" in line:
            self._tell(f"{line['kind']} config {dump(line['config'])}")
        elif "deadline" not in line:
            for words in _words(line, self._decoders):
                self._tell(words)


def _words(line: dict[str, Any], decoders: dict[Any, Decoder]) -> Iterator[str]:
    match line:
        case {"fact": "receive_data", "conn": conn, "data": data}:
            received = to_bytes(data)
            yield f"> receive_data {conn}, {len(received)} bytes"
            decoder = decoders.setdefault(conn, Decoder(None, LIMIT))
            yield from (f"    {_said(message)}" for message in decoder.read(received))
        case {"fact": name, **more}:
            if name == "transport_opened":
                decoders.pop(more["conn"], None)
            yield " ".join([f"> {name}", *map(str, more.values())])
        case {"command": name, "args": args, **more}:
            kwargs = [f"{key}={dump(value)}" for key, value in more.get("kwargs", {}).items()]
            yield f"> {name}({', '.join([*map(dump, args), *kwargs])})"
        case {"send": conn, "frames": frames}:
            yield f"< send {conn}"
            yield from (f"    {_said(message)}" for message in frames)
        case {"event": name, "fields": values}:
            told = [f"{key}={dump(value)}" for key, value in values.items()]
            yield f"< {name}({', '.join(told)})"
        case {"called": name}:
            yield f"  asked {name}: {dump(line)}"
        case {"end": reason}:
            yield "the end" if reason is None else f"the recording ends here: {reason}"
        case _:
            yield "< " + " ".join(f"{key} {dump(value)}" for key, value in line.items())


def _said(message: dict[str, Any]) -> str:
    """One message on one line."""
    return " ".join(f"{key} {value if key == 'text' else dump(value)}" for key, value in message.items())
