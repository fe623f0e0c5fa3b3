"""Access tokens from the token provider, which is a function of the application.

The provider is called before connects and joins, and before the current token expires. The core gets each
token together with the remaining lifetime, which is read from the JWT. Signatures are not checked, because
only the server can verify a signature.
"""

from __future__ import annotations

import inspect
import logging
import math
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
"""A plain or `async` function that returns the current access token, or `None` for no token.

A plain function may block, because a separate thread calls the function. `blocking` and `stepped` clients
accept only a plain function.
"""

Config = TypeVar("Config", bound=RealtimeConfig)


def with_token(config: Config, access_token: TokenProvider | str | None) -> Config:
    """Return `config` with `access_token`, or with `asks_for_token` if `access_token` is a function.

    Raises `ConfigError` if the config has `asks_for_token` and `access_token` is not a function.
    """
    if callable(access_token):
        return evolve(config, asks_for_token=True)
    if config.asks_for_token:
        raise ConfigError("asks_for_token requires an access_token that is a function")
    return config if access_token is None else evolve(config, access_token=access_token)


def plain_provider(access_token: TokenProvider | str | None) -> Callable[[], Any] | None:
    """Return `access_token` if callable, else `None`. Raises `ConfigError` for an `async` function."""
    if is_async(access_token):
        raise ConfigError(
            "access_token must be a plain function here: only asyncio and trio clients accept an async one"
        )
    return access_token if callable(access_token) else None


def is_async(function: Any) -> bool:
    """Whether a call of `function` returns a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  # an instance whose `__call__` is `async`
    )


def unverified_claims(token: str) -> dict[str, Any]:
    """Return the claims of a JWT, without verification; `{}` for a string that is not a JWT."""
    import jwt  # imported late, because few clients need this module

    try:
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except (jwt.InvalidTokenError, UnicodeError, RecursionError):
        return {}
    return claims


def time_claim(claims: dict[str, Any], name: str) -> float | None:
    """Return a time claim in seconds since 1970, or `None` if the claim is not a finite number."""
    value = claims.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def expires_in(token: str) -> float | None:
    """Return the seconds until a JWT expires by the local clock; `None` if `token` has no expiry time."""
    expiry = time_claim(unverified_claims(token), "exp")
    return None if expiry is None else expiry - time.time()


def answer(client: RealtimeClient | PresenceClient, provided: Any, *, now: float) -> None:
    """Pass the result of a token provider to the core."""
    if inspect.iscoroutine(provided):
        provided.close()
    if provided is not None and not isinstance(provided, str):
        kind = type(provided).__name__
        client.access_token_failed(
            f"the token provider returned an object of type {kind}, not a string", now=now
        )
        return
    try:
        client.set_access_token(
            provided, expires_in=None if provided is None else expires_in(provided), now=now
        )
    except LocalProtocolError as exc:
        client.access_token_failed(f"the token provider returned an invalid token: {exc}", now=now)


def refuse(client: RealtimeClient | PresenceClient, error: Exception, *, now: float) -> None:
    """Report to the core that a token provider has failed.

    The text of an application's exception may contain a secret, so only the type and the line are reported.
    """
    words = str(error) if isinstance(error, PresenceError) else _where(error)
    logger.warning("the token provider failed: %s", words)
    client.access_token_failed(f"the token provider failed: {words}", now=now)


def too_late(seconds: float) -> PresenceError:
    """Return the exception to report for an `async` provider that was cancelled after `seconds`."""
    return PresenceError(f"it took longer than {seconds:g} s")


def ask(provider: Callable[[], Any]) -> Any:
    """Call a plain provider in this thread, and return the result. Raises only subclasses of `Exception`."""
    try:
        return provider()
    except Exception:
        raise
    except BaseException as exc:
        # SystemExit and similar exceptions must end only this call, not the program.
        raise PresenceError(_where(exc)) from None


def _where(error: BaseException) -> str:
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    return f"{type(error).__name__} in {PurePath(frame.f_code.co_filename).name}, line {line}"
