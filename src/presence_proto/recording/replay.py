"""`replay` repeats a recording's inputs with the current core, and finds the first different output."""

from __future__ import annotations

import json
from collections import deque
from random import Random
from typing import TYPE_CHECKING, Any

from attrs import frozen

from presence_proto.config import Identity, PresenceConfig, RealtimeConfig
from presence_proto.errors import PresenceError, RecordingError
from presence_proto.hub import Hub
from presence_proto.hub.config import HubConfig
from presence_proto.presence_client import PresenceClient
from presence_proto.realtime_client import RealtimeClient
from presence_proto.recording.format import (
    CALLS,
    COMMANDS,
    FACTS,
    FORMAT,
    FORMAT_VERSION,
    Config,
    Decoder,
    OutputTeller,
    config_from_json,
    dump,
    from_json,
    set_state,
    to_bytes,
    to_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, PresenceError)
NOTHING = "nothing"


@frozen
class Difference:
    """The first different line of a replay: its line number, counted from 1, and both lines.

    `expected` is the recorded line, and `got` is the line of the replay, both as JSON. `"nothing"` stands for
    a missing line.
    """

    line: int
    expected: str
    got: str


@frozen
class ReplayResult:
    """The result of a replay. The counts cover all replayed lines, up to the first difference if any.

    `kind` is the kind of the endpoint, and `package` is the version of the package that made the recording.
    `note` is the reason why the recording ended before its endpoint, otherwise `None`.
    """

    kind: str
    package: str
    lines: int
    facts: int
    commands: int
    outputs: int
    difference: Difference | None
    note: str | None

    @property
    def same(self) -> bool:
        """Whether the replay produced no difference."""
        return self.difference is None


def replay(lines: Iterable[str]) -> ReplayResult:
    """Replay a recording with a new endpoint, and compare the outputs line by line.

    The replay stops at the first difference. The function reads the lines one by one and does not keep them.
    Raises `RecordingError` for lines that are not a recording, for an unsupported format version, and for a
    malformed or incomplete recording.
    """
    reader = Reader(lines)
    player = _Player(reader)
    for number, line in reader:
        difference = player.play(number, line)
        if difference is not None:
            return player.result(difference)
        if "end" in line:
            reader.expect_end()
            return player.result(None, line["end"])
    raise RecordingError(
        reader.number, "the recording is cut off here: its end is missing. The replay is the same so far"
    )


class Reader:
    """An iterator over the line numbers and lines of a recording, after its header."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._next: dict[str, Any] | None = None
        self.number = 0  # the number of the last line read
        try:
            header = self._read()
        except RecordingError:
            header = None
        if header is None or header.get("format") != FORMAT:
            raise RecordingError(1, "this is not a recording: its first line is not a recording header")
        if header.get("version") != FORMAT_VERSION:
            version = header.get("version")
            raise RecordingError(
                1, f"format version {version!r} is not supported: this package reads {FORMAT_VERSION}"
            )
        self.header = header

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        while (line := self._take()) is not None:
            yield self.number, line

    def calls(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the next lines up to the first line that does not record the call of a rule."""
        while (line := self._take()) is not None:
            if "called" not in line:
                self._next = line
                return
            yield self.number, line

    def expect_end(self) -> None:
        """Raise `RecordingError` if more lines follow the line that was read last."""
        if self._read() is not None:
            raise RecordingError(self.number, "the recording goes on after its end")

    def _take(self) -> dict[str, Any] | None:
        line, self._next = self._next, None
        return self._read() if line is None else line

    def _read(self) -> dict[str, Any] | None:
        text = next(self._lines, None)
        if text is None:
            return None
        self.number += 1
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            raise RecordingError(self.number, "the line is cut off, or is not JSON") from None
        if not isinstance(line, dict):
            raise RecordingError(self.number, "the line is not a JSON object")
        return line


