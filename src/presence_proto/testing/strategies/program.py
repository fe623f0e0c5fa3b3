"""How examples are printed: as the call that makes them, short, so that it can be pasted into a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import NOTHING, Attribute, fields

if TYPE_CHECKING:
    from hypothesis.vendor.pretty import RepresentationPrinter

_LONG = 40
_UNITS = (1, 2, 3)  # how many bytes or characters repeat themselves: a character of UTF-8 is one of these


class Program:
    """Mixin of attrs classes: the repr has no field that was left out, and long data as what it repeats.

    The fields without a default are given by position, the others by name. Hypothesis prints each item of a
    tuple on a line of its own.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        parts = [f"{name}{brief(value)}" for name, value in self._shown()]
        return f"{type(self).__name__}({', '.join(parts)})"

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:
        # The protocol of IPython, which Hypothesis follows, too.
        printer.text(f"{type(self).__name__}(")
        for number, (name, value) in enumerate(self._shown()):
            printer.text(", " * (number > 0) + name)
            if isinstance(value, tuple) and value and isinstance(value[0], Program):
                printer.text("(")
                with printer.indent(4):
                    for item in value:
                        printer.break_()
                        printer.text(f"{item!r},")
                printer.break_()
                printer.text(")")
            else:
                printer.text(brief(value))
        printer.text(")")

    def _shown(self) -> list[tuple[str, Any]]:
        """What stands before the value of each field, and the value."""
        # attrs does not know that every subclass is one of its classes.
        every: tuple[Attribute[Any], ...] = fields(type(self))  # type: ignore[arg-type]
        return [
            ("" if field.default is NOTHING else f"{field.name}=", value)
            for field in every
            if field.init and (value := getattr(self, field.name)) != field.default
        ]


def brief(value: object) -> str:
    """The repr, or for long data that repeats itself, an expression: `b'a' * 65536`."""
    if isinstance(value, str | bytes) and len(value) > _LONG:
        for size in _UNITS:
            unit, times = value[:size], len(value) // size
            rest = value[times * size :]
            # Both are of one type, which the checker does not see.
            if unit * times + rest == value:  # type: ignore[operator]
                return f"{unit!r} * {times}" + (f" + {rest!r}" if rest else "")
    return repr(value)
