"""Connecting a plain socket without ever waiting, to the first address that answers (RFC 8305)."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from presence_adapters.addresses import STAGGER, in_turn, look_up, none_works, numeric
from presence_adapters.connecting import client_context

if TYPE_CHECKING:
    import ssl

    from presence_adapters.addresses import Found
    from presence_proto import OpenTransport

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
