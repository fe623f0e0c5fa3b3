"""Secrets that do not stand in the settings themselves: in a file, or printed by a command."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import tomllib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import Factory, define, field

from presence_adapters.connecting import os_error_words
from presence_adapters.settings.keys import (
    BLANK,
    KEYS,
    PAIRS,
    Entry,
    Origin,
    nearest,
    shown,
    unknown_key,
    without_long_quotes,
)
from presence_proto import ConfigError
from presence_proto.secrets import hide

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import stat_result
    from pathlib import Path

    from presence_adapters.settings.keys import Command


# ---------------------------------------------------------------------------------------------- private files
# Reading small files that people write: settings and secrets.


MAX_SIZE = 1024 * 1024
"""Bytes. What is larger is no such file."""


class FileTooLargeError(OSError):
    """The file cannot be one of ours."""


class NotAFileError(OSError):
    """The path is something else than a file, and reading it could wait for ever."""


def read_private(path: Path, *, pipes: bool = False) -> tuple[bytes, os.stat_result]:
    """What is in a file, and who may do what with it. Raises `OSError`.

    With `pipes` it may be a pipe, too, as the shell's `<(command)` is one.
    """
    with open(path, "rb", opener=_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            if not pipes:
                raise NotAFileError("it is not a regular file")
            if os.name == "posix":
                os.set_blocking(file.fileno(), True)
        content = file.read(MAX_SIZE + 1)
    if len(content) > MAX_SIZE:
        raise FileTooLargeError(f"it is larger than {MAX_SIZE} bytes")
    return content, status


def _at_once(path: str, flags: int) -> int:
    """Open a FIFO without waiting for somebody to write to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def why_unreadable(error: OSError) -> str:
    """The fault, without the path."""
    return str(error) if isinstance(error, (FileTooLargeError, NotAFileError)) else os_error_words(error)


def readable_by_others(status: os.stat_result) -> bool:
    """Whether the group or everybody may read a file, where there are such permissions."""
    return os.name == "posix" and bool(status.st_mode & (stat.S_IRGRP | stat.S_IROTH))


def writable_by_others(status: os.stat_result) -> bool:
    """Whether the group or everybody may write to a file, where there are such permissions."""
    return os.name == "posix" and bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def changeable_by_others(status: os.stat_result) -> bool:
    """Whether somebody else than we and root may change a file, where there are such permissions."""
    return writable_by_others(status) or (os.name == "posix" and status.st_uid not in (0, os.geteuid()))


# ------------------------------------------------------------------------------------------------- toml lines
# The lines on which the keys of a TOML document stand. The standard parser does not tell.
#
# A document is a row of statements: a table's header, or a key and its value, each on one line or, with a
# long string or a list, on several. A statement is complete as soon as the standard parser takes it by
# itself: so it is asked, and nothing of TOML's quoting has to be known here.


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


# ------------------------------------------------------------------------------------------------ config file
# The settings in a file: the table `[presence]` of a TOML document, whose other tables are other programs'.
#
# All that is wrong with it is found at once, each problem with its file and line.


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


# --------------------------------------------------------------------------------------------- secret sources


LONGEST_SAYING = 300
"""Characters of what a failed command said."""


def read_secret(path: Path) -> tuple[str, list[str]]:
    """The secret that is a file's only text, and warnings. Raises `ConfigError`."""
    try:
        content, status = read_private(path, pipes=True)
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {why_unreadable(exc)}") from None
    secret = _one_word(content, str(path))
    warnings = (
        [f"{path}: other users can read this secret: chmod 600 it"] if readable_by_others(status) else []
    )
    return secret, warnings


def run_for_secret(command: Command, timeout: float, secrets: tuple[str, ...] = ()) -> str:
    """The secret that a command prints. It runs without a shell and without input, for `timeout` seconds.

    Raises `ConfigError` when it does not work. It says what the command said on stderr, without `secrets`
    and without anything that looks like one.
    """
    name = os.path.basename(command.split()[0] if isinstance(command, str) else command[0])
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # so that all that it starts can be ended, too
        )
    except (OSError, ValueError) as exc:
        fault = why_unreadable(exc) if isinstance(exc, OSError) else "it is no command"
        raise ConfigError(f"cannot run {name}: {fault}") from None
    with process:
        try:
            printed, said = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            raise ConfigError(f"{name} took longer than {timeout:g} seconds") from None
        except BaseException:
            _end(process)
            raise
    if process.returncode != 0:
        also = printed.decode("utf-8", "replace").split()
        words = redacted(said.decode("utf-8", "replace"), (*secrets, *also))
        how = f"with exit status {process.returncode}"
        if process.returncode < 0:
            how = f"by signal {-process.returncode}"
        raise ConfigError(f"{name} ended {how}" + (f": {words}" if words else ", and said nothing"))
    return _one_word(printed, name)


_SECRET_NAME = r"(?:token|key|secret|pass(?:word|wd|phrase)?|jwt|authorization|cookie|bearer|basic)"
# What is assigned to something that is called like a secret.
_ASSIGNED = re.compile(rf"(?i)({_SECRET_NAME}\w*[\"']?\s*[:=]\s*[\"']?)(?:(?:bearer|basic)\s+)?[^\s\"']+")
# What follows such a name, and is no word.
_NAMED = re.compile(rf"(?i)({_SECRET_NAME}\s+[\"']?)(?=[^\s\"']*\d)[^\s\"']+")
# What no person would write: long, and with digits in it.
_LOOKS_SECRET = re.compile(r"(?=[\w+=~-]*\d)[\w+=~-]{16,}(?:\.[\w+=~-]+)*")


def redacted(text: str, secrets: tuple[str, ...]) -> str:
    """What a program said, on one line, without `secrets` and what looks like one."""
    text = hide(text, secrets)
    text = _LOOKS_SECRET.sub("…", _NAMED.sub(r"\1…", _ASSIGNED.sub(r"\1…", text)))
    text = " ".join("".join(mark if mark.isprintable() else " " for mark in text).split())
    return text if len(text) <= LONGEST_SAYING else f"…{text[-LONGEST_SAYING:]}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it, and what it has started: that may hold on to the pipes."""
    if os.name == "posix":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _one_word(content: bytes, where: str) -> str:
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ConfigError(f"what {where} gives is not UTF-8 text") from None
    if not text:
        raise ConfigError(f"{where} gives nothing")
    if len(text.split()) > 1 or not text.isprintable():
        raise ConfigError(f"{where} gives more than one word: it must be the secret alone")
    return text
