"""Connecting a plain socket without ever waiting: the host's addresses, then one after the other."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from presence_adapters.connecting import client_context

if TYPE_CHECKING:
    import ssl

    from presence_proto import OpenTransport

# Not epoll or kqueue: these are files of their own, and remember sockets that were closed meanwhile.
Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


class Lookup:
    """What takes long, in a thread: the addresses of a host, and loading the certificates for TLS.

    `signal` becomes readable when it `is_over`.
    """

    def __init__(self, wanted: OpenTransport, context: ssl.SSLContext | None) -> None:
        self.signal, self._done = socket.socketpair()
        self.is_over = False
        self._wanted = wanted
        self._context = context
        self._addresses: list[Any] = []
        self._error: Exception | None = None
        try:
            threading.Thread(target=self._run, name=f"look up {wanted.host}", daemon=True).start()
        except RuntimeError:  # no room for another thread
            self.cancel()
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None

    def result(self) -> tuple[list[Any], ssl.SSLContext | None]:
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
            self._addresses = _addresses(self._wanted)
            if self._wanted.tls:
                self._context = client_context(self._context)
        except Exception as exc:
            self._error = exc
        self.is_over = True
        self._done.close()


class Connect:
    """Connects to what `wanted` says. `step` until that gives a socket, or raises why there is none.

    `context` is the one for TLS, made here if there is none yet. `address`: the one being tried. `avoid`: one
    to be tried last, since nothing was heard of it before.
    """

    def __init__(self, wanted: OpenTransport, context: ssl.SSLContext | None, avoid: object) -> None:
        self.context = context
        self.address: Any = None
        self._wanted = wanted
        self._avoid = avoid
        self._lookup: Lookup | None = None
        self._addresses: list[Any] = []  # not tried yet
        self._sock: socket.socket | None = None

    # Two sockets in a row never have the same number: the next one is made before the last one is closed.
    # Who has registered a number with a selector can see that it is another one.

    def fileno(self) -> int:
        """What to wait for: reading while a name is looked up, writing after that. -1: nothing yet."""
        if self._lookup is not None:
            return self._lookup.signal.fileno()
        return -1 if self._sock is None else self._sock.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether to wait for room to write, which is how a socket shows that it is connected."""
        return self._sock is not None

    def step(self) -> socket.socket | None:
        """Do what can be done now: the socket, once it is connected. It is the caller's then."""
        if self._sock is None:
            self._find()
        if self._sock is None or not _is_settled(self._sock):
            return None
        error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._try_next(OSError(error, os.strerror(error)))
            return None
        sock, self._sock = self._sock, None
        return sock

    def cancel(self) -> None:
        """Give up."""
        if self._lookup is not None:
            self._lookup.cancel()
        if self._sock is not None:
            self._sock.close()
        self._lookup = self._sock = None

    def _find(self) -> None:
        if self._lookup is None:
            if not self._wanted.tls or self.context is not None:
                try:
                    self._addresses = _addresses(self._wanted, socket.AI_NUMERICHOST)
                except (OSError, UnicodeError):
                    pass  # it is a name
            if not self._addresses:
                self._lookup = Lookup(self._wanted, self.context)
        if self._lookup is not None:
            if not self._lookup.is_over:
                return
            self._addresses, self.context = self._lookup.result()
        self._addresses.sort(key=lambda found: bool(found[4] == self._avoid))
        self._try_next(OSError("no address"))
        if self._lookup is not None:
            self._lookup.cancel()
            self._lookup = None

    def _try_next(self, error: OSError) -> None:
        """Begin with the next address; raise `error` when there is none left."""
        while self._addresses:
            family, kind, protocol, _, self.address = self._addresses.pop(0)
            last = self._sock
            try:
                self._sock = socket.socket(family, kind, protocol)
                self._sock.setblocking(False)
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with suppress(BlockingIOError):
                    self._sock.connect(self.address)
            except OSError as exc:
                error = exc
            else:
                return
            finally:
                if last is not None:
                    last.close()
        raise error


def _addresses(wanted: OpenTransport, flags: int = 0) -> list[Any]:
    return socket.getaddrinfo(wanted.host, wanted.port, type=socket.SOCK_STREAM, flags=flags)


def _is_settled(sock: socket.socket) -> bool:
    """Whether a connect is over, well or not."""
    with Selector() as selector:
        selector.register(sock, selectors.EVENT_WRITE)
        return bool(selector.select(0))
