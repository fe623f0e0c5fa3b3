"""Set-ups that are broken, each in one way, with real servers and sockets, for `presence doctor` to name.

A set-up is an async context manager: it yields the settings that lead to it. `SETUPS` has them by the name of
the fault.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, TypeAlias

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from adapters.proxy import ProxyThread
from presence_adapters.server import HubServer
from presence_proto import HubConfig
from presence_proto.testing import FaultyHub
from presence_proto.websocket import WebSocket

World: TypeAlias = "Workshop"
Answer: TypeAlias = bytes | Callable[[], bytes] | None
Setup: TypeAlias = Callable[[World], AbstractAsyncContextManager[dict[str, Any]]]

KEY = "the-right-key"
SHORT = 0.8
"""Seconds of patience, where the fault is that something does not come. All else has to come in that time."""


class Workshop:
    """What the set-ups need of the test: a certificate authority, a folder, the environment, broken DNS."""

    def __init__(self, tmp_path: Any, monkeypatch: Any) -> None:
        self.tmp_path = tmp_path
        self.monkeypatch = monkeypatch
        self.authority = trustme.CA()
        self.trust = str(tmp_path / "ca.pem")
        self.authority.cert_pem.write_to_path(self.trust)

    def tls(self, *names: str, **options: Any) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(*names or ("127.0.0.1",), **options).configure_cert(context)
        return context

    def no_dns(self, code: int) -> None:
        def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
            raise socket.gaierror(code, "planted")

        self.monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    def proxy(self, url: str) -> None:
        self.monkeypatch.setenv("http_proxy", url)
        self.monkeypatch.setenv("https_proxy", url)


def jwt(**claims: Any) -> str:
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT"}, claims)] + [b"signature"]
    return ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


# ---------------------------------------------------------------------------------------------- servers


@asynccontextmanager
async def raw(
    answer: bytes | Callable[[], bytes] | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    hold: bool = False,
) -> AsyncIterator[int]:
    """A server that says `answer` to the first bytes and hangs up, unless it is to `hold`. Yields the port.

    Without an answer it reads and says nothing.
    """
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        data = await reader.read(65536)
        if answer is not None and data:
            writer.write(answer() if callable(answer) else answer)
        if answer is not None and not hold:
            writer.close()
        while data:
            data = await reader.read(65536)
        writer.close()

    server = await asyncio.start_server(_quietly(serve), "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.005)


def _quietly(serve: Any) -> Any:
    async def quiet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except OSError:
            pass

    return quiet


def http(status: str, *headers: str, body: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close", "", body]
    return "\r\n".join(lines).encode()


def dated(status: str, **off: float) -> Callable[[], bytes]:
    """An answer with the time of its sending, or of a clock that is off."""
    return lambda: http(status, "Date: " + format_datetime(datetime.now(UTC) + timedelta(**off), usegmt=True))


def answers(status: str, *headers: str, body: str = "", **settings: Any) -> Setup:
    """A server that gives one HTTP answer."""
    return says(http(status, *headers, body=body), **settings)


def says(answer: Answer, **settings: Any) -> Setup:
    """A server that says this."""

    @asynccontextmanager
    async def setup(world: World) -> AsyncIterator[dict[str, Any]]:
        async with raw(answer) as port:
            yield {"server_url": f"ws://127.0.0.1:{port}", **settings}

    return setup


def hub(config: HubConfig | None = None, path: str = "/realtime/v1", **settings: Any) -> Setup:
    """A hub."""

    @asynccontextmanager
    async def setup(world: World) -> AsyncIterator[dict[str, Any]]:
        async with HubServer(config) as server:
            yield {"server_url": server.url + path, **settings}

    return setup


def faulty(**faults: Any) -> Setup:
    """A hub with some faults."""

    @asynccontextmanager
    async def setup(world: World) -> AsyncIterator[dict[str, Any]]:
        async with HubServer(hub_type=FaultyHub) as server:
            server.set_faults(**faults)
            yield {"server_url": f"{server.url}/realtime/v1", "timeout": SHORT}

    return setup


def refusing(reason: str, **settings: Any) -> Setup:
    """A hub that refuses joins for a reason."""
    return hub(HubConfig(authorize=lambda topic, token: reason), **settings)


def closing(when: str, reason: str) -> Setup:
    """A hub that ends the channel, after it has let somebody in and before it says who is there."""

    @asynccontextmanager
    async def setup(world: World) -> AsyncIterator[dict[str, Any]]:
        def happened(event: Any) -> None:
            if type(event).__name__ == when:
                asyncio.get_running_loop().call_soon(act)

        def act() -> None:
            if when == "TopicJoined":
                server.run(server.hub.close_channel, "realtime:jarvis-presence", reason=reason)
            else:
                server.run(server.hub.disconnect, server.hub.connections[0], 1011, reason)

        async with HubServer(hub_type=FaultyHub, on_event=happened) as server:
            server.set_faults(states_withheld=True, joins_ignored=when == "ClientConnected")
            yield {"server_url": f"{server.url}/realtime/v1"}

    return setup


@asynccontextmanager
async def talker(*texts: str, code: int | None = None) -> AsyncIterator[int]:
    """A WebSocket server that says something when it is spoken to, whatever it is told.

    With a `code` it closes the WebSocket as soon as that is open.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        websocket = WebSocket.server(max_message_size=65536)
        while data := await reader.read(65536):
            websocket.receive_data(data)
            while (event := websocket.next_event()) is not None:
                if type(event).__name__ == "HandshakeRequest":
                    websocket.accept()
                    if code is not None:
                        websocket.close(code, "we are full")
                elif type(event).__name__ == "TextMessage":
                    for text in texts:
                        websocket.send_text(text.encode())
            writer.write(websocket.data_to_send())
        writer.close()

    server = await asyncio.start_server(_quietly(serve), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.005)


