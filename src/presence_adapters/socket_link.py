"""One connection on a plain socket that never waits: connecting, with proxy and TLS if wanted, open, closing,
over.

TLS is done in memory: all that comes off the wire is decrypted at once, so a quiet socket means that there is
nothing to read; and the socket has to be waited for only when there is something to write to it.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import evolve

from presence_adapters.connecting import (
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
from presence_proto import ProxyError
from presence_proto.websocket import ProxyTunnel

if TYPE_CHECKING:
    from presence_adapters.connecting import Found
    from presence_proto import OpenTransport
    from presence_proto.websocket import Proxy


# --------------------------------------------------------------------------------------------- socket connect
# Connecting a plain socket without ever waiting, to the first address that answers (RFC 8305).


# Not epoll or kqueue: these are files of their own, and remember sockets that were closed meanwhile.
Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)

LOOK_AT_ALL = 0.05
"""Seconds. So often the sockets are looked at that are on the way beside the one that is waited for."""


class Lookup:
    """What takes long, in a thread: the addresses of a host, and loading the certificates for TLS.

    `signal` becomes readable when it `is_over`.
    """

    def __init__(self, wanted: OpenTransport, context: ssl.SSLContext | None) -> None:
        self.signal, self._done = socket.socketpair()
        self.is_over = False
        self._wanted = wanted
        self._context = context
        self._addresses: list[Found] = []
        self._error: Exception | None = None
        try:
            threading.Thread(target=self._run, name=f"look up {wanted.host}", daemon=True).start()
        except RuntimeError:  # no room for another thread
            self.cancel()
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None

    def result(self) -> tuple[list[Found], ssl.SSLContext | None]:
        """The addresses and the context; raises what is wrong."""
        if self._error is not None:
            raise self._error
        return self._addresses, self._context

    def cancel(self) -> None:
        """Forget it. The thread ends when the system has an answer."""
        self.signal.close()
        self._done.close()

    def _run(self) -> None:
        try:
            self._addresses = look_up(self._wanted.host, self._wanted.port)
            if self._wanted.tls:
                self._context = client_context(self._context)
        except Exception as exc:
            self._error = exc
        self.is_over = True
        self._done.close()


class SocketConnect:
    """Connects to what `wanted` says. `step` until that gives a socket, or raises why there is none.

    The addresses are tried one beside the other, a `STAGGER` apart: the first that answers wins.
    `context` is the one for TLS, made here if there is none yet.
    """

    def __init__(self, wanted: OpenTransport, context: ssl.SSLContext | None) -> None:
        self.context = context
        self._wanted = wanted
        self._lookup: Lookup | None = None
        self._addresses: list[Found] | None = None  # not tried yet
        self._socks: list[socket.socket] = []  # on the way, oldest first
        self._errors: list[OSError] = []
        self._next_at = 0.0  # when the next address is to be tried, by the monotonic clock

    # Two sockets in a row never have the same number: the next one is made before the last one is closed.
    # Who has registered a number with a selector can see that it is another one.

    def fileno(self) -> int:
        """What to wait for: reading while a name is looked up, writing after that. -1: nothing yet."""
        if self._lookup is not None:
            return self._lookup.signal.fileno()
        return self._socks[0].fileno() if self._socks else -1

    @property
    def wants_write(self) -> bool:
        """Whether to wait for room to write, which is how a socket shows that it is connected."""
        return bool(self._socks)

    def delay(self) -> float | None:
        """Seconds until `step` is due although `fileno` is quiet; `None`: it is not."""
        if not self._socks:
            return None
        times = [self._next_at - time.monotonic()] if self._addresses else []
        times += [LOOK_AT_ALL] if len(self._socks) > 1 else []
        return max(0.0, min(times)) if times else None

    def step(self) -> socket.socket | None:
        """Do what can be done now: the socket, once it is connected. It is the caller's then."""
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
        """Give up."""
        if self._lookup is not None:
            self._lookup.cancel()
        for sock in self._socks:
            sock.close()
        self._lookup, self._socks = None, []

    def _find(self) -> bool:
        """Whether the addresses are there."""
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
        """Begin with the next address when it is time; raise when all have failed."""
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
        if self._lookup is not None:  # not before there is a socket, which would get its number
            self._lookup.cancel()
            self._lookup = None

    def _fail(self, error: OSError, sock: socket.socket | None, over: list[socket.socket]) -> None:
        self._errors.append(error)
        self._next_at = 0.0  # the next address need not wait (RFC 8305 §5)
        over += [] if sock is None else [sock]


def _is_settled(sock: socket.socket) -> bool:
    """Whether a connect is over, well or not."""
    with Selector() as selector:
        selector.register(sock, selectors.EVENT_WRITE)
        return bool(selector.select(0))


# ------------------------------------------------------------------------------------------------ socket link


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
