"""Values that every wire form carries."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from hypothesis import strategies as st

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
