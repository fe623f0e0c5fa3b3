"""Access tokens from the application: a function that is asked for one before connects, joins and the expiry.

What it gives is told to the core together with the time that it is good for, which a JWT says itself. Whether
the token is a good one, only the server can say: no signature is looked at here.
"""

from __future__ import annotations

import inspect
import logging
import math
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from attrs import evolve

from presence_proto import ConfigError, LocalProtocolError, PresenceError, RealtimeConfig

if TYPE_CHECKING:
    from presence_proto import PresenceClient, RealtimeClient

logger = logging.getLogger(__name__)

TokenProvider: TypeAlias = Callable[[], str | Awaitable[str | None] | None]
"""A plain or `async` function that returns the access token of now, or `None` when there is to be none.

A plain one is called in a thread of its own, so it may take its time. On sockets it must be a plain one.
"""

Config = TypeVar("Config", bound=RealtimeConfig)


def with_token(config: Config, access_token: TokenProvider | str | None) -> Config:
    """The config of a client with this `access_token`. Raises `ConfigError`."""
    if callable(access_token):
        return evolve(config, asks_for_token=True)
    if config.asks_for_token:
        raise ConfigError("asks_for_token needs an access_token that is a function")
    return config if access_token is None else evolve(config, access_token=access_token)


def plain_provider(access_token: TokenProvider | str | None) -> Callable[[], Any] | None:
    """The provider, where no loop can await an `async` one. Raises `ConfigError` for such."""
    if is_async(access_token):
        raise ConfigError("access_token must be a plain function here: async ones are for asyncio and trio")
    return access_token if callable(access_token) else None


def is_async(function: Any) -> bool:
    """Whether a call of this gives a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  # an instance whose `__call__` is `async`
    )


def unverified_claims(token: str) -> dict[str, Any]:
    """What a JWT says, and nothing if it is none. Read without a key: only the server can verify it."""
    import jwt  # here, since few clients need it

    try:
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except (jwt.InvalidTokenError, UnicodeError, RecursionError):
        return {}
    return claims


def time_claim(claims: dict[str, Any], name: str) -> float | None:
    """The time of a claim in seconds since 1970; `None` when it is no finite number."""
    value = claims.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def expires_in(token: str) -> float | None:
    """Seconds until a token expires by our clock; `None` when it does not say when, or is no JWT."""
    expiry = time_claim(unverified_claims(token), "exp")
    return None if expiry is None else expiry - time.time()


def answer(client: RealtimeClient | PresenceClient, provided: Any, *, now: float) -> None:
    """Tell the core what a provider has returned."""
    if inspect.iscoroutine(provided):
        provided.close()
    if provided is not None and not isinstance(provided, str):
        kind = type(provided).__name__
        client.access_token_failed(f"the token provider gave a {kind}, not a string", now=now)
        return
    try:
        client.set_access_token(
            provided, expires_in=None if provided is None else expires_in(provided), now=now
        )
    except LocalProtocolError as exc:
        client.access_token_failed(f"the token provider gave none: {exc}", now=now)


def refuse(client: RealtimeClient | PresenceClient, error: Exception, *, now: float) -> None:
    """Tell the core that a provider has failed.

    What an exception of the application's says may hold a secret: it is not repeated, only where it was.
    """
    words = str(error) if isinstance(error, PresenceError) else _where(error)
    logger.warning("the token provider failed: %s", words)
    client.access_token_failed(f"the token provider failed: {words}", now=now)


def too_late(seconds: float) -> PresenceError:
    """What to raise when an `async` provider was cancelled, for it took longer than that."""
    return PresenceError(f"it took longer than {seconds:g} s")


def ask(provider: Callable[[], Any]) -> Any:
    """What a plain provider returns, in a thread. Raises nothing but `Exception`s."""
    try:
        return provider()
    except Exception:
        raise
    except BaseException as exc:
        # SystemExit and the like end no more than the thread that they are raised in.
        raise PresenceError(_where(exc)) from None


def _where(error: BaseException) -> str:
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    return f"{type(error).__name__} in {PurePath(frame.f_code.co_filename).name}, line {line}"


class ProviderCall:
    """One call of a plain provider, in a thread that nobody waits for. `on_end` is called in that thread."""

    def __init__(self, provider: Callable[[], Any], on_end: Callable[[], object] = lambda: None) -> None:
        self.is_over = False
        self.provided: Any = None
        self.error: Exception | None = None
        self._provider = provider
        self._on_end = on_end
        try:
            threading.Thread(target=self._run, name="access token", daemon=True).start()
        except RuntimeError:
            self.error, self.is_over = PresenceError("there is no room for another thread"), True
            on_end()

    def _run(self) -> None:
        try:
            self.provided = ask(self._provider)
        except Exception as exc:
            self.error = exc
        self.is_over = True
        self._on_end()
