"""`Connection`: a WebSocket connection that reconnects by itself. `TokenRequests`: access token requests.

            open()                transport_opened + upgrade
    IDLE ──────────▶ CONNECTING ──────────────────────────▶ OPEN
     ▲                  │  ▲                                │  │
     │ refused for good │  │ RECONNECT fires      lost      │  │ close()
     │                  ▼  │                                │  ▼
     ├◀──────────────  WAITING ◀────────────────────────────┘ CLOSING
     └◀──────────────────────────────────────────────────────┘

`RealtimeClient` and `JarvisRoom` use `Connection`. A `Connection` handles WebSockets, heartbeats and
timeouts, but does not interpret messages.
"""

from __future__ import annotations

import base64
import math
import re
from enum import Enum, IntEnum, auto
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from attrs import evolve
from msgspec import Struct

from presence_proto.endpoint import AccessTokenNeeded, CloseTransport, ConnId, OpenTransport, Outbox
from presence_proto.errors import ConfigError, LocalProtocolError
from presence_proto.secrets import MAX_TEXT, Credentials
from presence_proto.timers import Backoff, Timers
from presence_proto.validators import is_number
from presence_proto.websocket import (
    BinaryMessage,
    Closed,
    HandshakeRefused,
    Opened,
    PingReceived,
    TextMessage,
)

if TYPE_CHECKING:
    from random import Random

    from presence_proto.config import RealtimeConfig
    from presence_proto.websocket import WebSocket
    from presence_proto.websocket.events import Headers


# ---------------------------------------------------------------------------------------------------- refusal
# The headers of a refused handshake have the time of the next attempt, and the server's new location.


MAX_TARGET = 200  # characters; texts quote at most this much of a redirect's target

# RFC 9110 §5.6.7. The two obsolete date formats are not accepted: no server has sent such dates for decades.
_DATE = re.compile(
    r"[A-Z][a-z]{2}, ([0-9]{2}) ([A-Z][a-z]{2}) ([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_AUTHORITY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)?//([^/?#]*@)?")  # RFC 3986 §3: scheme and user info


def retry_after(headers: Headers) -> float | None:
    """Return the delay of a valid `Retry-After` header (RFC 9110 §10.2.3) in seconds, otherwise `None`.

    A date in `Retry-After` is compared with the `Date` header of the same response: the core has no wall
    clock, and the clock of the host may be wrong.
    """
    wanted = _first(headers, "retry-after")
    if re.fullmatch(r"[0-9]+", wanted):
        return float(wanted)  # int() refuses texts of thousands of digits
    due, sent = _seconds(wanted), _seconds(_first(headers, "date"))
    return None if due is None or sent is None else max(0.0, due - sent)


def redirect_target(headers: Headers) -> str | None:
    """Return the `Location` of a redirect for human-readable texts, or `None` without a `Location`.

    The user info, the query and the fragment are removed, because these parts may hold secrets.
    """
    address, question_mark, _ = _first(headers, "location").partition("#")[0].partition("?")
    if not address:
        return None
    address = quote(_AUTHORITY.sub(r"\1//", address, count=1), safe="/%:@!$&'()*+,;=~[]", encoding="latin-1")
    return address[:MAX_TARGET] + ("?…" if question_mark else "")


def _first(headers: Headers, wanted: str) -> str:
    return next((value for name, value in headers if name == wanted), "")


def _seconds(date: str) -> float | None:
    """Return an HTTP date in seconds from an arbitrary epoch, or `None` for any other text."""
    match = _DATE.fullmatch(date)
    if match is None or match[2] not in _MONTHS:
        return None
    day, year, hour, minute, second = (int(match[number]) for number in (1, 3, 4, 5, 6))
    # Gregorian calendar with years that begin in March: a leap day is then the last day of its year.
    years, month = divmod(year * 12 + _MONTHS.index(match[2]) - 2, 12)
    days = 365 * years + years // 4 - years // 100 + years // 400 + (153 * month + 2) // 5 + day
    return float(((days * 24 + hour) * 60 + minute) * 60 + second)


