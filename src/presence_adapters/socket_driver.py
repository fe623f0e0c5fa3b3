"""`SocketDriver`: runs the core of one client on a plain socket, and never waits. A loop calls `step`.

The core decides when to reconnect and when to send heartbeats.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from presence_adapters.access_tokens import answer, ask, refuse
from presence_adapters.connection_monitor import WATCHED, ConnectionMonitor
from presence_adapters.daemon_thread import DaemonCall
from presence_adapters.errors import ConnectError, forked
from presence_adapters.event_log import logged_events
from presence_adapters.socket_link import CHUNK, Link
from presence_adapters.tls_and_proxies import log_opening
from presence_proto import (
    AccessTokenNeeded,
    CloseTransport,
    ConnId,
    LocalProtocolError,
    OpenTransport,
    SendData,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from presence_adapters.event_queue import ReadMeter
    from presence_proto import Endpoint
    from presence_proto.websocket import Proxy

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SPECIAL = WATCHED | {SendData, CloseTransport, OpenTransport, AccessTokenNeeded}
"""Output classes for which the driver does more than call `on_event`."""

MAX_UNSENT = 1024 * 1024
"""Maximum number of pending bytes of a connection that counts as writable."""

LOOK_AGAIN = 0.05
"""Polling interval in seconds while a call of the access token provider runs."""


class SocketDriver:
    """Driver that runs a core (`endpoint`) on a plain socket until the core is closed or fails.

    - `on_event` receives every output of the core that does not concern a connection. With a `provider`,
      `on_event` receives no token requests.
    - `on_end` is called once: with `None` when the core is closed, or with the exception if the core raised
      an exception (a bug). After the call of `on_end`, the driver does nothing more. The running `step` or
      `call` raises the exception. Ctrl-C during a `step` or `call` also ends the driver, and the `step` or
      `call` raises `KeyboardInterrupt`.
    - `proxy`: the proxy for all connections; `None` for direct connections.
    - `provider` returns access tokens. The driver calls `provider` in a thread.
    - `linger`: the maximum time in seconds for sending pending data while a connection closes gracefully.
    - `monitor` receives the connection events of a client. `meter` receives the number of received bytes.

    The driver has one connection at a time, and closes this connection before opening the next.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        on_event: Callable[[Any], None],
        on_end: Callable[[Exception | None], None],
        *,
        ssl_context: ssl.SSLContext | None = None,
        proxy: Proxy | None = None,
        provider: Callable[[], Any] | None = None,
        linger: float = 5.0,
        monitor: ConnectionMonitor | None = None,
        meter: ReadMeter | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._meter = meter
        self.ended = False
        self.error: BaseException | None = None
        self._on_event = logged_events(on_event)
        self._on_end = on_end
        self._ssl_context = ssl_context
        self._proxy = proxy
        self._provider = provider
        self._asking: DaemonCall[Any] | None = None
        self._linger = linger
        self.monitor = monitor or ConnectionMonitor("")
        self._link: Link | None = None
        self._next: OpenTransport | None = None  # the connection to open once `_link` is closed
        self._pong = b""  # the latest pong, kept while the socket is not writable
        self._deadline: float | None = None  # the deadline of the core
        self._lingers_until: float | None = None  # deadline for the pending data of a closing `_link`
        self._is_draining = False

        self.process: int | None = None
        """Id of the process that called `start`; `None` before that."""

    how_to_start: ClassVar[str] = "call `connect()` first, or use `with`"  # for error texts

    # ---------------------------------------------------------------- getters

    @property
    def is_forked(self) -> bool:
        """Whether this process was forked after the start, so that the parent process owns the socket."""
        return self.process not in (None, os.getpid())

    def check(self) -> None:
        """Raise `LocalProtocolError` before the start, and in a forked process."""
        if self.process is None:
            raise LocalProtocolError(f"the client is not running yet: {self.how_to_start}")
        self.check_process()

    def check_process(self) -> None:
        """Raise `LocalProtocolError` in a forked process."""
        if self.is_forked:
            raise LocalProtocolError(forked("client"))

    def check_running(self) -> None:
        """Raise the errors of `check`, and raise `ConnectError` if the client has ended."""
        self.check()
        if self.ended:
            raise self.monitor.ended()

    def fileno(self) -> int:
        """Return the file descriptor to wait on, or -1 if there is no descriptor.

        The descriptor belongs to the socket or, while the address is being looked up, to a helper socket.
        """
        return -1 if self._link is None else self._link.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether to wait for the socket to be writable as well as readable."""
        return self._link is not None and self._link.wants_write

    @property
    def is_writable(self) -> bool:
        """Whether at most `MAX_UNSENT` bytes are pending."""
        return self._link is None or self._link.unsent <= MAX_UNSENT

    def make_room(self) -> None:
        """Raise `LocalProtocolError` unless `is_writable`. Called before each command."""
        if not self.is_writable:
            raise LocalProtocolError("the server does not read what was sent to it: wait until it does")

    @property
    def is_quiet(self) -> bool:
        """Whether the driver has ended and the socket is closed."""
        return self.ended and self._link is None

    def next_delay(self) -> float | None:
        """Return the seconds until `step` is due even if the socket is not ready; `None`: no limit."""
        now = time.monotonic()
        delays = [max(0.0, at - now) for at in (self._deadline, self._lingers_until) if at is not None]
        delays += [] if self._asking is None else [LOOK_AGAIN]
        delay = None if self._link is None else self._link.delay()
        delays += [] if delay is None else [delay]
        return min(delays, default=None)

    # ---------------------------------------------------------------- work

    def start(self) -> None:
        """Bind the driver to the process."""
        self.process = os.getpid()

    def command(self, command: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a command of the core once the driver takes data. Raises the errors of `check_running`."""
        self.check_running()
        self.make_room()
        self.check_running()
        return self.call(command, *args, **kwargs)

    def call(self, command: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a command of the core. If the command raises an exception, the core is unchanged."""
        if self.ended:
            raise ConnectError("the client has ended: create a new one") from self.error
        with self._failing(but=Exception):
            result = command(*args, now=time.monotonic(), **kwargs)
        with self._failing():
            self._drain()
        return result

    def step(self, budget: int = CHUNK) -> None:
        """Do all work that is possible without waiting. Read at most `budget` bytes."""
        if budget < 1:
            raise LocalProtocolError(f"budget must be at least 1 byte, not {budget!r}")
        with self._failing():
            if self._link is not None:
                self._work(self._link, budget)
            if self._asking is not None and self._asking.is_over:
                self._answer(self._asking)
            # Only after reading, because a reply that has already arrived must not time out.
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self.endpoint.tick(now=time.monotonic())
            self._drain()

    def stop(self) -> None:
        """Close the connection at once, and end the driver."""
        with self._failing():
            link, self._next = self._link, None
            if link is not None:
                link.cut()
                self._tell(link, self.endpoint.transport_closed, reason="closed by us")
        self._end(None)
        self._cut()

    def _answer(self, call: DaemonCall[Any]) -> None:
        self._asking, client, now = None, cast("Any", self.endpoint), time.monotonic()
        try:
            provided = call.result()
        except Exception as exc:
            refuse(client, exc, now=now)
        else:
            answer(client, provided, now=now)

    def _work(self, link: Link, budget: int) -> None:
        was_open = link.is_open
        data, why_over = link.step(budget)
        self._ssl_context = link.context
        if link.is_open and not was_open:
            logger.debug("connection %d: open", link.conn, extra={"conn": link.conn})
            self._tell(link, self.endpoint.transport_opened)
        if data:
            self._tell(link, self.endpoint.receive_data, data)
        if why_over is not None:
            logger.debug("connection %d: ended: %s", link.conn, why_over, extra={"conn": link.conn})
            self._tell(link, self.endpoint.transport_closed, reason=why_over)
            self._remove(link)
        elif self._lingers_until is not None and time.monotonic() >= self._lingers_until:
            self._remove(link)

    def _tell(self, link: Link, fact: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """Report a network event to the core, unless the core has dropped the connection."""
        if self._link is link and not link.is_closing:
            fact(link.conn, *args, now=time.monotonic(), **kwargs)
            self._drain()

    # ---------------------------------------------------------------- outputs

    def _drain(self) -> None:
        if self.error is not None or self._is_draining:
            return  # the running call also processes the outputs of commands in event handlers
        self._is_draining = True
        try:
            if (meter := self._meter) is not None:
                client: Any = self.endpoint
                received = client.bytes_received
                meter.bytes += received - meter.seen
                meter.seen = received
            while outputs := self.endpoint.drain():
                for output in outputs:
                    if type(output) in _SPECIAL:
                        self._carry_out(output)
                    else:  # the usual case
                        self._on_event(output)
        finally:
            self._is_draining = False
        self._deadline = self.endpoint.next_deadline()
        if self._link is not None:
            self._link.flush()
            if self._pong and self.is_writable:
                self._send(self._link, b"")
                self._link.flush()
        if self.endpoint.is_closed:
            self._end(None)

    def _carry_out(self, output: Any) -> None:
        match output:
            case SendData():
                if self._link is not None and self._link.conn == output.conn:
                    if output.is_pong and not self.is_writable:
                        self._pong = output.data
                    else:
                        self._send(self._link, output.data)
            case CloseTransport():
                logger.debug("connection %d: closing", output.conn, extra={"conn": output.conn})
                self._close(output.conn, output.abort)
            case OpenTransport():
                log_opening(logger, output, self._proxy)
                self._open(output)
            case AccessTokenNeeded() if self._provider is not None:
                # If a call of the provider is running, the result of that call also answers this request.
                provider = self._provider
                self._asking = self._asking or DaemonCall("access token", lambda: ask(provider))
            case _:
                self.monitor.saw(output)
                self._on_event(output)

    def _send(self, link: Link, data: bytes) -> None:
        # Send the pong first, because `data` may end with a close frame, which must be the last frame.
        link.send(self._pong + data)
        self._pong = b""

    def _open(self, wanted: OpenTransport) -> None:
        if self._link is None:
            self._link = Link(wanted, self._ssl_context, self._proxy)
        else:
            self._next = wanted

    def _close(self, conn: ConnId, abort: bool) -> None:
        link = self._link
        if self._next is not None and self._next.conn == conn:
            self._next = None
        if link is None or link.conn != conn:
            return
        if not link.is_open or abort:
            self._remove(link)
        else:
            link.close()
            self._lingers_until = time.monotonic() + self._linger

    def _remove(self, link: Link) -> None:
        link.cut()
        self._pong = b""
        if self._link is link:
            wanted, self._link, self._next, self._lingers_until = self._next, None, None, None
            if wanted is not None:
                self._open(wanted)

    # ---------------------------------------------------------------- the end

    @contextmanager
    def _failing(self, but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
        """Context manager in which any exception ends the driver, except exceptions of the class `but`."""
        try:
            yield
        except but:
            raise
        except BaseException as exc:
            self._end(exc)
            self._cut()
            raise

    def _cut(self) -> None:
        self._next = None
        if self._link is not None:
            self._remove(self._link)

    def _end(self, error: BaseException | None) -> None:
        if not self.ended:
            self.ended = True
            self.error = error
            self._deadline = None
            self._asking = None
            reported = error if isinstance(error, Exception) else self.monitor.refusal
            self.monitor.end(reported)
            self._on_end(reported)
