"""A hub in a process of its own, honest clients in another, and raw WebSockets to attack it with.

    async with hub() as server, honest(server, 100) as others:
        socket = await Socket.open(server.port)
        ...
    others.report, server.peak

Honest clients join one topic, are present there, and send a heartbeat every `INTERVAL` seconds. Their report
has the round trips in seconds, how many connections ended, and the bytes that they read.

`SCALE` multiplies the numbers of an attack: a test run has small ones, `ATTACK_SCALE=1` the full ones.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import struct
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SCALE = float(os.environ.get("ATTACK_SCALE", "0.1"))
INTERVAL = 0.25  # seconds between heartbeats
PHOENIX = "/socket/websocket?vsn=2.0.0"
SUPABASE = "/realtime/v1/websocket?vsn=2.0.0&apikey=x"
JARVIS = "/"
TOPIC = "realtime:room"
TESTS = Path(__file__).parent.parent


def scaled(number: int, least: int = 2) -> int:
    """A number of the full attack, as large as this run has it."""
    return max(least, round(number * SCALE))


class Socket:
    """A WebSocket client that does what it is told, and may leave unread what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.bytes_read = 0
        self.close_code: int | None = None  # that the hub sent
        self._ref = 0

    @classmethod
    async def open(cls, port: int, path: str = SUPABASE, *, headers: str = "", limit: int = 1 << 20) -> Self:
        """Connect. Raises `ConnectionError` when the hub refuses."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
        try:
            writer.write(_request(f"127.0.0.1:{port}", path, headers))
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 101 " not in head.splitlines()[0]:
                raise ConnectionRefusedError(head.splitlines()[0].decode())
        except BaseException as exc:
            writer.transport.abort()
            if isinstance(exc, asyncio.IncompleteReadError):
                raise ConnectionResetError("the hub hung up") from None
            raise
        return cls(reader, writer)

    def send(self, message: Any) -> None:
        """Send a text message, masked with zeros."""
        self.write(frame(json.dumps(message).encode()))

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)

    def push(self, topic: str, event: str, payload: Any, join_ref: str | None = "1") -> str:
        """Send a Phoenix message. Returns its ref."""
        self._ref += 1
        self.send([join_ref, str(self._ref), topic, event, payload])
        return str(self._ref)

    def join(self, topic: str = TOPIC, key: str = "", *, presence: bool = True) -> str:
        """Join a channel, as the first message of the connection."""
        config = {"presence": {"enabled": presence, "key": key}, "broadcast": {"ack": True}}
        return self.push(topic, "phx_join", {"config": config})

    def track(self, meta: Any, topic: str = TOPIC) -> str:
        """Be present."""
        return self.push(topic, "presence", {"type": "presence", "event": "track", "payload": meta})

    async def read(self) -> bytes | None:
        """The next message, or `None` at the end of the connection."""
        try:
            while True:
                head = await self.reader.readexactly(2)
                length = head[1] & 0x7F
                if length > 125:
                    size = 2 if length == 126 else 8
                    length = int.from_bytes(await self.reader.readexactly(size), "big")
                data = await self.reader.readexactly(length)
                self.bytes_read += length
                opcode = head[0] & 0x0F
                if opcode == 8:
                    self.close_code = int.from_bytes(data[:2], "big")
                elif opcode < 8:
                    return data
        except (OSError, EOFError):
            return None

    async def reply(self, ref: str) -> Any:
        """The payload of a Phoenix reply, or `None` at the end. What comes before it is dropped."""
        while (data := await self.read()) is not None:
            if f'"{ref}"'.encode() in data[:64]:
                _, got, _, event, payload = json.loads(data)
                if got == ref and event == "phx_reply":
                    return payload
        return None

    def close(self) -> None:
        """Drop the connection."""
        with suppress(OSError):
            self.writer.transport.abort()


def _request(host: str, path: str, headers: str = "") -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{headers}\r\n"
    ).encode()


def frame(data: bytes, opcode: int = 1, *, fin: bool = True) -> bytes:
    """A client's frame, masked with zeros."""
    first = opcode | (0x80 if fin else 0)
    size = len(data)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + b"\0\0\0\0" + data


# ---------------------------------------------------------------------------------------------- processes


@define
class HubProcess:
    """A hub that runs. `log`: its lines, at the end. `peak`: bytes of memory, at most."""

    port: int
    process: asyncio.subprocess.Process
    log: list[str] = field(factory=list)
    peak: int = 0

    @property
    def memory(self) -> int:
        """Resident bytes now."""
        return self._status("VmRSS:")

    @property
    def cpu(self) -> float:
        """Seconds of CPU until now."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def look(self) -> None:
        """Note the peak."""
        self.peak = self._status("VmHWM:")

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


@define
class Report:
    """What honest clients have to say."""

    round_trips: list[float] = field(factory=list)  # seconds, in the order of the answers
    cut: int = 0
    bytes_read: int = 0
    unanswered: int = 0  # heartbeats, at the end

    def percentile(self, share: float) -> float:
        """Seconds that so large a share of the heartbeats took at most."""
        ordered = sorted(self.round_trips)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@define
class Honest:
    """Honest clients that run. The report comes with their end."""

    process: asyncio.subprocess.Process
    report: Report = field(factory=Report)


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}


@asynccontextmanager
async def hub(config: dict[str, Any] | None = None, **server: Any) -> AsyncIterator[HubProcess]:
    """A hub with these fields of `HubConfig`, and these arguments of `HubServer`.

    `certificate`: the path of a PEM file with certificate and key; the hub speaks TLS then.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "attacks.rig", "hub", json.dumps([config or {}, server])),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    log: list[str] = []
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError((await process.stderr.read()).decode())
    reading = asyncio.create_task(_lines(process.stderr, log))
    running = HubProcess(int(line), process, log)
    try:
        yield running
        running.look()
    finally:
        process.stdin.close()
        await process.wait()
        await reading