# --------------------------------------------------------------------------------------------- token requests
# The client requests an access token from the application before connects and joins, and before the current
# token expires.
#
# The application answers a request with a token or with a failure. No answer within `access_token_timeout` is
# a failure, too. A failed request is repeated with a backoff until the client stops.


LONGEST_AHEAD = 60.0
"""The client requests a new token 60 seconds before the current token expires. If four fifths of the token's
validity end later, the client waits until then."""


class ConnectionTimer(IntEnum):  # not Enum: the hash of an IntEnum is faster
    """The timers of a connection and of its token requests."""

    CONNECT = auto()  # the connect takes too long
    RECONNECT = auto()  # the delay before the next attempt is over
    HEARTBEAT = auto()  # the next heartbeat is due
    HEARTBEAT_REPLY = auto()  # the reply to a heartbeat is overdue
    CLOSE = auto()  # the closing handshake takes too long
    TOKEN_ANSWER = auto()  # the application's answer to a token request is overdue
    TOKEN_RETRY = auto()  # repeat a failed token request
    TOKEN_REFRESH = auto()  # the token expires soon


_TRANSPORT_TIMERS = (
    ConnectionTimer.CONNECT,
    ConnectionTimer.RECONNECT,
    ConnectionTimer.HEARTBEAT,
    ConnectionTimer.HEARTBEAT_REPLY,
    ConnectionTimer.CLOSE,
)
_TOKEN_TIMERS = (ConnectionTimer.TOKEN_ANSWER, ConnectionTimer.TOKEN_RETRY, ConnectionTimer.TOKEN_REFRESH)


class TokenRequests:
    """The access token requests of one client, one at a time. `asks_for_token` enables the requests."""

    def __init__(
        self,
        config: RealtimeConfig,
        outbox: Outbox[Any],
        timers: Timers[ConnectionTimer],
        rng: Random | None,
    ) -> None:
        self._config = config
        self._outbox = outbox
        self._timers = timers
        self._backoff = Backoff(
            config.reconnect_delay, config.max_reconnect_delay, jitter=config.jitter, rng=rng
        )

    @property
    def is_open(self) -> bool:
        """Whether a request is unanswered."""
        return self._timers.get(ConnectionTimer.TOKEN_ANSWER) is not None

    def need(self, now: float) -> None:
        """Request a fresh token, unless a request is unanswered or about to be repeated."""
        if not self.is_open and self._timers.get(ConnectionTimer.TOKEN_RETRY) is None:
            self.ask(now)

    def ask(self, now: float) -> None:
        """Request an access token now."""
        self._cancel()
        self._timers.set(ConnectionTimer.TOKEN_ANSWER, now + self._config.access_token_timeout)
        self._outbox.put(AccessTokenNeeded())

    def answered(self, expires_in: float | None, now: float) -> None:
        """Handle a new token, valid for `expires_in` seconds. `None` means that the expiry is unknown."""
        self._cancel()
        ahead = None if expires_in is None else expires_in - min(LONGEST_AHEAD, expires_in / 5)
        if ahead is not None and ahead < self._config.reconnect_delay:
            ahead = self._backoff.next()  # the host's clock may be wrong, and the token may still be valid
        else:
            self._backoff.reset()
        if ahead is not None and self._config.asks_for_token:
            self._timers.set(ConnectionTimer.TOKEN_REFRESH, now + ahead)

    def failed(self, now: float) -> float:
        """Handle a failed request. Returns the delay in seconds after which the request is repeated."""
        delay = self._backoff.next()
        self._cancel()
        self._timers.set(ConnectionTimer.TOKEN_RETRY, now + delay)
        return delay

    def connection_lost(self) -> None:
        """Cancel the refresh: the client requests a token before the next connect anyway."""
        self._timers.cancel(ConnectionTimer.TOKEN_REFRESH)

    def stop(self) -> None:
        """Cancel all token requests: a disconnected client needs no token."""
        self._cancel()
        self._backoff.reset()

    def _cancel(self) -> None:
        for timer in _TOKEN_TIMERS:
            self._timers.cancel(timer)


# ------------------------------------------------------------------------------------------------- connection


RETRIED_STATUSES = frozenset({408, 425, 429})
"""HTTP 4xx statuses after which the client connects again: the server may accept the same request later."""


