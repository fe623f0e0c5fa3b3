"""One server, kept connected: open, upgrade, heartbeat, close; after a loss the backoff, the next attempt.

            open()                transport_opened + upgrade
    IDLE ──────────▶ CONNECTING ──────────────────────────▶ OPEN
     ▲                  │  ▲                                │  │
     │ refused for good │  │ RECONNECT fires      lost      │  │ close()
     │                  ▼  │                                │  ▼
     ├◀──────────────  WAITING ◀────────────────────────────┘ CLOSING
     └◀──────────────────────────────────────────────────────┘

`RealtimeClient` and the Jarvis protocol both stand on it: it knows WebSockets and time, not what is said
over them.
"""

from __future__ import annotations

import base64
import math
import re
from enum import Enum, IntEnum, auto
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from attrs import frozen

from presence_proto.endpoint import AccessTokenNeeded, CloseTransport, ConnId, OpenTransport, Outbox
from presence_proto.errors import LocalProtocolError
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
    WebSocket,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from presence_proto.config import Address, RealtimeConfig
    from presence_proto.websocket.handshake import Headers


# ---------------------------------------------------------------------------------------------------- refusal
# What the headers of a refused handshake say: when to come back, and where the server is.


MAX_TARGET = 200  # characters of a redirect's target that are shown

# RFC 9110 §5.6.7. The two obsolete forms of a date are not read: no server has sent them for decades.
_DATE = re.compile(
    r"[A-Z][a-z]{2}, ([0-9]{2}) ([A-Z][a-z]{2}) ([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_AUTHORITY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)?//([^/?#]*@)?")  # RFC 3986 §3, with its user info


def retry_after(headers: Headers) -> float | None:
    """Seconds to wait, from `Retry-After` (RFC 9110 §10.2.3); `None` without one that can be understood.

    A date counts from the answer's own `Date`: the core has no wall clock, and ours might be wrong.
    """
    wanted = _first(headers, "retry-after")
    if re.fullmatch(r"[0-9]+", wanted):
        return float(wanted)  # not int, which refuses thousands of digits
    due, sent = _seconds(wanted), _seconds(_first(headers, "date"))
    return None if due is None or sent is None else max(0.0, due - sent)


def redirect_target(headers: Headers) -> str | None:
    """Where `Location` leads, for people: without user info, query and fragment, which may hold secrets."""
    address, question_mark, _ = _first(headers, "location").partition("#")[0].partition("?")
    if not address:
        return None
    address = quote(_AUTHORITY.sub(r"\1//", address, count=1), safe="/%:@!$&'()*+,;=~[]", encoding="latin-1")
    return address[:MAX_TARGET] + ("?…" if question_mark else "")


def _first(headers: Headers, wanted: str) -> str:
    return next((value for name, value in headers if name == wanted), "")


def _seconds(date: str) -> float | None:
    """A date of HTTP, in seconds from an epoch of our own; `None` for what is not one."""
    match = _DATE.fullmatch(date)
    if match is None or match[2] not in _MONTHS:
        return None
    day, year, hour, minute, second = (int(match[number]) for number in (1, 3, 4, 5, 6))
    # The Gregorian calendar, with years that begin in March, so that a leap day is the last of its year.
    years, month = divmod(year * 12 + _MONTHS.index(match[2]) - 2, 12)
    days = 365 * years + years // 4 - years // 100 + years // 400 + (153 * month + 2) // 5 + day
    return float(((days * 24 + hour) * 60 + minute) * 60 + second)


# --------------------------------------------------------------------------------------------- token requests
# When to ask the application for an access token: for connects and joins, and before the last one expires.
#
# A request is answered, or fails: because the application says so, or because it says nothing for too long.
# What has failed is asked for again, with a backoff, for as long as the client is wanted.


LONGEST_AHEAD = 60.0
"""Seconds before the expiry at which a new token is asked for; a fifth of its time, when that is less."""


class TokenTimer(IntEnum):
    """The timers of the requests."""

    ANSWER = auto()  # the answer is due
    AGAIN = auto()  # there was none, or a bad one: ask again
    REFRESH = auto()  # the token expires soon


