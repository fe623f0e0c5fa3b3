"""Values that every wire form carries."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from attrs import NOTHING, Attribute, fields
from hypothesis import strategies as st

if TYPE_CHECKING:
    from hypothesis.vendor.pretty import RepresentationPrinter


# ---------------------------------------------------------------------------------------------------- program
# How examples are printed: as the call that makes them, short, so that it can be pasted into a test.


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


# ----------------------------------------------------------------------------------------------------- values


Role: TypeAlias = Literal["client", "server"]
"""Who speaks."""

Vsn: TypeAlias = Literal["1.0.0", "2.0.0"]


def texts(*, min_size: int = 0, max_size: int = 20) -> st.SearchStrategy[str]:
    """Any Unicode but lone surrogates, which UTF-8 does not have."""
    return st.text(st.characters(codec="utf-8"), min_size=min_size, max_size=max_size)


def json_values(
    *, keys: st.SearchStrategy[str] | None = None, max_leaves: int = 10
) -> st.SearchStrategy[Any]:
    """Any JSON: finite numbers, whole ones of any size, text without lone surrogates.

    `keys` are those of objects, any `texts` if not given.
    """
    scalars = (
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts()
    )
    keys = texts() if keys is None else keys
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=max_leaves,
    )


# ----------------------------------------------------------------------------------------------------- chunks
# How bytes are cut on their way.


_SHORT = 200


@st.composite
def chunkings(draw: st.DrawFn, data: bytes, *, max_chunks: int = 8, empty: bool = False) -> list[bytes]:
    """`data` in at most `max_chunks` chunks, or, up to 200 bytes of it, one by one. It shrinks to one chunk.

    `empty`: some chunks may be empty. Without it none is, and of no data there are none.
    """
    if not data and not empty:
        return []
    first, last = (0, len(data)) if empty else (1, max(1, len(data) - 1))
    most = max_chunks if empty else min(max_chunks, len(data))
    cuts = draw(st.lists(st.integers(first, last), max_size=most - 1, unique=not empty))
    # Not before there is a cut: shrinking should lead to few chunks first.
    if cuts and len(data) <= _SHORT and draw(_ONE_BY_ONE):
        cuts = list(range(1, len(data)))
    return [data[start:end] for start, end in pairwise([0, *sorted(cuts), len(data)])]


_ONE_BY_ONE = st.sampled_from([False, False, True])


# ----------------------------------------------------------------------------------------------------- clocks
# What a monotonic clock says, and what it should not say.


# Nothing, ticks, pauses, a night's sleep; and for a moment backwards.
_FORWARD = st.sampled_from([0.0, 1.0, 0.001, 0.5, 5.0, 10.0, 30.0, 31.0, 60.0, 61.0, 3600.0, 86_400.0])
_BACKWARD = st.sampled_from([-0.001, -1.0, -30.0, -86_400.0])


def clocks(
    *, start: float = 0.0, min_size: int = 0, max_size: int = 20, backwards: bool = True
) -> st.SearchStrategy[list[float]]:
    """Values of `now`, in seconds, from `start` on: equal ones, small steps, pauses, jumps.

    `backwards`: some are less than the one before. An endpoint takes such a one for the one before.
    """
    steps = st.one_of(_FORWARD, _FORWARD, st.floats(0.0, 100.0, width=16))
    return _clocks(
        start, st.lists(steps | _BACKWARD if backwards else steps, min_size=min_size, max_size=max_size)
    )


@st.composite
def _clocks(draw: st.DrawFn, start: float, steps: st.SearchStrategy[list[float]]) -> list[float]:
    return list(accumulate(draw(steps), initial=start))[1:]
