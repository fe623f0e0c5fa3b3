"""One connection on a plain socket that never waits: connecting, with proxy and TLS if wanted, open, closing,
over.

TLS is done in memory: all that comes off the wire is decrypted at once, so a quiet socket means that there is
nothing to read; and the socket has to be waited for only when there is something to write to it.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import evolve

from presence_adapters.connecting import out_of_reach, why_lost, why_not_connected
from presence_adapters.socket_connect import SocketConnect
from presence_proto import ProxyError, ProxyTunnel

if TYPE_CHECKING:
    from presence_proto import OpenTransport, Proxy

CHUNK = 256 * 1024
"""Bytes that are read at once at most, and that are written at once at most."""


class Link:
    """The connection that `wanted` asks for, through `proxy` if there is one. `step` does what can be done
    now, and so does `flush`.

    For `context` see `SocketConnect`.
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
        self.has_more = True  # `step` has something to do at once
        self.context = context
        self._wanted = wanted
        self._proxy = proxy  # until it has made the tunnel
        self._tunnel: ProxyTunnel | None = None
        first = wanted if proxy is None else evolve(wanted, host=proxy.host, port=proxy.port)
        self._connect: SocketConnect | None = SocketConnect(first, context)
        self._sock: socket.socket | None = None
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._unsent = bytearray()  # in plain
        self._wire = bytearray()  # as the socket gets it
        self._is_at_end = False
        self._said_goodbye = False
        self._write_error: OSError | None = None

    # ---------------------------------------------------------------- getters

    def fileno(self) -> int:
        """What to wait for; -1: nothing."""
        if self._connect is not None:
            return self._connect.fileno()
        return -1 if self._sock is None else self._sock.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether to wait for room to write, not only for something to read."""
        return bool(self._wire) if self._connect is None else self._connect.wants_write

    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken yet."""
        return len(self._unsent) + len(self._wire)

    def delay(self) -> float | None:
        """Seconds until `step` is due although `fileno` is quiet; `None`: it is not."""
        if self.has_more:
            return 0.0
        return None if self._connect is None else self._connect.delay()

    # ---------------------------------------------------------------- commands

    def send(self, data: bytes) -> None:
        """Write `data` when there is room."""
        if self._write_error is None:
            self._unsent += data

    def close(self) -> None:
        """Write out what is left, say that this was all, and wait for the other side to end.

        A socket that is closed earlier, with something unread, may destroy what is still on its way.
        """
        self.is_closing = True

    def cut(self) -> None:
        """Close at once."""
        self.has_more = False
        if self._connect is not None:
            self._connect.cancel()
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    # ---------------------------------------------------------------- work

    def step(self, limit: int) -> tuple[bytes, str | None]:
        """Connect on, or read `limit` bytes at most: what came in, and why it ended, if it did.

        `is_open` says whether the connection is there; what came in, came after that.
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
        except (OSError, ValueError, ProxyError) as exc:
            reason = why_lost(exc) if self.is_open else self._why_not_open(exc)
            self.flush()  # TLS tells the other side what is wrong
        else:
            return b"".join(data), None
        self.cut()
        return b"".join(data), reason

    def flush(self) -> None:
        """Write what the socket takes at once."""
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
            # What the other side has sent before is still to be read. The end comes after it.
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
        """The stream is the server's now. What came of it with a proxy's answer is added to `data`."""
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
        """Adds to `data`; raises EOFError at the end, when there is nothing to add any more."""
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
            return  # nobody wants to know
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
        """From `_unsent` to `_wire`, a piece at a time."""
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
            with suppress(ssl.SSLError):  # it would like to read their goodbye, too
                self._tls.unwrap()
            self._tls = None
        self._wire += self._outgoing.read()
