"""The steps of a check-up on an open stream, for both protocols: upgrade, join, presence, heartbeat.

Each step returns its result, mostly as text, or raises `StepError` with the facts that the step found. A
`Recording` creates the cores, so that `--debug` logs the traffic.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from presence_adapters.cli.doctor.probes import parsed_head, why_no_tls
from presence_adapters.recording import Recording
from presence_adapters.tls_and_proxies import why_lost
from presence_proto import (
    ChannelConfig,
    ChannelDown,
    ChannelJoined,
    CloseTransport,
    Connected,
    Disconnected,
    Error,
    JoinFailed,
    OpenTransport,
    PresenceClient,
    PresenceSynced,
    ProtocolViolation,
    RealtimeClient,
    SendData,
    SocketConnected,
    SocketDisconnected,
    SystemMessage,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from presence_adapters.cli.doctor.facts import HttpAnswer
    from presence_adapters.cli.doctor.probes import Stream
    from presence_proto import ConnId, Identity, PresenceConfig


# ----------------------------------------------------------------------------------------------- conversation
# A client core on a stream that is already open. When the stream ends, the client does not reconnect.


Core = TypeVar("Core", RealtimeClient, PresenceClient)

LARGEST_HEAD = 64 * 1024  # bytes of the server's data that are kept; enough for an upgrade response
GOODBYE = 1.0  # maximum duration of the closing handshake, in seconds


class Conversation(Generic[Core]):
    """Driver of a client core on one stream.

    `heard`: all events of the core so far. `first_bytes`: the beginning of the data from the server.
    `ended`: whether the connection has ended, or the core has requested its end. `error`: the error that
    ended the connection, or `None`. `writes`: the number of writes to the server.
    """

    def __init__(self, core: Core, stream: Stream) -> None:
        self.core: Core = core
        self.heard: deque[object] = deque()  # events
        self.first_bytes = b""
        self.ended = False
        self.error: OSError | None = None
        self.writes = 0
        self._reader, self._writer = stream
        self._loop = asyncio.get_running_loop()
        self._conn: ConnId  # set by `begin`

    def now(self) -> float:
        """Return the time of the loop, which is the clock of the core, in seconds."""
        return self._loop.time()

    def begin(self) -> None:
        """Connect the core. The core's transport is the stream that is already open."""
        self.core.connect(now=self.now())
        self._drain()
        self.core.transport_opened(self._conn, now=self.now())
        self._drain()

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Run the core until `condition()` holds. Return `False` after `seconds`, or when the stream ends."""
        self._drain()  # outputs of a command that the caller has just given
        deadline = self.now() + seconds
        while not condition():
            if self.ended or self.now() >= deadline:
                return False
            await self._step(deadline)
        return True

    async def close(self) -> None:
        """Disconnect with a closing handshake if possible, then abort the transport."""
        with suppress(OSError):
            self.core.disconnect(now=self.now())
            await self.until(lambda: self.core.is_closed, GOODBYE)
        self._writer.transport.abort()

    async def _step(self, deadline: float) -> None:
        due = self.core.next_deadline()
        wake = deadline if due is None else min(due, deadline)
        try:
            async with asyncio.timeout_at(wake):
                data = await self._reader.read(65536)
        except TimeoutError:
            self.core.tick(now=self.now())
        except OSError as exc:
            self.error = exc
            self._end(why_lost(exc))
        else:
            if len(self.first_bytes) < LARGEST_HEAD:
                self.first_bytes += data
            if data:
                self.core.receive_data(self._conn, data, now=self.now())
            else:
                self._end("eof")
        self._drain()

    def _end(self, reason: str) -> None:
        self.ended = True
        self.core.transport_closed(self._conn, now=self.now(), reason=reason)

    def _drain(self) -> None:
        while outputs := self.core.drain():
            for output in outputs:
                match output:
                    case OpenTransport():
                        self._conn = output.conn
                    case SendData():
                        self.writes += 1
                        self._writer.write(output.data)
                    case CloseTransport():
                        self.ended = True
                    case _:
                        self.heard.append(output)


# ----------------------------------------------------------------------------------------------------- trials


E = TypeVar("E")

_TLS_ALERT = b"\x15\x03"
_LONGEST = 200  # maximum number of quoted characters of a join reply without a known reason


class StepError(Exception):
    """Error of a failed step. `facts`: the fields of `Facts` that the step found, with their values."""

    def __init__(self, **facts: Any) -> None:
        super().__init__(facts)
        self.facts = facts


class Trial(ABC, Generic[Core]):
    """The steps of a check-up on one connection. `timeout`: the time limit of a step, in seconds."""

    losses: ClassVar[tuple[type[Any], ...]]

    def __init__(self, core: Core, stream: Stream, timeout: float) -> None:
        self.talk: Conversation[Core] = Conversation(core, stream)
        self.timeout = timeout

    async def open(self) -> HttpAnswer:
        """Request the upgrade. Return the response, even if the server refuses the upgrade.

        Raises `StepError` when no HTTP response arrives, or when a response with status 101 is invalid.
        """
        self.talk.begin()
        await self.talk.until(lambda: self.is_open or self.heard(*self.losses) is not None, self.timeout)
        answer = parsed_head(self.talk.first_bytes)
        if answer is not None and (self.is_open or answer.status != 101):
            return answer
        starts_tls = self.talk.first_bytes.startswith(_TLS_ALERT)
        raise self.failure(
            answer=answer,
            speaks_tls=starts_tls,
            speaks_http=starts_tls or answer is not None or not self.talk.first_bytes,
        )

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether the core has accepted the server's upgrade."""

    @abstractmethod
    async def join(self) -> str:
        """Join the room. Return the result as text."""

    @abstractmethod
    async def presence(self) -> str:
        """Wait for the presence state. Return the result as text."""

    async def heartbeat(self) -> float:
        """Wait for the reply to a heartbeat. Return the round-trip time in seconds."""
        await self.talk.until(lambda: self.talk.core.latency is not None, self.timeout)
        latency: float | None = self.talk.core.latency
        if latency is None:
            raise self.failure()
        return latency

    def heard(self, *kinds: type[E]) -> E | None:
        """Return the first received event of the given types, or `None` if no such event has arrived."""
        return next((event for event in self.talk.heard if isinstance(event, kinds)), None)

    async def hear(self, *kinds: type[Any]) -> Any:
        """Wait for an event of the given types. Return `None` after `timeout`, or if the connection ends."""
        await self.talk.until(lambda: self.heard(*kinds, *self.losses) is not None, self.timeout)
        return self.heard(*kinds)

    def failure(self, **facts: Any) -> StepError:
        """Return the error of a failed step, with the reason: the connection has ended, or the time is up."""
        loss = self.heard(*self.losses)
        if loss is not None:
            facts |= {
                "ended": True,
                "tls_trouble": None if self.talk.error is None else why_no_tls(self.talk.error)[0],
                "detail": "the server closed the connection" if loss.reason == "eof" else loss.reason,
            }
        return StepError(silent=loss is None, **facts)


