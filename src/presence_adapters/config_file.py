"""The settings in a file: the table `[presence]` of a TOML document, whose other tables are other programs'.

All that is wrong with it is found at once, each problem with its file and line.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

from attrs import Factory, define, field

from presence_adapters.private_files import (
    changeable_by_others,
    read_private,
    readable_by_others,
    why_unreadable,
    writable_by_others,
)
from presence_adapters.setting_keys import (
    BLANK,
    KEYS,
    Entry,
    Origin,
    nearest,
    unknown_key,
)
from presence_adapters.setting_kinds import PAIRS, shown, without_long_quotes
from presence_adapters.toml_lines import key_lines
from presence_proto import ConfigError

if TYPE_CHECKING:
    from os import stat_result
    from pathlib import Path

TABLE = "presence"
COMMAND = "access_token_command"


@define
class ConfigFile:
    """What a file says. `problems` and `warnings` are lines for people, in the order of the file."""

    path: Path
    entries: dict[str, Entry] = field(default=Factory(dict), repr=False)
    problems: list[str] = Factory(list)
    warnings: list[str] = Factory(list)


def read_config_file(path: Path) -> ConfigFile:
    """Read the settings in a file. Raises `FileNotFoundError` only; all else is among the problems."""
    found = ConfigFile(path)
    try:
        content, status = read_private(path, pipes=True)
    except (FileNotFoundError, NotADirectoryError):  # the latter where a service has its home at /dev/null
        raise FileNotFoundError(path) from None
    except OSError as exc:
        found.problems.append(f"{path}: cannot read it: {why_unreadable(exc)}")
        return found
    text = _decoded(content, found)
    document = None if text is None else _parsed(text, found)
    if text is not None and document is not None:
        _take(document, key_lines(text), found)
        _warn(status, found)
    return found


def _decoded(content: bytes, found: ConfigFile) -> str | None:
    try:
        return content.decode("utf-8-sig")  # some editors put a mark in front
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        found.problems.append(f"{found.path}:{line}: not UTF-8 text")
        return None


_WHERE = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")


def _parsed(text: str, found: ConfigFile) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        where = _WHERE.search(str(exc))  # Python 3.11 tells the place in the text alone
        if where is None:
            found.problems.append(f"{found.path}: not TOML")
        elif where["line"] is None:
            found.problems.append(f"{found.path}:{text.count(chr(10)) + 1}: not TOML: something is not ended")
        else:
            line, column = int(where["line"]), int(where["column"])
            is_bare = text.split("\n")[line - 1][column - 1 : column].isalpha()
            hint = ": a string needs quotation marks" if is_bare else ""
            found.problems.append(f"{found.path}:{line}: not TOML in column {column}{hint}")
    except (ValueError, RecursionError):  # an integer of thousands of digits; lists in lists in lists
        found.problems.append(f"{found.path}: not TOML that can be read: something in it is too large")
    return None


def _take(document: dict[str, Any], lines: dict[tuple[str, ...], int], found: ConfigFile) -> None:
    """Sort the document into entries and problems."""
    problems: list[tuple[int, str]] = []
    table = document.get(TABLE)
    if table is None:
        problems += _misplaced(document, lines)
    elif not isinstance(table, dict):
        line = lines.get((TABLE,), 1)
        what = "[[presence]]" if isinstance(table, list) else shown(table)
        problems.append((line, f"presence must be a table, [presence], not {what}"))
    else:
        for name, value in table.items():
            line = lines[TABLE, name]
            faults = _wrong_items(name, value, lines)
            try:
                if name not in KEYS:
                    raise ConfigError(unknown_key(name))
                checked = BLANK if faults else KEYS[name].from_toml(value)
            except ConfigError as exc:
                faults = [(line, str(exc))]
            else:
                if checked is not BLANK:
                    found.entries[name] = Entry(checked, Origin("file", str(found.path), line))
            problems += faults
    found.problems += [f"{found.path}:{line}: {fault}" for line, fault in sorted(problems)]


def _wrong_items(name: str, value: Any, lines: dict[tuple[str, ...], int]) -> list[tuple[int, str]]:
    """What in a table of strings is none, each with its own line."""
    if name not in KEYS or KEYS[name].kind is not PAIRS or not isinstance(value, dict):
        return []
    return [
        (lines[TABLE, name, item], without_long_quotes(f'{name}: "{item}" must be a string, not {kind}'))
        for item, text in value.items()
        for kind in [shown(text, secret=True)]
        if not isinstance(text, str)
    ]


def _misplaced(document: dict[str, Any], lines: dict[tuple[str, ...], int]) -> list[tuple[int, str]]:
    """What was perhaps meant to be the table, or in it, when there is none."""
    problems = []
    for name, value in document.items():
        line = lines.get((name,), 1)
        if isinstance(value, dict) and nearest(name, [TABLE]):
            problems.append((line, f"unknown table [{name}], did you mean [presence]?"))
        elif name in KEYS:
            problems.append((line, f"{name} must stand below a line [presence]"))
    return problems


def _warn(status: stat_result, found: ConfigFile) -> None:
    secrets = [name for name, entry in found.entries.items() if _is_secret(name, entry.value)]
    if secrets and readable_by_others(status):
        found.warnings.append(
            f"{found.path}: other users can read it, and it holds {' and '.join(secrets)}: chmod 600 it"
        )
    if COMMAND in found.entries and changeable_by_others(status):
        # As OpenSSH does with such a file: whoever writes to it could have us run anything.
        found.problems.append(
            f"{found.path}: other users can change it, and it holds {COMMAND}, which would be run: "
            "chmod 600 it, and own it"
        )
    elif writable_by_others(status):
        found.warnings.append(f"{found.path}: other users can write to it: chmod 600 it")


def _is_secret(name: str, value: Any) -> bool:
    return (KEYS[name].secret and bool(value)) or (name == "server_url" and "?" in value)