async def _lines(stream: asyncio.StreamReader, log: list[str]) -> None:
    async for line in stream:
        log.append(line.decode().rstrip())


@asynccontextmanager
async def honest(
    server: HubProcess, count: int, topic: str = TOPIC, *, present: bool = True
) -> AsyncIterator[Honest]:
    """So many honest clients, which have joined. Their report is there after the `with`."""
    arguments = [str(server.port), str(count), topic, "present" if present else "absent"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "attacks.rig", "honest", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=_environment(),
        limit=1 << 26,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    clients = Honest(process)
    try:
        yield clients
    finally:
        process.stdin.close()
        line = await process.stdout.readline()
        await process.wait()
    clients.report = Report(**json.loads(line))


async def _run_hub(arguments: str) -> None:
    import logging

    from presence_adapters.server import HubServer
    from presence_proto import HubConfig

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    config, server_arguments = json.loads(arguments)
    if (certificate := server_arguments.pop("certificate", None)) is not None:
        server_arguments["ssl_context"] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_arguments["ssl_context"].load_cert_chain(certificate)
    async with HubServer(HubConfig(**config), **server_arguments) as server:
        print(server.port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


class _Skimmer(asyncio.BufferedProtocol):
    """A WebSocket client that looks at the start of each message only, so that reading costs it little."""

    HEAD = 64  # bytes of a message that are kept

    def __init__(self) -> None:
        self._space = bytearray(256 * 1024)
        self._view = memoryview(self._space)
        self._pending = b""  # of a header
        self._rest = 0  # bytes of the payload that are to come
        self._message = b""
        self._upgraded = False
        self._ref = 0
        self.joined = asyncio.Event()
        self.is_over = False
        self.bytes_read = 0
        self.sent: dict[bytes, float] = {}  # heartbeats without an answer
        self.round_trips: list[float] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(_request("127.0.0.1", SUPABASE))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = True

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._space

    def buffer_updated(self, nbytes: int) -> None:
        self.bytes_read += nbytes
        if self._rest >= nbytes:
            self._rest -= nbytes
            return
        data = self._pending + bytes(self._view[self._rest : nbytes])
        self._rest, self._pending = 0, b""
        if not self._upgraded:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._pending = head
                return
            self._upgraded = True
        at = 0
        while at + 10 <= len(data) or (at + 2 <= len(data) and data[at + 1] < 126):
            length, start = data[at + 1], at + 2
            if length > 125:
                start += 2 if length == 126 else 8
                length = int.from_bytes(data[at + 2 : start], "big")
            if start + min(length, self.HEAD) > len(data):
                break
            self._on_message(data[start : start + self.HEAD])
            at = start + length
        if at > len(data):
            self._rest = at - len(data)
        else:
            self._pending = data[at:]

    def _on_message(self, head: bytes) -> None:
        if b'"phx_reply"' in head and b'"phoenix"' in head:
            began = self.sent.pop(head.split(b",", 2)[1].strip(b'" '), None)
            if began is not None:
                self.round_trips.append(asyncio.get_running_loop().time() - began)
        elif b'"phx_reply"' in head:
            self.joined.set()

    def push(self, topic: str, event: str, payload: Any, join_ref: str | None = "1") -> bytes:
        self._ref += 1
        ref = str(self._ref)
        self.transport.write(frame(json.dumps([join_ref, ref, topic, event, payload]).encode()))
        return ref.encode()


async def _run_honest(port: int, count: int, topic: str, *, present: bool) -> None:
    report = Report()
    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(_Skimmer, "127.0.0.1", port))[1] for _ in range(count)]
    for number, client in enumerate(clients):
        config = {"presence": {"enabled": True, "key": f"honest-{number}"}}
        client.push(topic, "phx_join", {"config": config})
        await client.joined.wait()
        if present:
            track = {"type": "presence", "event": "track", "payload": {"number": number}}
            client.push(topic, "presence", track)
    stopping = asyncio.Event()

    async def beat(client: _Skimmer, delay: float) -> None:
        await asyncio.sleep(delay)
        while not stopping.is_set() and not client.is_over:
            began = loop.time()
            client.sent[client.push("phoenix", "heartbeat", {}, None)] = began
            await asyncio.sleep(INTERVAL)

    tasks = [
        asyncio.create_task(beat(client, INTERVAL * number / count)) for number, client in enumerate(clients)
    ]
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    stopping.set()
    await asyncio.sleep(2 * INTERVAL)
    for task in tasks:
        task.cancel()
    report.cut = sum(client.is_over for client in clients)
    for client in clients:
        report.round_trips += client.round_trips
        report.unanswered += len(client.sent)
        report.bytes_read += client.bytes_read
        client.transport.abort()
    fields = ("round_trips", "cut", "bytes_read", "unanswered")
    print(json.dumps({name: getattr(report, name) for name in fields}), flush=True)


def _main() -> None:
    kind, *arguments = sys.argv[1:]
    if kind == "hub":
        asyncio.run(_run_hub(arguments[0]))
    else:
        port, count, topic, presence = arguments
        asyncio.run(_run_honest(int(port), int(count), topic, present=presence == "present"))


if __name__ == "__main__":
    _main()