class PhoenixTrial(Trial[RealtimeClient]):
    """Trial of a Phoenix server. The client joins without a track, so other users do not see the client."""

    losses = (SocketDisconnected,)

    def __init__(self, identity: Identity, config: PresenceConfig, stream: Stream, timeout: float) -> None:
        super().__init__(Recording(None).realtime_client(config, None), stream, timeout)
        self._topic = f"realtime:{config.channel}"
        self._params = ChannelConfig(broadcast_ack=True, presence_key=identity.user_id)

    @property
    def is_open(self) -> bool:
        """See `Trial.is_open`."""
        return self.heard(SocketConnected) is not None

    async def join(self) -> str:
        """Join the channel. See `Trial.join`."""
        self.talk.core.join(self._topic, self._params, now=self.talk.now())
        answer = await self.hear(ChannelJoined, JoinFailed, ProtocolViolation)
        if isinstance(answer, ChannelJoined):
            return f"in {self._topic}"
        if isinstance(answer, JoinFailed):
            raise StepError(refusal=_refusal(answer))
        raise self.failure(unreadable=answer is not None)

    async def presence(self) -> str:
        """Wait for the `presence_state` message. See `Trial.presence`."""
        if not isinstance(await self.hear(PresenceSynced, ChannelDown), PresenceSynced):
            raise self._end_of_channel()
        count = len(self.talk.core.presence(self._topic))
        return f"{count} {'user' if count == 1 else 'users'} online"

    async def heartbeat(self) -> float:
        """See `Trial.heartbeat`. Raises `StepError` also when the channel has ended in the meantime."""
        latency = await super().heartbeat()
        if self.heard(ChannelDown) is not None:
            raise self._end_of_channel()
        return latency

    def _end_of_channel(self) -> StepError:
        said, down = self.heard(SystemMessage), self.heard(ChannelDown)
        if said is not None and said.status == "error":
            return StepError(ended=True, refusal=said.message, detail=said.message)
        if down is None or self.heard(*self.losses) is not None:
            return self.failure()  # a lost connection's reason is more precise than the channel's
        return StepError(ended=True, detail=down.reason)


def _refusal(failed: JoinFailed) -> str:
    """Return the server's reason for a failed join. A reply without a reason is appended as JSON."""
    if not failed.response or not failed.reason.startswith("the server said "):
        return failed.reason
    return f"{failed.reason}: {json.dumps(failed.response, ensure_ascii=False)[:_LONGEST]}"


class JarvisTrial(Trial[PresenceClient]):
    """Trial of a Jarvis JSON server. The protocol has no invisible join, so the user is briefly online."""

    losses = (Disconnected,)

    def __init__(self, identity: Identity, config: PresenceConfig, stream: Stream, timeout: float) -> None:
        super().__init__(Recording(None).presence_client(identity, config, None, None), stream, timeout)

    @property
    def is_open(self) -> bool:
        """See `Trial.is_open`."""
        return self.talk.writes > 1  # the second write introduces the user

    async def join(self) -> str:
        """Wait for the welcome message (`welcome`). See `Trial.join`."""
        answer = await self.hear(Connected, Error)
        if isinstance(answer, Connected):
            return "welcomed"
        if isinstance(answer, Error) and answer.server_text is not None:
            raise StepError(refusal=answer.server_text)
        raise self.failure(unreadable=answer is not None, detail=answer.message if answer else "")

    async def presence(self) -> str:
        """Count the users in the welcome message (`welcome`). See `Trial.presence`."""
        count = self.talk.core.online_count
        return f"{count} {'user' if count == 1 else 'users'} online, including you"
