"""How bytes are cut on their way."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st

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