def over_tls(
    answer: bytes | Callable[[], bytes] | None = b"",
    *names: str,
    trusted: bool = True,
    host: str = "127.0.0.1",
    **dates: Any,
) -> Setup:
    """A server with a certificate for `names`, valid for the days from `since` to `until`."""

    @asynccontextmanager
    async def setup(world: World) -> AsyncIterator[dict[str, Any]]:
        days = {name: datetime.now(UTC) + timedelta(days=value) for name, value in dates.items()}
        context = world.tls(*names, **days)
        async with raw(answer, tls=context) as port:
            trust = {"tls_ca": world.trust} if trusted else {}
            yield {"server_url": f"wss://{host}:{port}", **trust}

    return setup


def behind_proxy(answer: Any = None, **settings: Any) -> Setup:
    """A way that leads through a proxy, which says `answer`."""

    @asynccontextmanager
    async def setup(world: World) -> AsyncIterator[dict[str, Any]]:
        with ProxyThread(answer) as proxy:
            world.proxy(proxy.url)
            yield {"server_url": "wss://room.test", **settings}

    return setup


def supabase(answer: bytes) -> Setup:
    """What looks like a Supabase project, by way of a proxy, and says `answer`."""

    @asynccontextmanager
    async def setup(world: World) -> AsyncIterator[dict[str, Any]]:
        with ProxyThread() as proxy:
            world.proxy(proxy.url)
            async with raw(answer, tls=world.tls("abc.supabase.co")) as port:
                yield {
                    "server_url": f"wss://abc.supabase.co:{port}",
                    "PRESENCE_API_KEY": KEY,
                    "tls_ca": world.trust,
                }

    return setup


def settings(**given: Any) -> Setup:
    """No server at all."""

    @asynccontextmanager
    async def setup(world: World) -> AsyncIterator[dict[str, Any]]:
        yield given

    return setup


# ---------------------------------------------------------------------------------------------- special ones


@asynccontextmanager
async def no_name(world: World) -> AsyncIterator[dict[str, Any]]:
    world.no_dns(socket.EAI_NONAME)
    yield {"server_url": "ws://nowhere.test"}


