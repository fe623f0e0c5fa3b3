"""A small driver that does all of its duties on plain TCP, and others that fail in one of them.

`BROKEN` says which duty each of them does not do.
"""

from __future__ import annotations

import math
import select
import socket
import time
from typing import TYPE_CHECKING, Any

from presence_proto import CloseTransport, ConnId, OpenTransport, SendData

if TYPE_CHECKING:
    from collections.abc import Callable

    from presence_proto import Endpoint


class Link:
    """One socket, from the wish for it to its end."""

    def __init__(self, conn: ConnId, sock: socket.socket) -> None:
        self.conn = conn
        self.sock = sock
        self.unsent = bytearray()
        self.is_open = False
        self.is_closing = False  # the core wants to hear no more of it
        self.until = math.inf  # when a closing link is dropped

    def fileno(self) -> int:
        return self.sock.fileno()


class SmallDriver:
    """Plain TCP in a select loop. It tries all addresses of a host at once, each with a link of its own."""

    linger = 2.0  # seconds

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.wanted: OpenTransport | None = None  # to be opened when there is no link
        self.failures: list[tuple[ConnId, str]] = []  # to find a host, not told yet
        self.deadline: float | None = None
        self.alarm, self.cancelled = socket.socketpair()

    def run(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        try:
            self.drain()
            while (self.links or self.wanted or not endpoint.is_closed) and self.step():
                pass
        finally:
            self.clean_up()

    def cancel(self) -> None:
        self.alarm.send(b"\0")

    def clean_up(self) -> None:
        for sock in (self.alarm, self.cancelled, *(link.sock for link in self.links)):
            sock.close()

    def step(self) -> bool:
        if self.wanted is not None and self.may_open():
            wanted, self.wanted = self.wanted, None
            self.open(wanted)
        writers = [link for link in self.links if link.unsent or not link.is_open]
        readers = [self.cancelled, *(link for link in self.links if link.is_open)]
        readable, writable, _ = select.select(readers, writers, [], self.delay())
        if self.cancelled in readable:
            return False
        while self.failures:
            conn, reason = self.failures.pop(0)
            self.tell(self.endpoint.transport_closed, conn, reason=reason)
        self.move(readable, writable)
        self.keep_time()
        return True

    def move(self, readable: list[Link], writable: list[Link]) -> None:
        for link in writable:
            (self.write if link.is_open else self.connected)(link)
        for link in readable:
            self.read(link)

    def keep_time(self) -> None:
        for link in [link for link in self.links if time.monotonic() >= link.until]:
            self.drop(link)
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.tell(self.endpoint.tick)

    def may_open(self) -> bool:
        return not self.links

    def delay(self) -> float | None:
        if self.failures:
            return 0.0
        times = [link.until for link in self.links] + [math.inf if self.deadline is None else self.deadline]
        return None if min(times) == math.inf else max(0.0, min(times) - time.monotonic())

    # -- facts

    def tell(self, fact: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        fact(*args, now=time.monotonic(), **kwargs)
        self.drain()

    def connected(self, link: Link) -> None:
        if error := link.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.lost(link, f"error {error}")
        elif link in self.links:
            for other in self.rivals(link):
                self.drop(other)
            link.is_open = True
            self.tell(self.endpoint.transport_opened, link.conn)

    def read(self, link: Link) -> None:
        if link not in self.links:
            return  # closed in this very step
        try:
            data = link.sock.recv(1 << 16)
        except OSError as exc:
            self.lost(link, str(exc))
        else:
            if not data:
                self.lost(link, "eof")
            elif not link.is_closing:
                self.tell(self.endpoint.receive_data, link.conn, data)

    def rivals(self, link: Link) -> list[Link]:
        return [other for other in self.links if other.conn == link.conn and other is not link]

    def lost(self, link: Link, reason: str) -> None:
        self.drop(link)
        if not link.is_closing and not self.rivals(link):
            self.tell(self.endpoint.transport_closed, link.conn, reason=reason)

    # -- outputs

    def drain(self) -> None:
        while outputs := self.endpoint.drain():
            for output in outputs:
                if isinstance(output, OpenTransport):
                    self.wanted = output
                elif isinstance(output, CloseTransport):
                    self.wanted = None
                for link in [link for link in self.links if link.conn == output.conn]:
                    if isinstance(output, SendData):
                        link.unsent += output.data
                    elif isinstance(output, CloseTransport):
                        self.close(link, output.abort)
        self.deadline = self.endpoint.next_deadline()

    def open(self, wanted: OpenTransport) -> None:
        try:
            found = self.look_up(wanted)
        except OSError as exc:
            self.failures.append((wanted.conn, str(exc)))
            return
        for family, kind, protocol, _, address in found:
            link = Link(wanted.conn, socket.socket(family, kind, protocol))
            link.sock.setblocking(False)
            link.sock.connect_ex(address)
            self.links.append(link)

    def look_up(self, wanted: OpenTransport) -> list[Any]:
        return socket.getaddrinfo(wanted.host, wanted.port, type=socket.SOCK_STREAM)

    def close(self, link: Link, abort: bool) -> None:
        link.is_closing = True
        if abort or not link.is_open:
            self.drop(link)
            return
        link.until = time.monotonic() + self.linger
        if not link.unsent:
            self.finish(link)

    def finish(self, link: Link) -> None:
        """Everything is written. What comes now is the end of the other side, which `read` sees."""
        try:
            link.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.drop(link)

    def write(self, link: Link) -> None:
        if link not in self.links:
            return
        try:
            del link.unsent[: link.sock.send(link.unsent[: 1 << 18])]
        except OSError:
            link.unsent.clear()  # the reader hears why
        if link.is_closing and not link.unsent:
            self.finish(link)

    def drop(self, link: Link) -> None:
        link.sock.close()
        self.links.remove(link)


# ---------------------------------------------------------------------------------------------- broken ones


class SaysOpenedTwice(SmallDriver):
    def connected(self, link: Link) -> None:
        super().connected(link)
        self.tell(self.endpoint.transport_opened, link.conn)


class DoesNotDrain(SmallDriver):
    """After data it goes on to whatever comes next."""

    def tell(self, fact: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        if fact == self.endpoint.receive_data:
            fact(*args, now=time.monotonic(), **kwargs)
            fact = self.endpoint.tick
            args = ()
        super().tell(fact, *args, **kwargs)


class HasAClockOfItsOwn(SmallDriver):
    """One that can be set back."""

    def tell(self, fact: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        fact(*args, now=-time.monotonic(), **kwargs)
        self.drain()


class IsSilentAboutRefusals(SmallDriver):
    def connected(self, link: Link) -> None:
        if link.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.drop(link)
        else:
            super().connected(link)


class IsSilentAboutUnknownNames(SmallDriver):
    def open(self, wanted: OpenTransport) -> None:
        try:
            self.look_up(wanted)
        except OSError:
            return
        super().open(wanted)


class TriesTheFirstAddressOnly(SmallDriver):
    def look_up(self, wanted: OpenTransport) -> list[Any]:
        return super().look_up(wanted)[:1]


class StopsAtARefusal(SmallDriver):
    """Takes the first answer of an address for that of all."""

    def connected(self, link: Link) -> None:
        if link not in self.links:
            return
        if link.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            for other in self.rivals(link):
                self.drop(other)
            self.lost(link, "refused")
        else:
            super().connected(link)


class DoesNotWaitForTheClosing(SmallDriver):
    def may_open(self) -> bool:
        return True


class TicksBeforeItReads(SmallDriver):
    def move(self, readable: list[Link], writable: list[Link]) -> None:
        self.keep_time()
        super().move(readable, writable)


class ReadsWithoutEnd(SmallDriver):
    def read(self, link: Link) -> None:
        super().read(link)
        while link in self.links and select.select([link], [], [], 0)[0]:
            super().read(link)


class LingersForEver(SmallDriver):
    linger = math.inf


class LeavesBeforeThePeer(SmallDriver):
    def finish(self, link: Link) -> None:
        self.drop(link)


class GivesUpAfterAFailedWrite(SmallDriver):
    def write(self, link: Link) -> None:
        if error := link.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.lost(link, f"error {error}")
        else:
            super().write(link)


class WaitsForTheConnect(SmallDriver):
    def open(self, wanted: OpenTransport) -> None:
        super().open(wanted)
        if self.links:
            select.select([], self.links, [], 5.0)


class NeverGivesUpAConnect(SmallDriver):
    """Keeps a connect going whose connection is to be closed."""

    def close(self, link: Link, abort: bool) -> None:
        if link.is_open:
            super().close(link, abort)


class WelcomesLatecomers(SmallDriver):
    """Stops only a connect that is to be aborted."""

    def close(self, link: Link, abort: bool) -> None:
        if link.is_open or abort:
            super().close(link, abort)


class ConnectsOnce(SmallDriver):
    has_connected = False

    def open(self, wanted: OpenTransport) -> None:
        if not self.has_connected:
            super().open(wanted)
        self.has_connected = True


class ClosesBeforeItWrites(SmallDriver):
    def close(self, link: Link, abort: bool) -> None:
        super().close(link, abort=True)


class DropsWhatSendLeaves(SmallDriver):
    def write(self, link: Link) -> None:
        try:
            link.sock.send(link.unsent)
        except OSError:
            pass
        link.unsent.clear()
        super().write(link)


class WritesBeforeItAborts(SmallDriver):
    def close(self, link: Link, abort: bool) -> None:
        super().close(link, abort and not link.is_open)


class WritesAndWaits(SmallDriver):
    """A write holds up everything for a second."""

    def write(self, link: Link) -> None:
        deadline = time.monotonic() + 1.0
        while link in self.links and link.unsent and time.monotonic() < deadline:
            select.select([], [link], [], 0.1)
            super().write(link)


class GivesNoReason(SmallDriver):
    def lost(self, link: Link, reason: str) -> None:
        super().lost(link, "" if reason == "eof" else reason)


class TakesAResetForNothing(SmallDriver):
    def lost(self, link: Link, reason: str) -> None:
        if "reset" in reason:
            self.drop(link)
        else:
            super().lost(link, reason)


class NeverTicks(SmallDriver):
    def tell(self, fact: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        if fact != self.endpoint.tick:
            super().tell(fact, *args, **kwargs)


class TicksLate(SmallDriver):
    def delay(self) -> float | None:
        delay = super().delay()
        return delay and delay + 0.7


class Polls(SmallDriver):
    def delay(self) -> float | None:
        return 0.01

    def step(self) -> bool:
        self.tell(self.endpoint.tick)
        return super().step()


class SetsItsTimerOnce(SmallDriver):
    """Follows no deadline that comes nearer."""

    def drain(self) -> None:
        old = self.deadline
        super().drain()
        if old is not None and self.deadline is not None and time.monotonic() < old:
            self.deadline = max(old, self.deadline)


class WaitsForOneMoreOutput(SmallDriver):
    """Looks whether the core is closed only after something has happened."""

    def run(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        try:
            self.drain()
            while self.step() and (self.links or not endpoint.is_closed):
                pass
        finally:
            self.clean_up()


class SwallowsBugs(SmallDriver):
    def tell(self, fact: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        try:
            super().tell(fact, *args, **kwargs)
        except Exception:
            self.endpoint.is_closed = True  # type: ignore[misc]  # so that it ends, at least
            self.clean_up()
            self.links.clear()


class Leaks(SmallDriver):
    """When it is cancelled it forgets a connection, when `kind` says so."""

    def kind(self, link: Link) -> bool:
        raise NotImplementedError

    def step(self) -> bool:
        going = super().step()
        if not going:
            LEAKED.extend(link for link in self.links if self.kind(link))
            self.links = [link for link in self.links if not self.kind(link)]
        return going


class LeaksAConnect(Leaks):
    def kind(self, link: Link) -> bool:
        return not link.is_open


class LeaksAnIdleConnection(Leaks):
    def kind(self, link: Link) -> bool:
        return link.is_open and not link.unsent


class LeaksAWrite(Leaks):
    def kind(self, link: Link) -> bool:
        return bool(link.unsent)


LEAKED: list[Link] = []
"""What they did not close; the test does."""

BROKEN: dict[type[SmallDriver], str] = {
    SaysOpenedTwice: "connect talk and close",
    DoesNotDrain: "connect talk and close",
    HasAClockOfItsOwn: "connect talk and close",
    ClosesBeforeItWrites: "connect talk and close",
    IsSilentAboutRefusals: "a refused connection is reported",
    IsSilentAboutUnknownNames: "a name that does not resolve is reported",
    TriesTheFirstAddressOnly: "a dead address does not hold up the others",
    StopsAtARefusal: "all addresses of a name are tried",
    DoesNotWaitForTheClosing: "a new connection waits for the closing one",
    TicksBeforeItReads: "data that has arrived comes before the tick",
    ReadsWithoutEnd: "endless data does not stop the clock",
    LingersForEver: "a peer that does not end cannot hold up a close",
    LeavesBeforeThePeer: "a close waits for the end of the peer",
    GivesUpAfterAFailedWrite: "data that arrived before a failed write is received",
    WaitsForTheConnect: "a connect that never finishes is given up",
    NeverGivesUpAConnect: "a connect that never finishes is given up",
    NeverTicks: "a connect that never finishes is given up",
    WelcomesLatecomers: "a connect that finishes too late is dropped",
    ConnectsOnce: "the core reconnects",
    DropsWhatSendLeaves: "much data arrives",
    WritesBeforeItAborts: "an abort waits for nobody",
    WritesAndWaits: "a blocked write blocks nothing else",
    GivesNoReason: "the end of the stream is reported",
    TakesAResetForNothing: "a reset is reported",
    TicksLate: "a silent peer does not stop the clock",
    Polls: "waiting costs nothing",
    SetsItsTimerOnce: "a deadline that moves is followed",
    WaitsForOneMoreOutput: "a core at rest needs no driver",
    SwallowsBugs: "a bug in the core comes out",
    LeaksAConnect: "a cancelled connect leaves nothing",
    LeaksAnIdleConnection: "a cancelled idle connection leaves nothing",
    LeaksAWrite: "a cancelled write leaves nothing",
}
"""A duty that each of them does not do."""
