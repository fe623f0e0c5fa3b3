"""What a monotonic clock says, and what it should not say."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import strategies as st

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