@asynccontextmanager
async def no_project(world: World) -> AsyncIterator[dict[str, Any]]:
    world.no_dns(socket.EAI_NONAME)
    yield {"server_url": "abcdefghijklmnopqrst", "PRESENCE_API_KEY": KEY}


@asynccontextmanager
async def no_proxy_name(world: World) -> AsyncIterator[dict[str, Any]]:
    world.no_dns(socket.EAI_NONAME)
    world.proxy("http://proxy.test:3128")
    yield {"server_url": "ws://room.test"}


@asynccontextmanager
async def no_name_server(world: World) -> AsyncIterator[dict[str, Any]]:
    world.no_dns(socket.EAI_AGAIN)
    yield {"server_url": "ws://room.test"}


@asynccontextmanager
async def refused_port(world: World) -> AsyncIterator[dict[str, Any]]:
    yield {"server_url": f"ws://127.0.0.1:{free_port()}"}


@asynccontextmanager
async def full_port(world: World) -> AsyncIterator[dict[str, Any]]:
    """A port whose queue is full: it drops whoever knocks, as a firewall does."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            knocking = stack.enter_context(socket.socket())
            knocking.setblocking(False)
            knocking.connect_ex(listener.getsockname())
        await asyncio.sleep(0.05)
        yield {"server_url": f"ws://127.0.0.1:{listener.getsockname()[1]}", "timeout": SHORT}


@asynccontextmanager
async def proxy_down(world: World) -> AsyncIterator[dict[str, Any]]:
    world.proxy(f"http://127.0.0.1:{free_port()}")
    yield {"server_url": "ws://room.test"}


@asynccontextmanager
async def own_certificate(world: World) -> AsyncIterator[dict[str, Any]]:
    key = world.tmp_path / "own.pem"
    key.write_bytes(world.authority.private_key_pem.bytes() + world.authority.cert_pem.bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(key)
    async with raw(b"", tls=context) as port:
        yield {"server_url": f"wss://127.0.0.1:{port}"}


@asynccontextmanager
async def certificate_of_a_client(world: World) -> AsyncIterator[dict[str, Any]]:
    """A server whose certificate says that it is for clients only."""
    authority = x509.load_pem_x509_certificate(world.authority.cert_pem.bytes())
    signer = serialization.load_pem_private_key(world.authority.private_key_pem.bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a client")]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    file = world.tmp_path / "client.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    async with raw(b"", tls=context) as port:
        yield {"server_url": f"wss://localhost:{port}", "tls_ca": world.trust}


@asynccontextmanager
async def mutual_tls(world: World) -> AsyncIterator[dict[str, Any]]:
    """A server that wants certificates of its clients. (asyncio's would not say why it hangs up.)"""
    context = world.tls()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(world.trust)

    def serve() -> None:
        sock, _ = listener.accept()
        with context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False) as tls:
            with suppress(ssl.SSLError):
                tls.do_handshake()
            while os.read(tls.fileno(), 4096):  # until the client has heard it, too
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield {"server_url": f"wss://127.0.0.1:{listener.getsockname()[1]}", "tls_ca": world.trust}
        thread.join()


@asynccontextmanager
async def other_ciphers(world: World) -> AsyncIterator[dict[str, Any]]:
    alert = b"\x15\x03\x03\x00\x02\x02\x28"  # fatal: handshake_failure
    async with raw(alert) as port:
        yield {"server_url": f"wss://127.0.0.1:{port}"}


@asynccontextmanager
async def spoken_to_in_plain_text(world: World) -> AsyncIterator[dict[str, Any]]:
    async with HubServer(ssl_context=world.tls()) as server:
        yield {"server_url": server.url.replace("wss:", "ws:")}


@asynccontextmanager
async def wanted_in_tls(world: World) -> AsyncIterator[dict[str, Any]]:
    async with HubServer() as server:
        yield {"server_url": server.url.replace("ws:", "wss:")}


