"""`HubThread`: a hub in a separate thread, for tests with or without an event loop.

    with HubThread() as hub:
        app = App(url=hub.url, api_key=hub.api_key)
        ...
        hub.cut_all()
        hub.wait_online("realtime:room", 1)

A `HubThread` runs a `FaultyHub` behind a `HubServer`. The pytest fixture `presence_hub` is a `HubThread`.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import threading
import time
from concurrent.futures import Future
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from presence_adapters.errors import refuse
from presence_adapters.server.hub_server import HubServer
from presence_proto import ConnId, HubConfig, LocalProtocolError
from presence_proto.testing import FaultyHub

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from types import TracebackType

T = TypeVar("T")
Method = TypeVar("Method", bound="Callable[..., Any]")

PATIENCE = 10.0
"""Maximum duration of a call in the hub's thread, in seconds."""

PAUSE = 0.005
"""Time between two calls of a predicate in `wait_for`, in seconds."""

COMMANDS: dict[str, Callable[..., Any]] = {}
"""The methods of `HubThread` that `presence hub --control` also offers, by name."""


def _command(method: Method) -> Method:
    COMMANDS[method.__name__] = method
    return method


class HubThread:
    """A hub with switchable faults. The hub listens inside the `with` block, or from `start` to `stop`.

    The hub serves Supabase, Phoenix and Jarvis JSON clients, each at a separate URL. Methods may be called
    from any thread, and take effect before the call returns. `presence_proto.testing.Faults` describes the
    faults. `port=0` chooses a free port. A `config` is used unchanged; the default is `HubConfig()` with a
    new random API key.

    Methods raise `LocalProtocolError` while the hub is stopped, and for invalid values.
    """

    def __init__(
        self,
        config: HubConfig | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._config = HubConfig(api_keys=[new_api_key()]) if config is None else config
        self._host = host
        self._port = port
        self._ssl_context = ssl_context
        self._url = ""
        self._thread: threading.Thread | None = None
        self._over: Future[bool] = Future()  # set by `stop`; the result: whether to stop gracefully
        self._running: tuple[HubServer, asyncio.AbstractEventLoop] | None = None
        self._failure: BaseException | None = None

    # ---------------------------------------------------------------- lifecycle

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @_command
    def start(self) -> None:
        """Start to listen. A restart uses the same port. A started hub has no faults and no members.

        Raises `OSError` when the port is in use or not permitted.
        """
        if self._thread is not None:
            raise LocalProtocolError("the hub is running already")
        ready: Future[tuple[HubServer, asyncio.AbstractEventLoop]] = Future()
        self._over, self._failure = Future(), None
        # A daemon thread, because the thread must never keep an aborted test process alive.
        self._thread = threading.Thread(
            target=self._live, args=(ready, self._over), name="presence-hub", daemon=True
        )
        self._thread.start()
        try:
            self._running = ready.result(PATIENCE)
        except BaseException:
            self.stop()
            raise
        server = self._running[0]
        self._port, self._url = server.port, server.url

    @_command
    def stop(self, *, orderly: bool = False) -> None:
        """Stop as abruptly as a killed process. Do nothing if the hub is already stopped.

        With `orderly`, send close code 1012 to all clients and wait for all close frames. `stop` blocks
        the thread, so call `stop` with `asyncio.to_thread` in an event loop that runs one of the clients. If
        an internal error has stopped the hub before, `stop` raises this error.
        """
        if self._thread is None:
            return
        if orderly:
            _check_no_loop_waits()
        self._running = None
        if not self._over.done():
            self._over.set_result(orderly)
        self._thread.join()
        self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _live(self, ready: Future[tuple[HubServer, asyncio.AbstractEventLoop]], over: Future[bool]) -> None:
        try:
            asyncio.run(self._serve(ready, over))
        except BaseException as exc:
            if ready.done():
                self._failure = exc
            else:
                ready.set_exception(exc)

    async def _serve(
        self, ready: Future[tuple[HubServer, asyncio.AbstractEventLoop]], over: Future[bool]
    ) -> None:
        server = HubServer(
            self._config,
            host=self._host,
            port=self._port,
            ssl_context=self._ssl_context,
            hub_type=FaultyHub,
        )
        await server.start()
        ready.set_result((server, asyncio.get_running_loop()))
        orderly = await asyncio.wrap_future(over)
        await (server.close() if orderly else server.abort())
        await server.wait_closed()

    # ---------------------------------------------------------------- address

    @property
    def url(self) -> str:
        """The URL for Supabase clients: `server_url` for this library, or the URL for official clients."""
        return f"{self._base}/realtime/v1"

    @property
    def socket_url(self) -> str:
        """The URL for Phoenix clients."""
        return f"{self._base}/socket"

    @property
    def jarvis_url(self) -> str:
        """The URL for clients of the Jarvis JSON protocol (`PresenceConfig(protocol="jarvis")`)."""
        return f"{self._base}/jarvis"

    @property
    def port(self) -> int:
        """The port that the hub listens on. A restart keeps the same port."""
        return self._port

    @property
    def api_key(self) -> str:
        """An API key for Supabase and Jarvis clients: one of `HubConfig.api_keys`, else `"any"`."""
        return min(self._config.api_keys or {"any"})

    @property
    def _base(self) -> str:
        if not self._url:
            raise LocalProtocolError("the hub has not been started yet")
        return self._url

    # ---------------------------------------------------------------- state

    @_command
    def online(self, topic: str) -> dict[str, list[dict[str, Any]]]:
        """Return a copy of the presence metas of a topic, such as `realtime:room`, by key, newest last."""
        found = self.run(lambda server: deepcopy(dict(server.hub.online(topic))))
        return {key: [dict(meta) for meta in metas] for key, metas in found.items()}

    @property
    @_command
    def connections(self) -> list[int]:
        """The ids of the open connections, oldest first. `disconnect` and `cut` take a connection id."""
        return self.run(lambda server: list(server.hub.connections))

    @_command
    def wait_online(
        self, topic: str, count: int = 1, timeout: float = 10.0
    ) -> dict[str, list[dict[str, Any]]]:
        """Wait until exactly `count` keys are present in a topic, and return the result of `online`.

        Raises `TimeoutError` after `timeout` seconds. The call blocks the current thread: see `wait_for`.
        """
        try:
            self.wait_for(lambda: len(self.online(topic)) == count, timeout)
        except TimeoutError:
            there = ", ".join(self.online(topic)) or "nobody"
            raise TimeoutError(
                f"{count} should be online in {topic!r}, but after {timeout} s: {there}"
            ) from None
        return self.online(topic)

    def wait_for(self, predicate: Callable[[], T], timeout: float = 10.0) -> T:
        """Wait until `predicate()` is true, and return the predicate's result.

        The calling thread calls `predicate` repeatedly. Raises `TimeoutError` after `timeout` seconds. Raises
        `LocalProtocolError` in a thread with an event loop, because the call would block the loop. In a
        loop, call `await asyncio.to_thread(hub.wait_for, …)` or `await trio.to_thread.run_sync(…)`.
        """
        _check_no_loop_waits()
        deadline = time.monotonic() + timeout
        while not (result := predicate()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the condition was still false after {timeout} s")
            time.sleep(PAUSE)
        return result

    # ---------------------------------------------------------------- commands of every hub

    @_command
    def broadcast(self, topic: str, event: str, payload: Any = None) -> None:
        """Send a message to all members of a topic: a Supabase broadcast, or `event` in a plain topic."""
        self._do(FaultyHub.broadcast, topic, event, {} if payload is None else payload)

    @_command
    def close_channel(self, topic: str, reason: str = "closed by the server") -> None:
        """Close a channel for all members with `phx_close`."""
        self._do(FaultyHub.close_channel, topic, reason=reason)

    @_command
    def crash_channel(self, topic: str) -> None:
        """Crash a channel for all members with `phx_error`."""
        self._do(FaultyHub.crash_channel, topic)

    @_command
    def disconnect(self, conn: int, code: int = 1001, reason: str = "") -> None:
        """Close one connection with a WebSocket close code."""
        self._do(FaultyHub.disconnect, ConnId(conn), code, reason)

    @_command
    def cut(self, conn: int, *, reset: bool = False) -> None:
        """Break one connection without a WebSocket close. With `reset` the client receives a TCP RST."""
        self.run(lambda server: server.cut(ConnId(conn), reset=reset))

    @_command
    def cut_all(self, *, reset: bool = False) -> None:
        """Break all connections without a WebSocket close. With `reset` the clients receive a TCP RST."""
        self.run(lambda server: server.cut_all(reset=reset))

    # ---------------------------------------------------------------- faults

    @_command
    def set_faults(self, **changes: Any) -> None:
        """Change some fields of `presence_proto.testing.Faults`. All other faults are unchanged."""
        self.run(lambda server: server.set_faults(**changes))

    # Switches: short names for common faults. `set_faults` sets any fault.

    @_command
    def refuse_handshakes(self, count: int = 1, status: int = 503, body: str = "") -> None:
        """Refuse the next `count` handshakes with HTTP `status` (300 to 599). `count=0` means none."""
        self.set_faults(handshakes_to_refuse=count, refusal_status=status, refusal_body=body)

    @_command
    def mute_heartbeats(self, on: bool = True) -> None:
        """Do not reply to heartbeats."""
        self.set_faults(heartbeats_muted=on)

    @_command
    def ignore_joins(self, on: bool = True) -> None:
        """Ignore joins, and send no reply to a join."""
        self.set_faults(joins_ignored=on)

    @_command
    def withhold_states(self, on: bool = True) -> None:
        """Send no `presence_state`, like a server with presence disabled."""
        self.set_faults(states_withheld=on)

    @_command
    def drop_broadcasts(self, on: bool = True) -> None:
        """Acknowledge the broadcasts of members without delivering the broadcasts."""
        self.set_faults(broadcasts_dropped=on)

    @_command
    def duplicate_diffs(self, on: bool = True) -> None:
        """Send each `presence_diff` twice."""
        self.set_faults(diffs_duplicated=on)

    @_command
    def slow_joins(self, join_delay: float = 0.0, refusal_delay: float = 5.0) -> None:
        """Delay each join by `join_delay` seconds, and a refused join by `refusal_delay` more seconds.

        The joins of one connection are handled one after the other.
        """
        self.set_faults(join_delay=join_delay, refusal_delay=refusal_delay)

    @_command
    def limit_rate(self, presence_calls: int | None = 5, broadcasts: int | None = 100) -> None:
        """Close a Supabase channel that exceeds a limit. `None` means no limit.

        `presence_calls`: the maximum number of tracks and untracks in 30 seconds. `broadcasts`: the maximum
        number of broadcasts in 1 second.
        """
        self.set_faults(presence_limit=presence_calls, broadcast_limit=broadcasts)

    @_command
    def delay(self, seconds: float) -> None:
        """Delay all data that the hub sends by `seconds`. `0` ends the delay and sends delayed data now."""
        self.set_faults(delay=seconds)

    @_command
    def freeze(self) -> None:
        """Stop reading and writing, like a stopped process. Connections stay open."""
        self.set_faults(frozen=True)

    @_command
    def thaw(self) -> None:
        """Continue after `freeze`, and handle all data that arrived in the meantime."""
        self.set_faults(frozen=False)

    @_command
    def heal(self) -> None:
        """Turn off all faults."""
        self._do(FaultyHub.heal)

    # ---------------------------------------------------------------- inside the hub's thread

    def run(self, call: Callable[[HubServer], T]) -> T:
        """Run `call(server)` in the hub's thread. The result must be safe to use in the calling thread."""
        if self._running is None:
            raise LocalProtocolError("the hub is stopped: start it first")
        server, loop = self._running

        async def do() -> T:
            return call(server)

        return asyncio.run_coroutine_threadsafe(do(), loop).result(PATIENCE)

    def _do(self, command: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        self.run(lambda server: server.run(partial(command, server.hub), *args, **kwargs))


refuse(HubThread, "use `with`, or presence_adapters.server.HubServer", "async with")


def new_api_key() -> str:
    """Return a random API key."""
    return secrets.token_urlsafe(16)


def _check_no_loop_waits() -> None:
    """Raise `LocalProtocolError` when this thread runs an event loop of asyncio or trio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        trio = sys.modules.get("trio")
        if trio is None or not trio.lowlevel.in_trio_run():
            return
    raise LocalProtocolError(
        "this call would block the event loop: use asyncio.to_thread or trio.to_thread.run_sync"
    )
