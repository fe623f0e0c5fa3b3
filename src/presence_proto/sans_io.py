"""What a core answers when it is used like an adapter's client, which has the same name."""

from __future__ import annotations

from typing import ClassVar, NoReturn


class SansIO:
    """Mixin of the cores: `with`, `async with`, `for` and `async for` name the adapters in their `TypeError`.

    Python's own text, "does not support the context manager protocol", names no way out.
    """

    __slots__ = ()

    _adapters: ClassVar[str] = (
        "import it from presence_adapters.asyncio (or .trio, .blocking, .stepped), which run it on a socket"
    )


def _refuse(core: SansIO, *args: object) -> NoReturn:
    raise TypeError(f"presence_proto.{type(core).__name__} does no I/O: {core._adapters}")


# Not in the class: type checkers find the mistake by themselves as long as they see no such methods.
for _name in ("__enter__", "__exit__", "__aenter__", "__aexit__", "__iter__", "__aiter__"):
    setattr(SansIO, _name, _refuse)