class TokenRequests:
    """The requests of one client, one at a time. Without `asks_for_token` there are none."""

    def __init__(self, config: RealtimeConfig, outbox: Outbox[Any], rng: Random | None) -> None:
        self._config = config
        self._outbox = outbox
        self.timers: Timers[TokenTimer] = Timers()
        self._backoff = Backoff(
            config.reconnect_delay, config.max_reconnect_delay, jitter=config.jitter, rng=rng
        )

    def next_deadline(self) -> float | None:
        """When `tick` has something to do, or `None`."""
        return self.timers.next_deadline()

    @property
    def is_open(self) -> bool:
        """Whether an answer is awaited."""
        return self.timers.get(TokenTimer.ANSWER) is not None

    def need(self, now: float) -> None:
        """A fresh token is needed. Asks for one, unless that is being done."""
        if not self.is_open and self.timers.get(TokenTimer.AGAIN) is None:
            self._ask(now)

    def answered(self, expires_in: float | None, now: float) -> None:
        """There is a token, which is good for so long (seconds), or for ever. It may have expired already."""
        self.timers.clear()
        ahead = None if expires_in is None else expires_in - min(LONGEST_AHEAD, expires_in / 5)
        if ahead is not None and ahead < self._config.reconnect_delay:
            ahead = self._backoff.next()  # it may be our clock that is wrong: the server shall say
        else:
            self._backoff.reset()
        if ahead is not None and self._config.asks_for_token:
            self.timers.set(TokenTimer.REFRESH, now + ahead)

    def failed(self, now: float) -> float:
        """There is none. Returns the seconds until it is asked for again."""
        delay = self._backoff.next()
        self.timers.clear()
        self.timers.set(TokenTimer.AGAIN, now + delay)
        return delay

    def connection_lost(self) -> None:
        """Before the next connection a token is asked for anyway."""
        self.timers.cancel(TokenTimer.REFRESH)

    def stop(self) -> None:
        """The client is leaving or at rest: it needs no token."""
        self.timers.clear()
        self._backoff.reset()

    def tick(self, now: float) -> bool:
        """Time passed. `True`: the time for an answer is up, so say that it has `failed`."""
        slot = self.timers.pop_expired(now)
        if slot in (TokenTimer.AGAIN, TokenTimer.REFRESH):
            self._ask(now)
        return slot is TokenTimer.ANSWER

    def _ask(self, now: float) -> None:
        self.timers.clear()
        self.timers.set(TokenTimer.ANSWER, now + self._config.access_token_timeout)
        self._outbox.put(AccessTokenNeeded())


def check_expires_in(expires_in: float | None) -> None:
    """Raise `LocalProtocolError` unless these are seconds, or `None`."""
    if expires_in is not None and not is_number(expires_in):
        raise LocalProtocolError(f"expires_in must be a finite number of seconds or None, not {expires_in!r}")


# ------------------------------------------------------------------------------------------------- connection


RETRIED_STATUSES = frozenset({408, 425, 429})
"""4xx answers that mean "later", not "never"."""


class ConnectionState(Enum):
    """Where a connection is; the drawing above has the moves between them."""

    IDLE = auto()
    CONNECTING = auto()
    OPEN = auto()
    WAITING = auto()
    CLOSING = auto()


_OPEN = ConnectionState.OPEN  # Python 3.11 takes as long to look up a member as to call a function


class ConnectionTimer(IntEnum):  # whose hash is quicker than that of other enums
    """The timers of a connection."""

    CONNECT = auto()
    RECONNECT = auto()
    HEARTBEAT = auto()
    HEARTBEAT_REPLY = auto()
    CLOSE = auto()


@frozen
class Up:
    """The WebSocket is open."""


@frozen
class Down:
    """The connection ended or could not be made; see `events.SocketDisconnected` for the fields."""

    reason: str
    code: int | None
    status: int | None
    retry_in: float | None
    fatal: bool


@frozen
class TokenDue:
    """Get a fresh access token and call `proceed`. With `asks_for_token` this comes before each connect."""


@frozen
class HeartbeatDue:
    """Send a heartbeat now and call `heartbeat_acked` when its reply comes."""


_HEARTBEAT_DUE = HeartbeatDue()

ConnectionEvent: TypeAlias = Up | Down | TokenDue | HeartbeatDue | TextMessage | BinaryMessage


