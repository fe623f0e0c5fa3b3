"""`Link`: one connection on a non-blocking socket, with an optional proxy and TLS.

TLS runs in memory (`ssl.MemoryBIO`). All received bytes are decrypted at once, so no data is left unread
while the socket is not readable. An open connection waits for writability only while data is pending.
"""

from __future__ import annotations

import os
import selectors
import socket
import ssl
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec.structs import replace

from presence_adapters.daemon_thread import DaemonCall
from presence_adapters.tls_and_proxies import (
    STAGGER,
    client_context,
    in_turn,
    look_up,
    none_works,
    numeric,
    out_of_reach,
    why_lost,
    why_not_connected,
)
from presence_proto import PresenceError, ProxyError
from presence_proto.websocket import ProxyTunnel

if TYPE_CHECKING:
    from presence_adapters.tls_and_proxies import Found
    from presence_proto import OpenTransport
    from presence_proto.websocket import Proxy


# --------------------------------------------------------------------------------------------- socket connect
# Non-blocking connect to the first address that answers (RFC 8305).


# Not epoll or kqueue: both need a file descriptor, and may keep the registration of a closed socket.
Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)

LOOK_AT_ALL = 0.05
"""Polling interval in seconds while several connects run, because `fileno` returns only one socket."""


class Lookup(DaemonCall["tuple[list[Found], ssl.SSLContext | None]"]):
    """Thread for the slow steps of a connect: looking up the host, and loading the TLS certificates.

    The result contains the addresses and the TLS context. `signal` becomes readable when `is_over`.
    """

    def __init__(self, wanted: OpenTransport, context: ssl.SSLContext | None) -> None:
        self.signal, self._done = socket.socketpair()
        super().__init__(
            f"look up {wanted.host}",
            lambda: (look_up(wanted.host, wanted.port), client_context(context) if wanted.tls else context),
            self._done.close,
        )

    def cancel(self) -> None:
        """Ignore the result. The thread ends when the system call returns."""
        self.signal.close()
        self._done.close()


class SocketConnect:
    """TCP connect to the host of `wanted`. Call `step` until a call returns a socket or raises.

    The connects to all addresses run in parallel and start `STAGGER` seconds apart. The first success wins.
    `context`: the TLS context; if `None` and TLS is wanted, the look-up thread creates it.
    """

    def __init__(self, wanted: OpenTransport, context: ssl.SSLContext | None) -> None:
        self.context = context
        self._wanted = wanted
        self._lookup: Lookup | None = None
        self._addresses: list[Found] | None = None  # addresses not tried yet; `None` before the look-up
        self._socks: list[socket.socket] = []  # sockets that are connecting, oldest first
        self._errors: list[OSError] = []
        self._next_at = 0.0  # start of the next attempt, by the monotonic clock

    # Two consecutive sockets never have the same file descriptor, because the next socket is opened before
    # the last socket is closed. Code that has registered a descriptor therefore sees the change.

    def fileno(self) -> int:
        """File descriptor to wait on: readable after the look-up, writable after a connect; -1 if none."""
        if self._lookup is not None:
            return self._lookup.signal.fileno()
        return self._socks[0].fileno() if self._socks else -1

    @property
    def wants_write(self) -> bool:
        """Whether to wait for writability, which signals the end of a connect."""
        return bool(self._socks)

    def delay(self) -> float | None:
        """Seconds until `step` is due without activity on `fileno`; `None` if no `step` is due."""
        if not self._socks:
            return None
        times = [self._next_at - time.monotonic()] if self._addresses else []
        times += [LOOK_AT_ALL] if len(self._socks) > 1 else []
        return max(0.0, min(times)) if times else None

    def step(self) -> socket.socket | None:
        """Make progress without waiting. Return the connected socket, which the caller then owns, or `None`.

        Raises `OSError` or `UnicodeError` when no address works.
        """
        if not self._find():
            return None
        over: list[socket.socket] = []
        try:
            while True:
                self._begin(over)
                known = len(over)
                for sock in list(filter(_is_settled, self._socks)):
                    self._socks.remove(sock)
                    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not error:
                        over += self._socks
                        self._socks = []
                        return sock
                    self._fail(OSError(error, os.strerror(error)), sock, over)
                if len(over) == known:
                    return None
        finally:
            for sock in over:
                sock.close()

    def cancel(self) -> None:
        """Abort the look-up and all connects."""
        if self._lookup is not None:
            self._lookup.cancel()
        for sock in self._socks:
            sock.close()
        self._lookup, self._socks = None, []

    def _find(self) -> bool:
        if self._addresses is None:
            if self._lookup is None:
                found = []
                if not self._wanted.tls or self.context is not None:
                    found = numeric(self._wanted.host, self._wanted.port)
                if not found:
                    self._lookup = Lookup(self._wanted, self.context)
                    return False
            elif self._lookup.is_over:
                found, self.context = self._lookup.result()
            else:
                return False
            self._addresses = in_turn(found)
        return True

    def _begin(self, over: list[socket.socket]) -> None:
        """Start to connect to the addresses that are due. Raises `OSError` when all have failed."""
        assert self._addresses is not None
        while self._addresses and (not self._socks or time.monotonic() >= self._next_at):
            family, kind, protocol, _, address = self._addresses.pop(0)
            sock: socket.socket | None = None
            try:
                sock = socket.socket(family, kind, protocol)
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with suppress(BlockingIOError):
                    sock.connect(address)
            except OSError as exc:
                self._fail(exc, sock, over)
            else:
                self._socks.append(sock)
                self._next_at = time.monotonic() + STAGGER
        if not self._socks:
            raise none_works(self._errors)
        if self._lookup is not None:  # not earlier: the new socket must get another descriptor
            self._lookup.cancel()
            self._lookup = None

    def _fail(self, error: OSError, sock: socket.socket | None, over: list[socket.socket]) -> None:
        self._errors.append(error)
        self._next_at = 0.0  # try the next address at once (RFC 8305 §5)
        over += [] if sock is None else [sock]


