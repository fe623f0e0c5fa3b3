"""A small HTTP proxy on loopback. It can tunnel, from any host name to loopback, and do many things wrong."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable


class ProxyThread:
    """`answer` gets the connection after its request has come: it answers in the proxy's place.

    `target`: the port of loopback that all tunnels lead to; without it, the one that is asked for.
    `requests`: the heads of all that came. `ends`: how many of the connections have ended.
    """

    def __init__(
        self, answer: bytes | Callable[[socket.socket], None] | None = None, *, target: int | None = None
    ) -> None:
        self.requests: list[bytes] = []
        self.ends = 0
        self._answer = answer
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._sockets: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(sock)
            self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
            self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                if not (data := sock.recv(4096)):
                    break
                request += data
            self.requests.append(request)
            if isinstance(self._answer, bytes):
                sock.sendall(self._answer)
            elif self._answer is not None:
                self._answer(sock)
            else:
                asked = int(request.split()[1].rpartition(b":")[2])
                self._tunnel(sock, asked if self._target is None else self._target)
        self.ends += 1

    def _tunnel(self, sock: socket.socket, port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as other:
            self._sockets.append(other)
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            splice(sock, other)


def splice(one: socket.socket, other: socket.socket) -> None:
    """Pass everything on in both directions, until both ends."""
    back = threading.Thread(target=_copy, args=(other, one))
    back.start()
    _copy(one, other)
    back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for sock in (source, target):
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
