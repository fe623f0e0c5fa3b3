"""A small SOCKS 5 proxy on loopback, from RFC 1928 and 1929. It connects any host name to loopback."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Self

from adapters.proxy import splice


class SocksThread:
    """`login`: the user name and password that it wants. `answers`: said in the place of its own answers to
    the first, second and third message. `drips`: it writes one byte at a time.

    `targets`: the hosts and ports that it was asked for. `logins`: who came. `ends`: how many connections
    have ended.
    """

    def __init__(
        self,
        login: tuple[str, str] | None = None,
        answers: tuple[bytes | None, ...] = (),
        *,
        drips: bool = False,
    ) -> None:
        self.targets: list[tuple[str, int]] = []
        self.logins: list[tuple[str, str]] = []
        self.ends = 0
        self._login = login
        self._answers = answers
        self._drips = drips
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._sockets: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.url = f"socks5://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for sock in (self._listener, *self._sockets):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(sock)
            self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
            self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError, EOFError):
            if self._lets_in(sock):
                self._connect(sock)
            while sock.recv(4096):
                pass
        self.ends += 1

    def _lets_in(self, sock: socket.socket) -> bool:
        version, count = _exactly(sock, 2)
        methods = _exactly(sock, count)
        assert version == 5
        wanted = 0 if self._login is None else 2
        self._say(sock, 0, bytes((5, wanted if wanted in methods else 255)))
        if wanted not in methods:
            return False
        if self._login is not None:
            assert _exactly(sock, 1) == b"\1"
            user, password = (_exactly(sock, _exactly(sock, 1)[0]).decode() for _ in range(2))
            self.logins.append((user, password))
            self._say(sock, 1, bytes((1, self.logins[-1] != self._login)))
            return self.logins[-1] == self._login
        return True

    def _connect(self, sock: socket.socket) -> None:
        assert _exactly(sock, 3) == b"\5\1\0"
        match _exactly(sock, 1)[0]:
            case 1:
                host = socket.inet_ntop(socket.AF_INET, _exactly(sock, 4))
            case 4:
                host = socket.inet_ntop(socket.AF_INET6, _exactly(sock, 16))
            case kind:
                assert kind == 3
                host = _exactly(sock, _exactly(sock, 1)[0]).decode("ascii")
        (port,) = struct.unpack("!H", _exactly(sock, 2))
        self.targets.append((host, port))
        if len(self._answers) > 2:
            self._say(sock, 2, b"")
            return
        with socket.create_connection(("127.0.0.1", port)) as other:
            self._sockets.append(other)
            address, own_port = other.getsockname()
            self._say(sock, 2, b"\5\0\0\1" + socket.inet_aton(address) + struct.pack("!H", own_port))
            splice(sock, other)

    def _say(self, sock: socket.socket, number: int, usual: bytes) -> None:
        given = self._answers[number] if number < len(self._answers) else None
        data = usual if given is None else given
        for at in range(len(data)) if self._drips else ():
            sock.sendall(data[at : at + 1])
            time.sleep(0.002)  # or they are read together
        if not self._drips:
            sock.sendall(data)
        if data == b"":
            sock.shutdown(socket.SHUT_WR)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (piece := sock.recv(size - len(data))):
            raise EOFError
        data += piece
    return data