class Connection:
    """A WebSocket to one server that comes back by itself. Facts in, `next_event()` out, bytes to the outbox.

    `address` is called for every attempt, since its query may carry a token that changes. `rng` is for the
    jitter of the backoff, and for the nonce of the upgrade, so that a session can be replayed. Calls take
    `now` in seconds of one clock that never runs backwards.
    """

    def __init__(
        self,
        config: RealtimeConfig,
        address: Callable[[], Address],
        outbox: Outbox[Any],
        *,
        rng: Random | None = None,
    ) -> None:
        self.credentials = Credentials(config.secrets)  # of this client, for texts for people
        self._config = config
        self._address = address
        self._outbox = outbox
        self._rng = rng
        self._backoff = Backoff(
            config.reconnect_delay, config.max_reconnect_delay, jitter=config.jitter, rng=rng
        )
        self.timers: Timers[ConnectionTimer] = Timers()
        self.state = ConnectionState.IDLE
        """Where the connection is."""
        self._last_conn = 0
        self._conn: ConnId | None = None
        self._websocket: WebSocket | None = None
        self._inflated = 0  # bytes that inflating has added on this transport and the outbox has counted
        self._transport_gone: str | None = None  # why, once the driver said so
        self._was_open = False
        self._was_refused = False  # with 401 or 403, the last time
        self._patient_until = -math.inf
        self._beaten_at: float | None = None  # when the oldest heartbeat without an answer was due
        self._latency: float | None = None
        self._pending: list[Up | Down | TokenDue | HeartbeatDue] = []
        self.has_more = False
        """Whether `next_event` may have an event. While it is false there is none: a caller need not ask."""

    # ---------------------------------------------------------------- getters

    @property
    def is_wanted(self) -> bool:
        """Whether the connection is open or tries to be: neither at rest nor closing."""
        return self.state not in (ConnectionState.IDLE, ConnectionState.CLOSING)

    @property
    def awaits_token(self) -> bool:
        """Whether it would connect, if `proceed` was called."""
        return self.state is ConnectionState.WAITING and self.timers.get(ConnectionTimer.RECONNECT) is None

    @property
    def latency(self) -> float | None:
        """From the latest heartbeat that was answered to its answer, in seconds."""
        return self._latency

    def next_deadline(self) -> float | None:
        """When `tick` has something to do, or `None`."""
        return self.timers.next_deadline()

    # ---------------------------------------------------------------- commands

    def open(self, now: float) -> None:
        """Start connecting. Legal in IDLE and WAITING."""
        assert self.state in (ConnectionState.IDLE, ConnectionState.WAITING)
        self.state = ConnectionState.WAITING
        if self._config.asks_for_token:
            self._report(TokenDue())
        else:
            self.proceed(now)

    def proceed(self, now: float) -> None:
        """Connect, with the access token of now. Legal when it `awaits_token`."""
        assert self.awaits_token
        target = self._address()
        self._last_conn += 1
        self._conn = ConnId(self._last_conn)
        self.state = ConnectionState.CONNECTING
        self.timers.set(ConnectionTimer.CONNECT, now + self._config.connect_timeout)
        self._outbox.put(OpenTransport(self._conn, target.host, target.port, target.tls))

    def close(self, now: float) -> None:
        """Close for good. An open connection gets a closing handshake, bounded by `close_timeout`."""
        if self.state is ConnectionState.OPEN:
            assert self._websocket is not None
            self.state = ConnectionState.CLOSING
            self.timers.clear()
            self.timers.set(ConnectionTimer.CLOSE, now + self._config.close_timeout)
            self._websocket.close(1000)
            self._flush()
        elif self.state in (ConnectionState.CONNECTING, ConnectionState.WAITING):
            self._drop(abort=True)
            self._end("disconnect was called")

    def send(self, data: bytes, *, text: bool) -> None:
        """Send one message. Legal in OPEN."""
        assert self.state is ConnectionState.OPEN
        assert self._websocket is not None
        if text:
            self._websocket.send_text(data)
        else:
            self._websocket.send_binary(data)
        self._flush()

    def heartbeat_acked(self, now: float) -> None:
        """The reply to a heartbeat came."""
        if self._beaten_at is not None:  # else it answers nothing
            self._latency, self._beaten_at = now - self._beaten_at, None
        self.timers.cancel(ConnectionTimer.HEARTBEAT_REPLY)

    def beat(self, now: float) -> None:
        """Send a heartbeat now, and the next one an interval later. Legal in OPEN."""
        assert self.state is ConnectionState.OPEN
        self._beat(now)

    def excuse_heartbeats_until(self, deadline: float) -> None:
        """A slow join blocks the server's socket: before `deadline` silence is no proof of death."""
        self._patient_until = deadline

    def reset_backoff(self) -> None:
        """Things have been well for a while: the next backoff starts over."""
        self._backoff.reset()

    def abort(self, reason: str, now: float) -> None:
        """This connection is no good: drop it, and try again. Legal in OPEN."""
        assert self.state is ConnectionState.OPEN
        self._lost(reason, now, abort=True)

    # ---------------------------------------------------------------- facts

    def transport_opened(self, conn: ConnId) -> None:
        """The byte stream that `OpenTransport` asked for is there."""
        if conn != self._conn or self._websocket is not None:
            return
        target = self._address()  # with the current token
        self._websocket = WebSocket.client(
            target,
            headers=self._config.request_headers,
            subprotocols=target.subprotocols,
            deflate=self._config.deflate,
            max_message_size=self._config.max_message_size,
            key=None if self._rng is None else base64.b64encode(self._rng.randbytes(16)),
        )
        self._flush()

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview) -> None:
        """Bytes came in. Pull the events with `next_event` afterwards."""
        if conn == self._conn and self._websocket is not None:
            self._outbox.bytes_received += len(data)
            self.has_more = True
            self._websocket.receive_data(data)

    def transport_closed(self, conn: ConnId, reason: str, now: float) -> None:
        """The byte stream ended, or could not be opened."""
        if conn != self._conn:
            return
        self._transport_gone = reason
        if self._websocket is not None:
            # Through the WebSocket, so that messages before the end come before it.
            self.has_more = True
            self._websocket.receive_eof()
        else:
            self._lost(reason, now)

    def tick(self, now: float) -> None:
        """Time passed."""
        while (deadline := self.timers.next_deadline()) is not None and deadline <= now:
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
            elif now < self._patient_until:
                self.timers.set(ConnectionTimer.HEARTBEAT_REPLY, self._patient_until)
            elif now - deadline > self._config.heartbeat_timeout:
                # Nobody ticked for long: the host slept, and the reply may lie unread. Ask, do not guess.
                self._beat(now)
            else:
                self._lost(f"no heartbeat reply within {self._config.heartbeat_timeout:g} s", now, abort=True)

    # ---------------------------------------------------------------- outputs

    def take_messages(self) -> list[str | bytes]:
        """The plain messages that `next_event` would give next; see `WebSocket.take_messages`."""
        websocket = self._websocket
        if self._pending or websocket is None or self.state is not _OPEN:
            return []
        messages = websocket.take_messages()
        self.has_more = not websocket.is_read
        if websocket.deflate_bits is not None:
            self._count_inflated(websocket)
        return messages

    def next_event(self, now: float) -> ConnectionEvent | None:
        """What happened, oldest first; `None` when there is no more."""
        while True:
            if self._pending:
                return self._pending.pop(0)
            websocket = self._websocket
            if websocket is None:
                self.has_more = False
                return None
            event = websocket.next_event()
            if websocket.deflate_bits is not None:
                self._count_inflated(websocket)
            if isinstance(event, (TextMessage, BinaryMessage)):  # which need no answer
                if self.state is ConnectionState.OPEN:
                    return event
                continue
            if event is None:
                self.has_more = False
                return None
            if isinstance(event, PingReceived):
                assert self._conn is not None
                self._outbox.send_pong(self._conn, websocket.data_to_send())
                continue
            self._flush()
            if isinstance(event, Opened):
                self._opened(now)
            elif isinstance(event, HandshakeRefused):
                self._refused(event, now)
            elif isinstance(event, Closed):
                self._closed(event, now)

    # ---------------------------------------------------------------- inside

    def _opened(self, now: float) -> None:
        self.state = ConnectionState.OPEN
        self._was_open = True
        self._was_refused = False
        self.timers.cancel(ConnectionTimer.CONNECT)
        self.timers.set(ConnectionTimer.HEARTBEAT, now + self._config.heartbeat_interval)
        self._report(Up())

    def _beat(self, now: float) -> None:
        self.timers.set(ConnectionTimer.HEARTBEAT, now + self._config.heartbeat_interval)
        # While an earlier one is unanswered, its time counts.
        if self.timers.get(ConnectionTimer.HEARTBEAT_REPLY) is None:
            self.timers.set(ConnectionTimer.HEARTBEAT_REPLY, now + self._config.heartbeat_timeout)
        if self._beaten_at is None:
            self._beaten_at = now
        if _HEARTBEAT_DUE not in self._pending:  # one is enough, however late the tick
            self._report(_HEARTBEAT_DUE)

    def _refused(self, refused: HandshakeRefused, now: float) -> None:
        status = refused.status
        if status in (401, 403):
            # These do not heal, unless it was an access token that has just expired.
            fatal = self._was_refused or not self._config.asks_for_token
            self._was_refused = True
        else:
            # Other 3xx and 4xx mean a wrong URL, unless it has worked before: then it is more likely a proxy
            # in front of a server that restarts.
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
        not_before: float = 0.0,  # seconds that the server wants to be left alone
    ) -> None:
        self._drop(abort=abort)
        if fatal:
            self._end(reason, code, status=status, fatal=True)
            return
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
        self._report(Down(self.credentials.hide(reason), code, status, None, fatal))

    def _drop(self, *, abort: bool) -> None:
        self.timers.clear()
        self._pending.clear()  # at most a heartbeat that is not needed any more
        if self._conn is not None and self._transport_gone is None:
            self._outbox.put(CloseTransport(self._conn, abort))
        self._conn = None
        self._websocket, self._inflated = None, 0
        self._transport_gone = None
        self._beaten_at = self._latency = None

    def _report(self, event: Up | Down | TokenDue | HeartbeatDue) -> None:
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
