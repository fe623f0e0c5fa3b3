"""A `Recorder` records all inputs and outputs of an endpoint, for a later replay."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import evolve, frozen

from presence_proto.endpoint import CloseTransport, OpenTransport, SansIO
from presence_proto.errors import LocalProtocolError
from presence_proto.hub import Hub
from presence_proto.hub.config import HubConfig, join_params_are_the_meta
from presence_proto.presence_client import PresenceClient
from presence_proto.realtime_client import RealtimeClient
from presence_proto.recording.format import (
    CALLS,
    COMMANDS,
    FACTS,
    GETTERS,
    OutputTeller,
    dump,
    from_bytes,
    header,
    to_json,
)
from presence_proto.recording.redaction import CannotRedactError, Inbound, Secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from presence_proto.config import Identity, PresenceConfig, RealtimeConfig
    from presence_proto.endpoint import ConnId, Endpoint

MAX_HELD = 64 * 1024 * 1024
"""Maximum number of characters in lines that wait for the end of a message. With more, recording stops."""

E = TypeVar("E", bound=RealtimeClient | PresenceClient | Hub)


class _RecordedEndpoint(SansIO):
    """A core whose facts, commands and outputs are recorded. `__class__` is the class of this core.

    Each public method is recorded, unless `GETTERS` contains its name. Access to a method that is in no table
    raises `AttributeError`, because a recording without its calls could not be replayed.
    """

    def __init__(
        self,
        core: RealtimeClient | PresenceClient | Hub,
        run: Callable[..., Any],
        drain: Callable[[Endpoint], Sequence[Any]],
    ) -> None:
        self._core = core
        self._run = run
        self._drain = drain
        self._inputs = {*FACTS, *COMMANDS[type(core).__name__]}

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:
        return type(self._core)

    def drain(self) -> Sequence[Any]:
        return self._drain(self._core)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._core, name)
        if name in self._inputs:
            return lambda *args, **kwargs: self._run(name, value, *args, **kwargs)
        if callable(value) and name not in GETTERS:
            raise AttributeError(f"the recorder does not know whether {name} is a command or a getter")
        return value


@frozen
class _Received:
    """A line of the recording that waits until the received bytes in the line are redacted."""

    line: dict[str, Any]
    inbound: Inbound
    size: int


class Recorder:
    """A factory for one recorded endpoint. Call `realtime_client`, `presence_client` or `hub` once.

    The endpoint behaves like an unrecorded endpoint. The recorder passes every fact, command and output to
    `write` as one line of JSON with a newline. The header, written before the first line, contains the
    arguments of the endpoint's constructor. `close` writes the last line.

    Stand-ins of the same length replace secrets. Secrets are keys and tokens, values in queries, headers and
    params, and JSON fields named like a token, a key or a password. A known secret is also replaced in later
    data that quotes the secret. A line with an incomplete message waits for the rest of the message, and all
    later lines wait, too. When a secret cannot be replaced because its message is compressed, the recording
    ends, and the last line gives this reason.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._secrets = Secrets()
        self._lines: deque[str | _Received] = deque()
        self._held = 0  # characters in `_lines`
        self._inbound: dict[ConnId, Inbound] = {}
        self._wanted: set[ConnId] = set()  # requested by a client, but not opened yet
        self._last_conn = -1  # the id of the last opened transport
        self._header: str | None = None  # "" after the header is written
        self._is_hub = False
        self._inside = False  # true during a fact or command: calls from the hub's rules are not recorded
        self._drained = True
        self._ended = False

    # ---------------------------------------------------------------- endpoints

    def realtime_client(self, config: RealtimeConfig, *, rng: Random) -> RealtimeClient:
        """Return a recorded `RealtimeClient`.

        An `rng` is required, because a replay needs the same random numbers.
        """
        self._begin(header("RealtimeClient", config, rng, self._secrets))
        return self._recorded(RealtimeClient(config, rng=rng), config.max_message_size)

    def presence_client(
        self, identity: Identity, config: PresenceConfig, *, rng: Random, online_at: str | None = None
    ) -> PresenceClient:
        """Return a recorded `PresenceClient`.

        An `rng` is required, because a replay needs the same random numbers.
        """
        self._begin(header("PresenceClient", config, rng, self._secrets, identity, online_at))
        client = PresenceClient(identity, config, rng=rng, online_at=online_at)
        return self._recorded(client, config.max_message_size)

    def hub(self, config: HubConfig | None = None, *, rng: Random | None = None) -> Hub:
        """Return a recorded `Hub`. The recording includes the answers of the hub's rules and wall clock."""
        config = HubConfig() if config is None else config
        self._begin(header("Hub", config, rng, self._secrets))
        rules: dict[str, Any] = {
            name: self._asked(name, rule)
            for name in CALLS
            if (rule := getattr(config, name)) not in (None, join_params_are_the_meta)
        }
        return self._recorded(Hub(evolve(config, **rules), rng=rng), config.max_message_size)

    def close(self) -> None:
        """End the recording: write all waiting lines and the last line."""
        self._finish(*self._inbound)
        self._end(None)

    # ---------------------------------------------------------------- inputs

    def _recorded(self, core: E, limit: int) -> E:
        self._limit = limit
        self._teller = OutputTeller(self._secrets, limit)
        return cast("E", _RecordedEndpoint(core, self._run, self._drain))

    def _run(self, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call and record a fact or command."""
        if self._inside or self._ended:
            return method(*args, **kwargs)
        self._went_in(name, args, kwargs)
        self._inside, self._drained = True, False
        try:
            result = method(*args, **kwargs)
        except Exception as exc:
            self._put({"raised": type(exc).__name__})
            raise
        finally:
            self._inside = False
        if result is not None:
            self._put({"returned": result})
        return result

    def _went_in(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        now = {"now": to_json(kwargs.get("now"))}
        if name in FACTS:
            told: dict[str, Any] = dict(zip(FACTS[name], args, strict=False)) | kwargs
            self._fact(name, {**now, "fact": name}, told)
            return
        if name == "set_access_token" and args and isinstance(args[0], str):
            args = (self._secrets.hide(args[0]), *args[1:])
        line = {**now, "command": name, "args": [to_json(arg, self._secrets) for arg in args]}
        more = {key: to_json(value, self._secrets, name=key) for key, value in kwargs.items() if key != "now"}
        self._put({**line, "kwargs": more} if more else line)

    def _fact(self, name: str, line: dict[str, Any], told: dict[str, Any]) -> None:
        conn: Any = told.get("conn")
        match name:
            case "receive_data":
                self._receive({**line, "conn": conn}, bytes(told["data"]))
                return
            case "transport_opened":
                if (address := told.get("address")) is not None:
                    # Addresses are private. Equal addresses get equal stand-ins, so a replay counts in the
                    # same way.
                    told["address"] = self._secrets.hide(address, seek=False)
                if conn in self._wanted or (self._is_hub and conn > self._last_conn):
                    self._wanted.discard(conn)
                    self._last_conn = conn
                    self._inbound[conn] = Inbound(self._secrets, self._limit)
            case "transport_closed":
                self._finish(conn)
        rest = {key: to_json(value, self._secrets) for key, value in told.items() if key != "now"}
        self._put({**line, **rest})

    def _receive(self, line: dict[str, Any], data: bytes) -> None:
        inbound = self._inbound.get(line["conn"])
        if inbound is None:
            # The core ignores this connection. The data may contain secrets, so record zero bytes instead.
            self._put({**line, "data": from_bytes(bytes(len(data)))})
            return
        try:
            inbound.feed(data)
        except CannotRedactError as exc:
            self._end(str(exc))
        self._put(_Received(line, inbound, len(data)))

    def _finish(self, *conns: ConnId) -> None:
        """Stop reading these connections: the core ignores all later data of these connections."""
        for conn in conns:
            self._wanted.discard(conn)
            self._teller.closed(conn)
            if (inbound := self._inbound.pop(conn, None)) is not None:
                try:
                    inbound.finish()
                except CannotRedactError as exc:
                    self._end(str(exc))
        self._flush()

    def _asked(self, name: str, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that calls a rule of the hub's user and records its answers."""

        def ask(*args: Any) -> Any:
            line = {"called": name, "with": to_json(dict(zip(CALLS[name], args, strict=True)), self._secrets)}
            try:
                answer = rule(*args)
            except Exception as exc:
                self._put({**line, "raised": type(exc).__name__})
                raise
            self._put({**line, "returned": to_json(answer, self._secrets)})
            return answer

        return ask

    # ---------------------------------------------------------------- outputs

    def _drain(self, core: Endpoint) -> Sequence[Any]:
        outputs = core.drain()
        for output in outputs:
            self._came_out(output)
        if not self._drained:
            self._drained = True
            self._teller.drained()
            self._put({"deadline": core.next_deadline()})
        return outputs

    def _came_out(self, output: Any) -> None:
        if self._ended:
            return
        if isinstance(output, OpenTransport):
            self._wanted.add(output.conn)
        elif isinstance(output, CloseTransport):
            self._finish(output.conn)
        self._put(self._teller.tell(output))

    # ---------------------------------------------------------------- lines

    def _begin(self, line: dict[str, Any]) -> None:
        if self._header is not None:
            raise LocalProtocolError("a Recorder records only one endpoint: create another Recorder")
        self._header = dump(line) + "\n"
        self._is_hub = line["kind"] == "Hub"

    def _put(self, line: dict[str, Any] | _Received) -> None:
        if self._ended:
            return
        entry = line if isinstance(line, _Received) else dump(line) + "\n"
        self._lines.append(entry)
        self._held += _size(entry)
        self._flush()
        if self._held > MAX_HELD:
            self._end("a message took too long to be complete")

    def _flush(self) -> None:
        """Write all lines before the first line that waits."""
        while self._lines and not self._ended:
            entry = self._lines[0]
            if isinstance(entry, str):
                text = entry
            elif entry.inbound.ready >= entry.size:
                text = dump({**entry.line, "data": from_bytes(entry.inbound.take(entry.size))}) + "\n"
            else:
                return
            self._lines.popleft()
            self._held -= _size(entry)
            self._write_out(text)

    def _write_out(self, text: str) -> None:
        if self._header:
            self._write(self._header)
            self._header = ""
        self._write(text)

    def _end(self, reason: str | None) -> None:
        """Write the last line.

        `reason` says why the recording ends before its endpoint. After a complete recording, `reason` is
        `None`.
        """
        if not self._ended:
            self._flush()
            self._ended = True
            self._lines.clear()
            if self._header == "":  # the header, and so at least one line, was written
                self._write_out(dump({"end": reason}) + "\n")


def _size(entry: str | _Received) -> int:
    return len(entry) if isinstance(entry, str) else 2 * entry.size
