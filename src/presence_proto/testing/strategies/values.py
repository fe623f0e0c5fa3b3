"""Strategies for JSON values, texts, byte chunks and clocks. `Program` defines the repr of examples."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from attrs import NOTHING, Attribute, fields
from hypothesis import strategies as st

if TYPE_CHECKING:
    from hypothesis.vendor.pretty import RepresentationPrinter


# ---------------------------------------------------------------------------------------------------- program
# The repr of an example is a short call that creates the example and can be pasted into a test.


_LONG = 40  # bytes or characters; longer data is shown as a repetition if it repeats a unit
_UNITS = (1, 2, 3)  # bytes or characters in a repeated unit, such as one UTF-8 character of up to 3 bytes


class Program:
    """Mixin that gives attrs classes a short repr.

    The repr omits default values, and shows long data as a repetition. Fields without a default are
    positional, other fields are named. Hypothesis prints each `Program` in a tuple on its own line.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        parts = [f"{name}{brief(value)}" for name, value in self._shown()]
        return f"{type(self).__name__}({', '.join(parts)})"

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:
        # Hypothesis prints examples with this hook of IPython.
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
        """The prefix (`"name="` or empty) and the value of each field to show."""
        # The type checker does not know that every subclass is an attrs class.
        every: tuple[Attribute[Any], ...] = fields(type(self))  # type: ignore[arg-type]
        return [
            ("" if field.default is NOTHING else f"{field.name}=", value)
            for field in every
            if field.init and (value := getattr(self, field.name)) != field.default
        ]


def brief(value: object) -> str:
    """Return the repr of `value`. Long repetitive data becomes an expression such as `b'a' * 65536`."""
    if isinstance(value, str | bytes) and len(value) > _LONG:
        for size in _UNITS:
            unit, times = value[:size], len(value) // size
            rest = value[times * size :]
            # Both operands have the same type; the type checker does not see it.
            if unit * times + rest == value:  # type: ignore[operator]
                return f"{unit!r} * {times}" + (f" + {rest!r}" if rest else "")
    return repr(value)


# ----------------------------------------------------------------------------------------------------- values


Role: TypeAlias = Literal["client", "server"]
"""The side of a connection that sends the data."""

Vsn: TypeAlias = Literal["1.0.0", "2.0.0"]


def texts(*, min_size: int = 0, max_size: int = 20) -> st.SearchStrategy[str]:
    """Any Unicode text without lone surrogates, which UTF-8 cannot encode."""
    return st.text(st.characters(codec="utf-8"), min_size=min_size, max_size=max_size)


def json_values(
    *, keys: st.SearchStrategy[str] | None = None, max_leaves: int = 10
) -> st.SearchStrategy[Any]:
    """Arbitrary JSON values with finite numbers, integers of any size and text without lone surrogates.

    `keys` generates the keys of objects, and defaults to `texts()`.
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
# Random splits of a byte stream into chunks, as a network may deliver the stream.


_SHORT = 200  # bytes; longer data is never split into single bytes


@st.composite
def chunkings(draw: st.DrawFn, data: bytes, *, max_chunks: int = 8, empty: bool = False) -> list[bytes]:
    """Split `data` into at most `max_chunks` chunks. Data of up to 200 bytes may be split into single bytes.

    Splits shrink to one chunk. With `empty=False`, no chunk is empty, and empty data yields no chunks.
    """
    if not data and not empty:
        return []
    first, last = (0, len(data)) if empty else (1, max(1, len(data) - 1))
    most = max_chunks if empty else min(max_chunks, len(data))
    cuts = draw(st.lists(st.integers(first, last), max_size=most - 1, unique=not empty))
    # Draw only after a cut was drawn: shrinking should reduce the number of chunks first.
    if cuts and len(data) <= _SHORT and draw(_ONE_BY_ONE):
        cuts = list(range(1, len(data)))
    return [data[start:end] for start, end in pairwise([0, *sorted(cuts), len(data)])]


_ONE_BY_ONE = st.sampled_from([False, False, True])


# ----------------------------------------------------------------------------------------------------- clocks
# Times of a monotonic clock, and of a clock that goes backwards.


# Seconds: no time, ticks, pauses, a suspended host; and steps backwards.
_FORWARD = st.sampled_from([0.0, 1.0, 0.001, 0.5, 5.0, 10.0, 30.0, 31.0, 60.0, 61.0, 3600.0, 86_400.0])
_BACKWARD = st.sampled_from([-0.001, -1.0, -30.0, -86_400.0])


def clocks(
    *, start: float = 0.0, min_size: int = 0, max_size: int = 20, backwards: bool = True
) -> st.SearchStrategy[list[float]]:
    """Lists of clock times in seconds, from `start` on, with equal times, small steps, pauses and jumps.

    With `backwards`, a time may be earlier than the previous time. An endpoint then uses the latest time
    so far.
    """
    steps = st.one_of(_FORWARD, _FORWARD, st.floats(0.0, 100.0, width=16))
    return _clocks(
        start, st.lists(steps | _BACKWARD if backwards else steps, min_size=min_size, max_size=max_size)
    )


@st.composite
def _clocks(draw: st.DrawFn, start: float, steps: st.SearchStrategy[list[float]]) -> list[float]:
    return list(accumulate(draw(steps), initial=start))[1:]
