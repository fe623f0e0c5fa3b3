"""What a hub asks its user about a join, and the answers: `JoinRequest` and `Allow`."""

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
    """A client wants to join `topic`.

    `token`: its access token, or `None`. `key`: the presence key that it asks for, or `None`. For a Supabase
    channel that is `config.presence.key` of the join, for a plain Phoenix topic the key that `presence_rule`
    gives, for a `connect` of the Jarvis JSON protocol the user id.
    """

    topic: str
    token: str | None = field(default=None, repr=False)
    key: str | None = None


@frozen
class Allow:
    """The client may join. With a `key` its presence has this key, whatever it asked for.

    Raises `ConfigError` for a `key` that is not a non-empty Unicode string.
    """

    key: str | None = field(default=None, validator=_key)


AuthorizeRule: TypeAlias = Callable[[JoinRequest], "Allow | str | None"]
"""Answers a join: `None` or `Allow()` lets the client in, a string is the reason of the refusal."""

TopicAndTokenRule: TypeAlias = Callable[[str, "str | None"], "Allow | str | None"]
"""The older form of a rule. It is not told the key."""


@frozen
class _TopicAndToken:
    """An older rule, asked as it expects it."""

    rule: TopicAndTokenRule

    def __call__(self, request: JoinRequest) -> Allow | str | None:
        return self.rule(request.topic, request.token)


def authorize_rule(rule: AuthorizeRule | TopicAndTokenRule | None) -> AuthorizeRule | None:
    """`rule` in the form that the hub calls: a rule of two arguments gets the topic and the token.

    Raises `ConfigError` for what cannot be called with one argument or with two.
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
        "authorize must be a function of one argument, a JoinRequest (topic, token, key), or of two, "
        f"the topic and the token, not {rule!r}"
    )


_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def _takes(parameters: Signature, count: int) -> bool:
    try:
        parameters.bind(*[None] * count)
    except TypeError:
        return False
    return True
