"""What a class answers when it is used in a statement that is another adapter's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

METHODS = {
    "with": ("__enter__", "__exit__"),
    "async with": ("__aenter__", "__aexit__"),
    "for": ("__iter__",),
    "async for": ("__aiter__",),
}


def refuse(cls: type[Any], advice: str, *statements: str) -> None:
    """Have these statements of `METHODS` raise a `TypeError` with `advice` for instances of `cls`.

    Called after the class is made: type checkers find the mistake by themselves as long as they see no such
    methods.
    """

    for statement in statements:
        for name in METHODS[statement]:
            setattr(cls, name, _refusing(statement, advice))


def _refusing(statement: str, advice: str) -> Callable[..., NoReturn]:
    def refuse(self: object, *args: object) -> NoReturn:
        whole = f"{type(self).__module__}.{type(self).__name__}"
        raise TypeError(f"{whole} does not support `{statement}`: {advice}")

    return refuse
