"""The line of every key, in every form that TOML has for it."""

from __future__ import annotations

import time
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presence_adapters.settings.files import KeyPath, key_lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", {}),
        ("# nothing\n\n", {}),
        ("a = 1\nb = 2", {("a",): 1, ("b",): 2}),
        ("\n# c\n[t]\n\na = 1", {("t",): 3, ("t", "a"): 5}),
        ("t.a = 1\nt.b = 2", {("t",): 1, ("t", "a"): 1, ("t", "b"): 2}),
        ("x = 1\nt = { a = 1, b = { c = 2 } }", {("x",): 1, ("t",): 2, ("t", "a"): 2, ("t", "b", "c"): 2}),
        ("[t.u]\na = 1\n[t]\nb = 2", {("t",): 1, ("t", "u"): 1, ("t", "u", "a"): 2, ("t", "b"): 4}),
        ('["t"]\n\'a b\' = 1\n"c\\u0064" = 2', {("t",): 1, ("t", "a b"): 2, ("t", "cd"): 3}),
        ("[ t . u ] # [x]\na=1", {("t",): 1, ("t", "u"): 1, ("t", "u", "a"): 2}),
        ('a = """\nb = 1\n[c]\n"""\nd = 2', {("a",): 1, ("d",): 5}),
        ("a = '''\n\"\"\"\nb = 1\n'''\nd = 2", {("a",): 1, ("d",): 5}),
        ('a = [\n  "x", # ]\n  [\n  "]" ],\n]\nb = 1', {("a",): 1, ("b",): 6}),
        ("[[t]]\na = 1\n[[t]]\na = 2", {("t",): 1, ("t", "a"): 2}),
        ("a = 1\r\n[t]\r\nb = 2\r\n", {("a",): 1, ("t",): 2, ("t", "b"): 3}),
        ('a = "[t]" # b = 1\nb = 2', {("a",): 1, ("b",): 2}),
    ],
)
def test_lines(text: str, lines: dict[KeyPath, int]) -> None:
    tomllib.loads(text)
    found = key_lines(text)
    assert {path: found.get(path) for path in lines} == lines
    assert {path[0] for path in found} == set(tomllib.loads(text))


VALUES = [
    "1",
    '"x"',
    '"""\n\n[z]\nz = 1\n"""',
    "'''\nz = [\n'''",
    "[\n1, # ]\n[ 2,\n ] ]",
    "{ i = 1 }",
    "true",
]
PARTS = st.lists(
    st.one_of(
        st.sampled_from(["", "# x = 1", "   # [t]"]),
        st.tuples(st.sampled_from(["{}", "  {}", '"{}"', "'{}'"]), st.sampled_from(VALUES)),
        st.just("header"),
    ),
    max_size=12,
)


@given(PARTS, st.sampled_from(["\n", "\r\n"]))
def test_documents_that_we_have_put_together(parts: list[Any], newline: str) -> None:
    text, expected, table = "", {}, ()
    for number, part in enumerate(parts):
        line = text.count("\n") + 1
        if part == "header":
            table = (f"t{number}",)
            text += f"[{table[0]}]\n"
            expected[table] = line
        elif isinstance(part, tuple):
            form, value = part
            text += f"{form.format(f'k{number}')} = {value}\n"
            expected[*table, f"k{number}"] = line
        else:
            text += f"{part}\n"
    found = key_lines(text.replace("\n", newline))
    assert {path: line for path, line in found.items() if path[-1] != "i"} == expected


def test_a_long_string_takes_no_time() -> None:
    text = 'a = """' + "\n" * 100_000 + '"""\nb = 1'
    start = time.perf_counter()
    assert key_lines(text) == {("a",): 1, ("b",): 100_002}
    assert time.perf_counter() - start < 5
