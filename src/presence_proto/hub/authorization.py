"""The argument and the result of a hub's `authorize` rule: `JoinRequest` and `Allow`."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import field, frozen

from presence_proto.errors import ConfigError
from presence_proto.validators import is_unicode

if TYPE_CHECKING:
    from attrs import Attribute


def _key(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and (not value or not is_unicode(value)):
        raise ConfigError(f"{attribute.name} must be a non-empty Unicode string or None, not {value!r}")


@frozen
class JoinRequest:
    """A client's request to join `topic`.

    `token` is the client's access token, or `None`. `key` is the requested presence key, or `None`:
    `config.presence.key` in a Supabase join, the key from `presence_rule` for a plain Phoenix topic, and the
    user id in a Jarvis `connect`.
    """

    topic: str
    token: str | None = field(default=None, repr=False)
    key: str | None = None


@frozen
class Allow:
    """The result that accepts a join. `key` replaces the presence key that the client requested.

    Raises `ConfigError` for a `key` that is neither `None` nor a non-empty Unicode string.
    """

    key: str | None = field(default=None, validator=_key)


AuthorizeRule: TypeAlias = Callable[[JoinRequest], "Allow | str | None"]
"""A function that decides about a join: `None` or `Allow()` accepts; a string is the reason of a refusal."""

TopicAndTokenRule: TypeAlias = Callable[[str, "str | None"], "Allow | str | None"]
"""The older form of an `authorize` rule: a function of the topic and the token, without the key."""


@frozen
class _TopicAndToken:
    """An adapter that calls a rule of the older form with topic and token."""

    rule: TopicAndTokenRule

    def __call__(self, request: JoinRequest) -> Allow | str | None:
        return self.rule(request.topic, request.token)


def authorize_rule(rule: AuthorizeRule | TopicAndTokenRule | None) -> AuthorizeRule | None:
    """Return `rule` as a function of one argument. A rule of two arguments receives the topic and the token.

    Raises `ConfigError` if `rule` cannot be called with one or two arguments.
    """
    if rule is None:
        return None
    try:
        parameters = signature(rule)
    except (TypeError, ValueError):  # not callable, or a built-in function without a signature
        parameters = Signature()
    named = [one for one in parameters.parameters.values() if one.kind in _POSITIONAL]
    if len(named) > 1 and _takes(parameters, 2):
        return _TopicAndToken(rule)  # type: ignore[arg-type]
    if _takes(parameters, 1):
        return rule  # type: ignore[return-value]
    raise ConfigError(
        "authorize must be a function of one argument (a JoinRequest) or of two arguments "
        f"(the topic and the token), not {rule!r}"
    )


_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def _takes(parameters: Signature, count: int) -> bool:
    try:
        parameters.bind(*[None] * count)
    except TypeError:
        return False
    return True