class ConnectionState(Enum):
    """The state of a connection. The docstring of this module shows the transitions."""

    IDLE = auto()
    CONNECTING = auto()
    OPEN = auto()
    WAITING = auto()
    CLOSING = auto()


_OPEN = ConnectionState.OPEN  # in Python 3.11, looking up an enum member is as slow as a function call


class Up(Struct, frozen=True):
    """The WebSocket is open."""


class Down(Struct, frozen=True):
    """The connection ended, or could not be opened. The fields are those of `events.SocketDisconnected`."""

    reason: str
    code: int | None
    status: int | None
    retry_in: float | None
    fatal: bool


class TokenFailed(Struct, frozen=True):
    """No access token is available now. The request is repeated `retry_in` seconds later."""

    reason: str
    retry_in: float


class HeartbeatDue(Struct, frozen=True):
    """A heartbeat is due: send a heartbeat, and call `heartbeat_acked` when the reply arrives."""


_HEARTBEAT_DUE = HeartbeatDue()

ConnectionEvent: TypeAlias = Up | Down | TokenFailed | HeartbeatDue


class Connection:
    """A WebSocket connection to one server that reconnects by itself.

    `read()` returns the connection's events and the messages from the server. The connection puts bytes,
    transport requests and token requests into `outbox`. The jitter of the backoff and the nonce of the
    upgrade come from `rng`, so that a recorded session can be replayed. `now` is the time of one monotonic
    clock, in seconds.
    """

    def __init__(
        self,
        config: RealtimeConfig,
        outbox: Outbox[Any],
        *,
        rng: Random | None = None,
    ) -> None:
        self.credentials = Credentials(config.secrets)  # hidden in human-readable texts
        self.token = config.access_token
        """The current access token, for the next URL and the next joins."""
        # Imported for the first client: h11 and wsproto take as long to import as the rest of the core.
        from presence_proto.websocket import WebSocket

        self._new_websocket = WebSocket.client
        self._config = config
        self._outbox = outbox
        self._rng = rng
        self._backoff = Backoff(
            config.reconnect_delay, config.max_reconnect_delay, jitter=config.jitter, rng=rng
        )
        self.timers: Timers[ConnectionTimer] = Timers()
        self._tokens = TokenRequests(config, outbox, self.timers, rng)
        self.state = ConnectionState.IDLE
        """The current state of the connection."""
        self._last_conn = 0
        self._conn: ConnId | None = None
        self._websocket: WebSocket | None = None
        self._inflated = 0  # the part of websocket.bytes_added that the outbox has counted
        self._transport_gone: str | None = None  # the driver's reason, once the transport is closed
        self._was_open = False  # whether the connection was ever open
        self._was_refused = False  # whether HTTP 401 or 403 came after the connection was last open
        self._patient_until = -math.inf  # until then, a missing heartbeat reply is not a failure
        self._beaten_at: float | None = None  # when the oldest unanswered heartbeat was due
        self._latency: float | None = None
        self._pending: list[ConnectionEvent] = []
        self._is_unread = False  # whether the WebSocket may have events
        self.has_more = False
        """Whether `read` may return a message or an event. Call `read` until `has_more` is false."""

    # ---------------------------------------------------------------- getters

    @property
    def is_wanted(self) -> bool:
        """Whether the connection is open or being opened: the state is neither IDLE nor CLOSING."""
        return self.state not in (ConnectionState.IDLE, ConnectionState.CLOSING)

    @property
    def latency(self) -> float | None:
        """The round-trip time of the latest answered heartbeat in seconds, or `None` without an answer."""
        return self._latency

    # ---------------------------------------------------------------- commands

    def open(self, now: float) -> None:
        """Start to connect. Legal in the states IDLE and WAITING."""
        assert self.state in (ConnectionState.IDLE, ConnectionState.WAITING)
        self.state = ConnectionState.WAITING
        if self._config.asks_for_token:
            self._tokens.need(now)
        else:
            self._connect(now)

    def _connect(self, now: float) -> None:
        target = self._config.address(self.token)
        self._last_conn += 1
        self._conn = ConnId(self._last_conn)
        self.state = ConnectionState.CONNECTING
        self.timers.set(ConnectionTimer.CONNECT, now + self._config.connect_timeout)
        self._outbox.put(OpenTransport(self._conn, target.host, target.port, target.tls))

    def close(self, now: float) -> None:
        """Close for good. The closing handshake of an open connection takes at most `close_timeout`."""
        if self.state is ConnectionState.OPEN:
            assert self._websocket is not None
            self.state = ConnectionState.CLOSING
            self.timers.clear()  # also the token request timers: a client that leaves needs no token
            self.timers.set(ConnectionTimer.CLOSE, now + self._config.close_timeout)
            self._websocket.close(1000)
            self._flush()
        elif self.state in (ConnectionState.CONNECTING, ConnectionState.WAITING):
            self._drop(abort=True)
            self._end("disconnect was called")

    def send(self, data: bytes, *, text: bool) -> None:
        """Send one message. Legal in the state OPEN."""
        assert self.state is ConnectionState.OPEN
        assert self._websocket is not None
        if text:
            self._websocket.send_text(data)
        else:
            self._websocket.send_binary(data)
        self._flush()

    def heartbeat_acked(self, now: float) -> None:
        """Handle the reply to a heartbeat."""
        if self._beaten_at is not None:  # else no heartbeat is unanswered
            self._latency, self._beaten_at = now - self._beaten_at, None
        self.timers.cancel(ConnectionTimer.HEARTBEAT_REPLY)

    def beat(self, now: float) -> None:
        """Report `HeartbeatDue` now, and again an interval later. Legal in the state OPEN."""
        assert self.state is ConnectionState.OPEN
        self._beat(now)

    def excuse_heartbeats_until(self, deadline: float) -> None:
        """Tolerate missing heartbeat replies until `deadline`: a slow join blocks the server's socket."""
        self._patient_until = deadline

    def reset_backoff(self) -> None:
        """Restart the backoff with the first reconnect delay, after a stable connection."""
        self._backoff.reset()

    def abort(self, reason: str, now: float) -> None:
        """Abort the connection, and reconnect later. Legal in the state OPEN."""
        assert self.state is ConnectionState.OPEN
        self._lost(reason, now, abort=True)

    # ---------------------------------------------------------------- access tokens

    def check_token(self, token: str | None, expires_in: float | None) -> None:
        """Raise `LocalProtocolError` unless `set_token` accepts this token and this validity."""
        if expires_in is not None and not is_number(expires_in):
            raise LocalProtocolError(
                f"expires_in must be a finite number of seconds or None, not {expires_in!r}"
            )
        try:
            evolve(self._config, access_token=token)
        except ConfigError as exc:
            raise LocalProtocolError(str(exc)) from None

    def check_reason(self, reason: str) -> None:
        """Raise `LocalProtocolError` unless the reason of a failed token request is a string."""
        if not isinstance(reason, str):
            raise LocalProtocolError(f"reason must be a string, not {type(reason).__name__}")

    def set_token(self, token: str | None, expires_in: float | None, now: float) -> None:
        """Use another token, valid for `expires_in` seconds. A connect that waited for the token starts."""
        self.token = token
        self.credentials.add(token)
        if self.is_wanted:
            self._tokens.answered(expires_in, now)
            if self.state is ConnectionState.WAITING and self.timers.get(ConnectionTimer.RECONNECT) is None:
                self._connect(now)

    def need_token(self, now: float) -> None:
        """Request a fresh token, unless a request is unanswered or about to be repeated."""
        self._tokens.need(now)

    def token_failed(self, reason: str, now: float) -> None:
        """Handle a failed token request. Without an unanswered request, the call has no effect."""
        if self._tokens.is_open:
            text = self.credentials.quote(f"no access token: {reason}")
            self._report(TokenFailed(text, self._tokens.failed(now)))

    # ---------------------------------------------------------------- driver inputs

    def transport_opened(self, conn: ConnId) -> None:
        """Handle `Endpoint.transport_opened`."""
        if conn != self._conn or self._websocket is not None:
            return
        target = self._config.address(self.token)  # the token may have changed since OpenTransport
        self._websocket = self._new_websocket(
            target,
            headers=self._config.request_headers,
            subprotocols=target.subprotocols,
            deflate=self._config.deflate,
            max_message_size=self._config.max_message_size,
            key=None if self._rng is None else base64.b64encode(self._rng.randbytes(16)),
        )
        self._flush()

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview) -> None:
        """Handle `Endpoint.receive_data`. The caller calls `read` afterwards."""
        if conn == self._conn and self._websocket is not None:
            self._outbox.bytes_received += len(data)
            self.has_more = self._is_unread = True
            self._websocket.receive_data(data)

    def transport_closed(self, conn: ConnId, reason: str, now: float) -> None:
        """Handle `Endpoint.transport_closed`."""
        if conn != self._conn:
            return
        self._transport_gone = reason
        if self._websocket is not None:
            # Let the WebSocket report the end of the stream, so that earlier messages are reported first.
            self.has_more = self._is_unread = True
            self._websocket.receive_eof()
        else:
            self._lost(reason, now)

    def tick(self, now: float) -> None:
        """Handle `Endpoint.tick`."""
        while (deadline := self.timers.first) <= now:
            slot = self.timers.pop_expired(now)
            if slot is ConnectionTimer.CONNECT:
                self._lost(f"no connection within {self._config.connect_timeout:g} s", now, abort=True)
            elif slot is ConnectionTimer.RECONNECT:
                self.open(now)
            elif slot is ConnectionTimer.CLOSE:
                self._drop(abort=True)
                self._end("disconnect was called")
            elif slot is ConnectionTimer.HEARTBEAT:
                self._beat(now)
            elif slot is ConnectionTimer.TOKEN_ANSWER:
                text = f"no access token: no answer within {self._config.access_token_timeout:g} s"
                self._report(TokenFailed(text, self._tokens.failed(now)))
            elif slot in _TOKEN_TIMERS:
                self._tokens.ask(now)
            elif now < self._patient_until:
                self.timers.set(ConnectionTimer.HEARTBEAT_REPLY, self._patient_until)
            elif now - deadline > self._config.heartbeat_timeout:
                # The tick is very late: the host was asleep, and the reply may be unread. Send a heartbeat.
                self._beat(now)
            else:
                self._lost(f"no heartbeat reply within {self._config.heartbeat_timeout:g} s", now, abort=True)

    # ---------------------------------------------------------------- outputs

    def read(self, now: float) -> list[str | bytes] | ConnectionEvent | None:
        """Return the next messages, or the next event. `None` and an empty list mean that nothing is left.

        `read` returns an event alone, because the event may change how the following bytes are read.
        """
        websocket = self._websocket
        if self._pending:
            event = self._pending.pop(0)
            self.has_more = self._is_unread or bool(self._pending)
            return event
        if websocket is not None and self.state is _OPEN:
            messages = websocket.take_messages()
            self.has_more = self._is_unread = not websocket.is_read
            if websocket.deflate_bits is not None:
                self._count_inflated(websocket)
            if messages or not self.has_more:
                return messages
        while websocket is not None and (received := websocket.next_event()) is not None:
            if websocket.deflate_bits is not None:
                self._count_inflated(websocket)
            if isinstance(received, (TextMessage, BinaryMessage)):  # a message causes no output
                if self.state is _OPEN:
                    return [received.data]
            elif isinstance(received, PingReceived):
                assert self._conn is not None
                self._outbox.send_pong(self._conn, websocket.data_to_send())
            else:
                self._flush()
                if isinstance(received, Opened):
                    self._opened(now)
                elif isinstance(received, HandshakeRefused):
                    self._refused(received, now)
                elif isinstance(received, Closed):
                    self._closed(received, now)
                if self._pending:
                    return self._pending.pop(0)
        self.has_more = self._is_unread = False
        return None

    # ---------------------------------------------------------------- internals

    def _opened(self, now: float) -> None:
        self.state = ConnectionState.OPEN
        self._was_open = True
        self._was_refused = False
        self.timers.cancel(ConnectionTimer.CONNECT)
        self.timers.set(ConnectionTimer.HEARTBEAT, now + self._config.heartbeat_interval)
        self._report(Up())

    def _beat(self, now: float) -> None:
        self.timers.set(ConnectionTimer.HEARTBEAT, now + self._config.heartbeat_interval)
        # An earlier unanswered heartbeat keeps its timeout.
        if self.timers.get(ConnectionTimer.HEARTBEAT_REPLY) is None:
            self.timers.set(ConnectionTimer.HEARTBEAT_REPLY, now + self._config.heartbeat_timeout)
        if self._beaten_at is None:
            self._beaten_at = now
        if _HEARTBEAT_DUE not in self._pending:  # one event is enough, even after a late tick
            self._report(_HEARTBEAT_DUE)

    def _refused(self, refused: HandshakeRefused, now: float) -> None:
        status = refused.status
        if status in (401, 403):
            # Final, unless the access token may have just expired: then connect once more with a fresh token.
            fatal = self._was_refused or not self._config.asks_for_token
            self._was_refused = True
        else:
            # Other 3xx and 4xx statuses mean a wrong URL. But if the URL has worked before, the status is
            # probably from a proxy in front of a restarting server.
            fatal = 300 <= status < 500 and status not in RETRIED_STATUSES and not self._was_open
        words = self.credentials.hide(refused.body.decode("utf-8", "replace"))
        text = " ".join(words.split())[:MAX_TEXT]
        reason = f"the server refused the connection: HTTP {status}"
        if 300 <= status < 400 and (target := redirect_target(refused.headers)) is not None:
            reason += f" (moved to {target})"
        if text:
            reason += f" {text}"
        wait = retry_after(refused.headers) or 0.0
        self._lost(reason, now, status=status, fatal=fatal, not_before=wait)

    def _closed(self, closed: Closed, now: float) -> None:
        if self.state is ConnectionState.CLOSING:
            self._drop(abort=False)
            self._end("disconnect was called", closed.code)
            return
        if closed.clean:
            reason = f"the server closed the connection with code {closed.code}"
            reason += f": {closed.reason}" if closed.reason else ""
        else:
            reason = self._transport_gone or closed.reason
        self._lost(reason, now, code=closed.code if self.state is ConnectionState.OPEN else None)

    def _lost(
        self,
        reason: str,
        now: float,
        *,
        code: int | None = None,
        status: int | None = None,
        fatal: bool = False,
        abort: bool = False,
        not_before: float = 0.0,  # seconds that the server asks the client to wait
    ) -> None:
        self._drop(abort=abort)
        if fatal:
            self._end(reason, code, status=status, fatal=True)
            return
        self._tokens.connection_lost()
        delay = max(self._backoff.next(), min(not_before, self._config.max_reconnect_delay))
        self.state = ConnectionState.WAITING
        self.timers.set(ConnectionTimer.RECONNECT, now + delay)
        self._report(Down(self.credentials.hide(reason), code, status, delay, False))

    def _end(
        self, reason: str, code: int | None = None, *, status: int | None = None, fatal: bool = False
    ) -> None:
        self.state = ConnectionState.IDLE
        self._was_refused = False
        self._backoff.reset()
        self._tokens.stop()
        self._report(Down(self.credentials.hide(reason), code, status, None, fatal))

    def _drop(self, *, abort: bool) -> None:
        for timer in _TRANSPORT_TIMERS:
            self.timers.cancel(timer)
        if _HEARTBEAT_DUE in self._pending:
            self._pending.remove(_HEARTBEAT_DUE)
        if self._conn is not None and self._transport_gone is None:
            self._outbox.put(CloseTransport(self._conn, abort))
        self._conn = None
        self._websocket, self._inflated = None, 0
        self._transport_gone = None
        self._beaten_at = self._latency = None

    def _report(self, event: ConnectionEvent) -> None:
        self._pending.append(event)
        self.has_more = True

    def _count_inflated(self, websocket: WebSocket) -> None:
        added = websocket.bytes_added
        self._outbox.bytes_received += added - self._inflated
        self._inflated = added

    def _flush(self) -> None:
        assert self._conn is not None
        assert self._websocket is not None
        self._outbox.send(self._conn, self._websocket.data_to_send())
