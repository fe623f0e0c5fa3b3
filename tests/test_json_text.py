"""Levels of JSON, counted and cut. What is not JSON is in `test_serializer_refusals.py`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presence_proto.errors import RemoteProtocolError
from presence_proto.json_text import check_elements, cut, decode, decode_object, kind_of, nests_deeper

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(' []{}"\\,:aé\u2028', max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\', max_size=3), inner, max_size=3)
    ),
)


def levels(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(levels, value), default=0) if isinstance(value, list) else 0


def without(value: Any, depth: int) -> Any:
    """The value with `None` in place of what lies deeper than `depth` levels."""
    if isinstance(value, dict):
        return {key: without(item, depth - 1) for key, item in value.items()} if depth else None
    if isinstance(value, list):
        return [without(item, depth - 1) for item in value] if depth else None
    return value


@given(VALUES, st.integers(0, 6), st.booleans())
def test_levels_are_counted_and_cut(value: Any, limit: int, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=1 if ascii_only else None)
    assert nests_deeper(text, limit) == nests_deeper(text.encode(), limit) == (levels(value) > limit)
    assert json.loads(cut(text, limit)) == without(value, limit)
    if levels(value) <= limit:
        assert decode(text, "it", limit) == decode(text.encode(), "it", limit) == value
        assert cut(text, limit) == text


def test_a_text_that_costs_little() -> None:
    """Half a string of a million escaped quotes takes no time that grows with its square."""
    text = '["' + '\\"' * 500_000
    assert not nests_deeper(text, 1)
    assert cut("[" * 101 + text, 100).count("null") == 1


def test_an_unpaired_surrogate_can_be_counted() -> None:
    assert nests_deeper("[[[" + '"\ud800"' + "]]]", 2)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({}, "an object"),
        ([], "an array"),
        ("", "a string"),
        (True, "a boolean"),
        (1, "a number"),
        (1.5, "a number"),
        (None, "null"),
    ],
)
def test_kinds(value: Any, kind: str) -> None:
    assert kind_of(value) == kind
    if value != {}:
        with pytest.raises(RemoteProtocolError, match=f"it is malformed: it must be an object, not {kind}"):
            decode_object(json.dumps(value), "it")


# ---------------------------------------------------------------------------------------------- elements


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("1", 0),
        ("[]", 1),
        ("[1,2,3]", 3),
        ('{"a":[],"b":{}}', 4),
        ('["[[[,,,{{{"]', 1),
        (r'["\\",[],"\"[,[,[,"]', 4),
        ('["","",""]', 3),
        ('{"":"","a":"["}', 2),
        ('["[', 1),
        ("é" * 10 + "[,", 2),
        ("\ud800[", 1),
    ],
)
def test_elements_are_counted_outside_strings(text: str, count: int) -> None:
    forms: list[str | bytes] = [text, text.encode("utf-8", "surrogatepass")]
    for data in forms:
        check_elements(data, "a message", count)
        if count:
            with pytest.raises(RemoteProtocolError, match=f"a message .* more than {count - 1} elements"):
                check_elements(data, "a message", count - 1)


@given(VALUES)
def test_elements_of_any_json(value: Any) -> None:
    def count(value: Any) -> int:
        if isinstance(value, dict):
            return 1 + max(len(value) - 1, 0) + sum(map(count, value.values()))
        if isinstance(value, list):
            return 1 + max(len(value) - 1, 0) + sum(map(count, value))
        return 0

    text, expected = json.dumps(value), count(value)
    check_elements(text, "it", expected)
    if expected:
        with pytest.raises(RemoteProtocolError):
            check_elements(text, "it", expected - 1)