class _Player:
    """The endpoint created from a recording's header, and the state of the replay."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._header = reader.header
        self._counts = {"fact": 0, "command": 0, "output": 0}
        self._outcome: dict[str, Any] | None = None  # result of the last input, until compared
        self._answers: list[tuple[int, dict[str, Any]]] = []  # recorded answers to a hub's calls
        self._unasked: Difference | None = None
        self._drained: deque[Any] = deque()  # drained outputs that are not compared yet
        try:
            self._kind = self._header["kind"]
            self._inputs: dict[str, tuple[str, ...]] = {"fact": tuple(FACTS), "command": COMMANDS[self._kind]}
            self._package = str(self._header["package"])
            self._endpoint = self._make()
        except _MALFORMED as exc:
            raise RecordingError(1, f"the header is malformed: {_words(exc)}") from None

    def _make(self) -> RealtimeClient | PresenceClient | Hub:
        header = self._header
        config: Config = config_from_json(header["config"], {name: self._answering(name) for name in CALLS})
        rng = None
        if header["rng"] is not None:
            rng = Random(0)
            set_state(rng, header["rng"])
        self._teller = OutputTeller(None, config.max_message_size)
        match self._kind, config:
            case "Hub", HubConfig():
                return Hub(config, rng=rng)
            case "RealtimeClient", RealtimeConfig():
                return RealtimeClient(config, rng=rng)
            case "PresenceClient", PresenceConfig():
                identity = Identity(**header["identity"])
                return PresenceClient(identity, config, rng=rng, online_at=header["online_at"])
        raise TypeError(f"a {type(config).__name__} cannot configure a {self._kind}")

    def result(self, difference: Difference | None, note: str | None = None) -> ReplayResult:
        """Return the result of the replay: `difference`, or after the whole recording `note`."""
        lines = self._reader.number if difference is None else difference.line
        counts = (self._counts["fact"], self._counts["command"], self._counts["output"])
        return ReplayResult(self._kind, self._package, lines, *counts, difference, note)

    def play(self, number: int, line: dict[str, Any]) -> Difference | None:
        """Replay a line: repeat the input or compare the output in this line."""
        if line.get("end") is not None:
            return None  # the recording ended early, so later outputs are unknown
        if (outcome := self._outcome) is not None:
            self._outcome = None
            return None if _text(line) == _text(outcome) else _difference(number, line, outcome)
        for kind, names in self._inputs.items():
            if kind in line:
                self._counts[kind] += 1
                return self._run(self._call(number, line, kind, names))
        if "end" in line:
            return None
        if "deadline" in line:
            return self._compare_drained(number, line)
        if line.keys() & {"open", "send", "close", "event"}:
            self._counts["output"] += 1
            return self._compare(number, line)
        if line.keys() & {"returned", "raised", "called"}:
            return _difference(number, line, None)
        raise RecordingError(number, f"unknown kind of line: {', '.join(line)[:80]}")

    # ---------------------------------------------------------------- inputs

    def _call(
        self, number: int, line: dict[str, Any], kind: str, names: tuple[str, ...]
    ) -> Callable[[], Any]:
        try:
            name, now = line[kind], {} if line["now"] is None else {"now": from_json(line["now"])}
            if name not in names:
                raise ValueError(f"a {self._kind} has no {kind} {name!r}")
            method = getattr(self._endpoint, name)
            if kind == "command":
                args, kwargs = from_json(line["args"]), from_json(line.get("kwargs", {}))
            else:
                kwargs = {key: line[key] for key in FACTS[name] if key in line}
                args = [kwargs.pop("conn")] if "conn" in FACTS[name] else []
                if name == "transport_closed":
                    self._teller.closed(line["conn"])
                if name == "receive_data":
                    kwargs["data"] = to_bytes(line["data"])
            bound = [*args], {**kwargs, **now}
        except _MALFORMED as exc:
            raise RecordingError(number, f"the {kind} is malformed: {_words(exc)}") from None
        return lambda: method(*bound[0], **bound[1])

    def _run(self, call: Callable[[], Any]) -> Difference | None:
        self._answers = list(self._reader.calls())
        try:
            result = call()
        except Exception as exc:  # a bug or an invalid command; the recording may contain this exception
            self._outcome = {"raised": type(exc).__name__}
        else:
            self._outcome = None if result is None else {"returned": result}
        if self._unasked is None and self._answers:
            return _difference(*self._answers[0], None)
        return self._unasked

    def _answering(self, name: str) -> Callable[..., Any]:
        """Return a rule that returns the recorded answers."""

        def answer(*args: Any) -> Any:
            asked = {"called": name, "with": to_json(dict(zip(CALLS[name], args, strict=True)))}
            number, line = self._answers.pop(0) if self._answers else (self._reader.number, {})
            if {key: line.get(key) for key in asked} != asked:
                self._unasked = self._unasked or _difference(number, line or None, asked)
                return None
            if "raised" in line:
                raise type(str(line["raised"]), (Exception,), {})
            return from_json(line["returned"])

        return answer

    # ---------------------------------------------------------------- outputs

    def _compare(self, number: int, line: dict[str, Any]) -> Difference | None:
        if not self._drained:
            self._drained.extend(self._endpoint.drain())
        got = self._teller.tell(self._drained.popleft()) if self._drained else None
        return None if _text(line) == _text(got) else _difference(number, line, got)

    def _compare_drained(self, number: int, line: dict[str, Any]) -> Difference | None:
        self._drained.extend(self._endpoint.drain())
        if self._drained:
            return _difference(number, line, self._teller.tell(self._drained[0]))
        self._teller.drained()
        got = {"deadline": self._endpoint.next_deadline()}
        return None if _text(line) == _text(got) else _difference(number, line, got)


def _difference(number: int, expected: dict[str, Any] | None, got: dict[str, Any] | None) -> Difference:
    return Difference(number, _text(expected), _text(got))


def _text(line: dict[str, Any] | None) -> str:
    return NOTHING if line is None else json.dumps(line, sort_keys=True)


def _words(exc: Exception) -> str:
    return f"{exc.args[0]!r} is missing" if isinstance(exc, KeyError) else str(exc)


# ------------------------------------------------------------------------------------------------------- show
# A recording as text for people, with the times, inputs, outputs, and the messages in the bytes.


LIMIT = 1 << 26  # bytes; larger compressed messages are not shown


def show_recording(lines: Iterable[str]) -> Iterator[str]:
    """Yield a recording as readable lines of text. Raises `RecordingError` for a malformed recording.

    The function reads the recording line by line. Times are in seconds since the first fact or command. `>`
    marks an input, and `<` marks an output.
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
            yield from (f"{when} {words}" for words in _lines(line, decoders))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise RecordingError(number, "the line is malformed") from None


class Narrator:
    """A writer for `Recorder` that passes each line as readable text to `tell` at once, without times.

    For example, `Recorder(Narrator(print))` prints all inputs and outputs.
    """

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._decoders: dict[Any, Decoder] = {}

    def __call__(self, text: str) -> None:
        """Pass one line of a recording to `tell` as readable text."""
        line = json.loads(text)
        line.pop("now", None)
        if "format" in line:
            self._tell(f"{line['kind']} config {dump(line['config'])}")
        elif "deadline" not in line:
            for words in _lines(line, self._decoders):
                self._tell(words)


def _lines(line: dict[str, Any], decoders: dict[Any, Decoder]) -> Iterator[str]:
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
            yield f"  called {name}: {dump(line)}"
        case {"end": reason}:
            yield "the end" if reason is None else f"the recording ends here: {reason}"
        case _:
            yield "< " + " ".join(f"{key} {dump(value)}" for key, value in line.items())


def _said(message: dict[str, Any]) -> str:
    """Return one message as one line of text."""
    return " ".join(f"{key} {value if key == 'text' else dump(value)}" for key, value in message.items())
