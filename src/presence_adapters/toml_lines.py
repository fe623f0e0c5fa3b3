"""The lines on which the keys of a TOML document stand. The standard parser does not tell.

A document is a row of statements: a table's header, or a key and its value, each on one line or, with a long
string or a list, on several. A statement is complete as soon as the standard parser takes it by itself: so it
is asked, and nothing of TOML's quoting has to be known here.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

KeyPath: TypeAlias = tuple[str, ...]

# What goes on over several lines ends on a line with one of these. The others need not be tried.
_ENDS = ('"""', "'''", "]", "}")


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line, from 1, of each key of a valid document, by its path: `("presence", "enabled")`.

    It is where the statement starts that first names the key: as a header, dotted, or in an inline table.
    """
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, statement, parsed in _statements(text):
        if statement.lstrip().startswith("["):
            table = _header(parsed)
            paths = [table[: depth + 1] for depth in range(len(table))]
        else:
            paths = list(_paths(parsed, table))
        for path in paths:
            lines.setdefault(path, number)
    return lines


def _statements(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    lines = text.replace("\r\n", "\n").split("\n")
    start = 0
    for end, line in enumerate(lines):
        if start == end or any(mark in line for mark in _ENDS):
            statement = "\n".join(lines[start : end + 1])
            try:
                parsed = tomllib.loads(statement)
            except ValueError:
                continue  # it goes on
            yield start + 1, statement, parsed
            start = end + 1


def _header(parsed: dict[str, Any]) -> KeyPath:
    path: KeyPath = ()
    node: Any = parsed
    while node:
        ((name, node),) = node.items()
        path = (*path, name)
        if isinstance(node, list):  # [[name]]
            (node,) = node
    return path


def _paths(node: Any, path: KeyPath) -> Iterator[KeyPath]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield (*path, name)
            yield from _paths(value, (*path, name))