@asynccontextmanager
async def full_hub(world: World) -> AsyncIterator[dict[str, Any]]:
    async with HubServer(HubConfig(max_connections=1)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"GET /socket/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert b" 101 " in await reader.readline()
        yield {"server_url": server.url}
        writer.close()


@asynccontextmanager
async def mute(world: World) -> AsyncIterator[dict[str, Any]]:
    async with raw() as port:
        yield {"server_url": f"ws://127.0.0.1:{port}", "timeout": SHORT}


@asynccontextmanager
async def mute_for_tls(world: World) -> AsyncIterator[dict[str, Any]]:
    async with raw() as port:
        yield {"server_url": f"wss://127.0.0.1:{port}", "timeout": SHORT}


@asynccontextmanager
async def hangs_up(world: World) -> AsyncIterator[dict[str, Any]]:
    async with raw(b"") as port:
        yield {"server_url": f"ws://127.0.0.1:{port}"}


@asynccontextmanager
async def hangs_up_on_tls(world: World) -> AsyncIterator[dict[str, Any]]:
    async with raw(b"") as port:
        yield {"server_url": f"wss://127.0.0.1:{port}"}


@asynccontextmanager
async def another_service(world: World) -> AsyncIterator[dict[str, Any]]:
    async with raw(b"SSH-2.0-OpenSSH_9.6\r\n") as port:
        yield {"server_url": f"ws://127.0.0.1:{port}"}


@asynccontextmanager
async def silent_proxy(world: World) -> AsyncIterator[dict[str, Any]]:
    def silent(sock: socket.socket) -> None:
        sock.recv(1)

    with ProxyThread(silent) as proxy:
        world.proxy(proxy.url)
        yield {"server_url": "ws://room.test", "timeout": SHORT}


@asynccontextmanager
async def late_goodbye(world: World) -> AsyncIterator[dict[str, Any]]:
    """A hub that ends the connection as soon as a check-up is in the channel and knows who is there."""

    def happened(event: Any) -> None:
        if type(event).__name__ == "TopicJoined":
            loop = asyncio.get_running_loop()
            loop.call_later(0.05, lambda: server.run(server.hub.disconnect, server.hub.connections[0], 1011))

    async with HubServer(hub_type=FaultyHub, on_event=happened) as server:
        server.set_faults(heartbeats_muted=True)
        yield {"server_url": f"{server.url}/realtime/v1"}


def _keyed() -> HubConfig:
    return HubConfig(api_keys={KEY})


_NOW = time.time()
_PAGE = "<!DOCTYPE html><title>Welcome to our hotel</title>"

SETUPS: dict[str, Setup] = {
    # settings
    "wrong-settings": settings(server_url="ws://127.0.0.1:4000", heartbeat_interval="soon"),
    "presence-off": settings(server_url="ws://127.0.0.1:4000", enabled="false"),
    "no-api-key": settings(server_url="abcdefghijklmnopqrst"),
    "wrong-project": settings(server_url="abcdefghijklmnopqrst", PRESENCE_API_KEY=jwt(ref="another")),
    # the way
    "no-such-proxy": no_proxy_name,
    "no-such-project": no_project,
    "no-such-host": no_name,
    "no-name-server": no_name_server,
    "proxy-down": proxy_down,
    "refused-port": refused_port,
    "no-answer": full_port,
    "no-route": settings(server_url="ws://255.255.255.255"),
    "proxy-login": behind_proxy(http("407 Proxy Authentication Required", "Proxy-Authenticate: Basic")),
    "proxy-no-way": behind_proxy(http("502 Bad Gateway")),
    "proxy-refuses": behind_proxy(http("403 Forbidden", body=_PAGE)),
    "proxy-silent": silent_proxy,
    "tunnel-speaks-first": behind_proxy(b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-OpenSSH_9.6\r\n"),
    "no-proxy": behind_proxy(b"220 mail.test ESMTP\r\n"),
    # TLS
    "clock-off-tls": over_tls(dated("200 OK", days=-20), not_before=-40, not_after=-10),
    "certificate-expired": over_tls(dated("200 OK"), not_before=-40, not_after=-10),
    "certificate-early": over_tls(http("200 OK"), not_before=10, not_after=40),
    "self-signed": own_certificate,
    "unknown-issuer": over_tls(trusted=False),
    "other-host": over_tls(b"", "other.test"),
    "bad-certificate": certificate_of_a_client,
    "no-tls": wanted_in_tls,
    "tls-closed": hangs_up_on_tls,
    "tls-silent": mute_for_tls,
    "tls-failed": other_ciphers,
    # the handshake
    "tls-wanted": spoken_to_in_plain_text,
    "redirect-to-tls": answers("301 Moved Permanently", "Location: https://127.0.0.1/realtime", body=_PAGE),
    "redirect": over_tls(http("301 Moved Permanently", "Location: https://www.room.test/", body=_PAGE)),
    "hidden-proxy": answers("407 Proxy Authentication Required"),
    "portal": supabase(http("200 OK", "Content-Type: text/html", body=_PAGE)),
    "wrong-protocol-phoenix": hub(HubConfig(protocol="phoenix"), path="", protocol="jarvis"),
    "no-such-tenant": answers("404 Not Found", body='{"error": "Tenant not found"}'),
    "wrong-path": answers("404 Not Found", body="not found"),
    "rate-limited": full_hub,
    "project-paused": supabase(http("540 Project paused", body='{"message":"paused"}')),
    "project-restricted": supabase(http("402 Payment Required", body='{"message":"overdue_payment"}')),
    "unavailable": faulty(handshakes_to_refuse=9),
    "no-websocket": answers("200 OK", "Content-Type: text/html", body=_PAGE),
    "broken-upgrade": answers("101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"),
    "not-http": another_service,
    "wants-certificate": mutual_tls,
    "hung-up": hangs_up,
    "mute-server": mute,
    "clock-off": says(dated("403 Forbidden", hours=-3), PRESENCE_API_KEY=KEY),
    # the key and the token
    "api-key-expired": answers("401 Unauthorized", PRESENCE_API_KEY=jwt(exp=_NOW - 99)),
    "token-expired": answers("403 Forbidden", PRESENCE_API_KEY=KEY, PRESENCE_ACCESS_TOKEN=jwt(exp=_NOW - 99)),
    "token-early": answers(
        "403 Forbidden", PRESENCE_API_KEY=KEY, PRESENCE_ACCESS_TOKEN=jwt(iat=_NOW + 3600, exp=_NOW + 7200)
    ),
    "api-key-missing": hub(_keyed()),
    "wrong-api-key": hub(_keyed(), PRESENCE_API_KEY="the-wrong-key"),
    # the channel
    "api-key-expired-join": refusing(
        "InvalidJWTToken: Token has expired 99 seconds ago", PRESENCE_API_KEY=jwt(exp=_NOW - 99)
    ),
    "token-expired-join": refusing("InvalidJWTToken: Token has expired 300 seconds ago"),
    "token-early-join": refusing("InvalidJWTToken", PRESENCE_ACCESS_TOKEN=jwt(iat=_NOW + 3600)),
    "rate-limited-join": refusing("ClientJoinRateLimitReached: Too many joins per second"),
    "realtime-disabled": refusing("RealtimeDisabledForTenant: Realtime disabled for this tenant"),
    "private-only": refusing("PrivateOnly: This project only allows private channels"),
    "no-rights": refusing("Unauthorized: You do not have permissions to read from this Channel topic"),
    "no-such-channel": refusing("unmatched topic"),
    "join-refused": refusing("it is full moon"),
    "wrong-protocol-jarvis": hub(HubConfig(protocol="jarvis"), protocol="phoenix"),
    "wrong-protocol": hub(HubConfig(protocol="phoenix"), path="/socket/websocket", protocol="jarvis"),
    "lost-in-join": closing("ClientConnected", "maintenance"),
    "join-unanswered": faulty(joins_ignored=True),
    # presence
    "rate-limited-presence": closing("TopicJoined", "Client presence rate limit exceeded"),
    "lost-in-presence": closing("TopicJoined", "maintenance"),
    "presence-disabled": faulty(states_withheld=True),
    # heartbeats
    "lost-in-heartbeat": late_goodbye,
    "heartbeat-unanswered": faulty(heartbeats_muted=True),
}