def _is_settled(sock: socket.socket) -> bool:
    """Whether a connect has succeeded or failed."""
    with Selector() as selector:
        selector.register(sock, selectors.EVENT_WRITE)
        return bool(selector.select(0))


# ------------------------------------------------------------------------------------------------ socket link


CHUNK = 256 * 1024
"""Maximum size of one read and of one write, in bytes."""


class Link:
    """Non-blocking connection to the host of `wanted`, through `proxy` if given.

    `step` connects and reads, `flush` writes. `SocketConnect` describes `context`.
    """

    def __init__(
        self,
        wanted: OpenTransport,
        context: ssl.SSLContext | None,
        proxy: Proxy | None = None,
    ) -> None:
        self.conn = wanted.conn
        self.is_open = False
        self.is_closing = False
        self.has_more = True  # `step` can do work at once
        self.context = context
        self._wanted = wanted
        self._proxy = proxy  # `None` once the tunnel is open
        self._tunnel: ProxyTunnel | None = None
        first = wanted if proxy is None else replace(wanted, host=proxy.host, port=proxy.port)
        self._connect: SocketConnect | None = SocketConnect(first, context)
        self._sock: socket.socket | None = None
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._unsent = bytearray()  # plaintext, not encrypted yet
        self._wire = bytearray()  # bytes to write to the socket
        self._is_at_end = False  # the TLS stream of the server has ended
        self._said_goodbye = False  # whether the socket is shut down for writing
        self._write_error: OSError | None = None

    # ---------------------------------------------------------------- getters

    def fileno(self) -> int:
        """File descriptor to wait on, or -1 if there is no socket."""
        if self._connect is not None:
            return self._connect.fileno()
        return -1 if self._sock is None else self._sock.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether to wait until the socket is writable as well as readable."""
        return bool(self._wire) if self._connect is None else self._connect.wants_write

    @property
    def unsent(self) -> int:
        """Number of bytes that the socket has not accepted yet."""
        return len(self._unsent) + len(self._wire)

    def delay(self) -> float | None:
        """Seconds until `step` is due without activity on `fileno`; `None` if no `step` is due."""
        if self.has_more:
            return 0.0
        return None if self._connect is None else self._connect.delay()

    # ---------------------------------------------------------------- commands

    def send(self, data: bytes) -> None:
        """Queue `data` for `flush`. After a write error, drop `data`."""
        if self._write_error is None:
            self._unsent += data

    def close(self) -> None:
        """Close gracefully: write pending data, shut down the write side, and wait for the peer to close.

        Closing a socket with unread data makes the system send a reset, which may destroy data in flight.
        """
        self.is_closing = True

    def cut(self) -> None:
        """Close the connection at once. Unsent data is lost."""
        self.has_more = False
        if self._connect is not None:
            self._connect.cancel()
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    # ---------------------------------------------------------------- work

    def step(self, limit: int) -> tuple[bytes, str | None]:
        """Continue to connect, or read at most `limit` bytes.

        Return the received bytes and, if the connection has ended, the reason. `is_open` is updated before
        the bytes are returned, because the bytes arrived on the open connection.
        """
        self.has_more = False
        data: list[bytes] = []
        try:
            if self._connect is not None:
                self._connect_on(self._connect, data)
            if self._sock is not None:
                self._receive(self._sock, min(limit, CHUNK), data)
        except EOFError:
            reason = why_lost(self._write_error)
        except (OSError, ValueError, PresenceError) as exc:
            reason = why_lost(exc) if self.is_open else self._why_not_open(exc)
            self.flush()  # sends the TLS alert that describes the error
        else:
            return b"".join(data), None
        self.cut()
        return b"".join(data), reason

    def flush(self) -> None:
        """Write as many bytes as the socket accepts now."""
        if self._sock is None:
            return
        try:
            self._seal()
            if self._wire:
                del self._wire[: self._sock.send(self._wire[:CHUNK])]
                self._seal()
            if self.is_closing and not self.unsent and not self._said_goodbye:
                self._said_goodbye = True
                self._sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError as exc:
            # Do not end the connection here: received data must still be read. `step` reports the end.
            self._write_error = exc
            self._unsent.clear()
            self._wire.clear()

    def _connect_on(self, connect: SocketConnect, data: list[bytes]) -> None:
        try:
            self._sock = connect.step()
        finally:
            self.context = connect.context
        if self._sock is None:
            return
        self._connect = None
        if self._proxy is None:
            self._begin(b"", data)
        else:
            self._tunnel = ProxyTunnel(self._proxy, self._wanted)
            self._wire += self._tunnel.data_to_send()

    def _why_not_open(self, error: Exception) -> str:
        if self._proxy is not None and not isinstance(error, ProxyError):
            error = out_of_reach(error, self._proxy)
        return why_not_connected(error, self._wanted.host, self._wanted.port)

    def _tunnel_on(self, tunnel: ProxyTunnel, raw: bytes, data: list[bytes]) -> None:
        if not raw:
            tunnel.receive_eof()
        tunnel.receive_data(raw)
        self._wire += tunnel.data_to_send()
        if tunnel.is_open:
            self._proxy = self._tunnel = None
            self._begin(tunnel.early_data, data)

    def _begin(self, early: bytes, data: list[bytes]) -> None:
        """Start the stream with the server. `early`: bytes that arrived with the proxy's reply."""
        if self._wanted.tls:
            assert self.context is not None
            self._tls = self.context.wrap_bio(
                self._incoming, self._outgoing, server_hostname=self._wanted.host
            )
            self._shake_hands(self._tls)
        else:
            self.is_open = True
            data.append(early)

    def _receive(self, sock: socket.socket, limit: int, data: list[bytes]) -> None:
        """Append received bytes to `data`. Raises `EOFError` at the end of the stream."""
        if self._is_at_end:
            raise EOFError
        try:
            raw = sock.recv(limit)
        except BlockingIOError:
            return
        self.has_more = len(raw) == limit
        if self._tunnel is not None:
            self._tunnel_on(self._tunnel, raw, data)
            return
        if not raw:
            raise EOFError if self.is_open else ConnectionAbortedError
        if self.is_closing:
            return  # the core has already forgotten this connection
        if self._tls is None:
            data.append(raw)
            return
        self._incoming.write(raw)
        if not self.is_open:
            self._shake_hands(self._tls)
        if self.is_open:
            with suppress(ssl.SSLWantReadError):
                while chunk := self._tls.read(CHUNK):
                    data.append(chunk)
                self._is_at_end = self.has_more = True

    def _shake_hands(self, tls: ssl.SSLObject) -> None:
        with suppress(ssl.SSLWantReadError):
            tls.do_handshake()
            self.is_open = True

    def _seal(self) -> None:
        """Encrypt `_unsent` into `_wire`, piece by piece. Without TLS, copy `_unsent` unchanged."""
        while self._unsent and len(self._wire) < CHUNK:
            taken = CHUNK
            if self._tls is None:
                self._wire += self._unsent[:CHUNK]
            else:
                try:
                    taken = self._tls.write(self._unsent[:CHUNK])
                except ssl.SSLWantReadError:
                    break
                self._wire += self._outgoing.read()
            del self._unsent[:taken]
        if self.is_closing and not self._unsent and self._tls is not None:
            with suppress(ssl.SSLError):  # `unwrap` has not read the peer's close_notify, which is not needed
                self._tls.unwrap()
            self._tls = None
        self._wire += self._outgoing.read()
