"""Functions that read the settings file, and secrets from files and commands."""

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

from presence_adapters.settings.keys import (
    BLANK,
    KEYS,
    PAIRS,
    Origin,
    SourcedValue,
    nearest,
    shown,
    unknown_key,
    without_long_quotes,
)
from presence_adapters.tls_and_proxies import os_error_words
from presence_proto import ConfigError
from presence_proto.secrets import hide

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import stat_result
    from pathlib import Path

    from presence_adapters.settings.keys import Command


# ---------------------------------------------------------------------------------------------- private files
# Functions that read small files that people write: settings and secrets.


MAX_SIZE = 1024 * 1024  # bytes; a larger file cannot be a settings or secret file


class FileTooLargeError(OSError):
    """The file is larger than `MAX_SIZE`."""


class NotAFileError(OSError):
    """The path is not a regular file. Reading from the path could block forever."""


def read_private(path: Path, *, pipes: bool = False) -> tuple[bytes, os.stat_result]:
    """Return the content of a file, and the `stat` result with the permissions. Raises `OSError`.

    With `pipes=True`, the path may also be a pipe, such as the shell's `<(command)`.
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
    # With O_NONBLOCK, opening a FIFO does not wait until another process opens it for writing.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def why_unreadable(error: OSError) -> str:
    """Return the reason why a file is unreadable, without the path."""
    return str(error) if isinstance(error, (FileTooLargeError, NotAFileError)) else os_error_words(error)


def readable_by_others(status: os.stat_result) -> bool:
    """Whether the group or all users may read a file. Always false outside POSIX."""
    return os.name == "posix" and bool(status.st_mode & (stat.S_IRGRP | stat.S_IROTH))


def writable_by_others(status: os.stat_result) -> bool:
    """Whether the group or all users may write to a file. Always false outside POSIX."""
    return os.name == "posix" and bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def changeable_by_others(status: os.stat_result) -> bool:
    """Whether users other than root and this process's user may change a file. Always false outside POSIX."""
    return writable_by_others(status) or (os.name == "posix" and status.st_uid not in (0, os.geteuid()))


# ------------------------------------------------------------------------------------------------- toml lines
# The line numbers of the keys of a TOML document, which the standard parser does not report.
#
# A document is a sequence of statements: table headers, and keys with values. A long string or a list may
# span several lines. A statement is complete as soon as `tomllib` accepts the statement alone. Therefore,
# this code need not know the quoting rules of TOML.


KeyPath: TypeAlias = tuple[str, ...]

# A statement of several lines ends with one of these strings. After other lines, do not try to parse.
_ENDS = ('"""', "'''", "]", "}")


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the line number, from 1, of each key of a valid document, by path: `("presence", "enabled")`.

    The line of a key is the first line of the first statement that names the key in a header, a dotted key or
    an inline table.
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
                continue  # the statement is not complete yet
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
# The settings file is a TOML document. The table `[presence]` has the settings. Other tables belong to
# other programs.
#
# All problems of the file are reported at once, each with file and line.


TABLE = "presence"
COMMAND = "access_token_command"


@define
class ConfigFile:
    """The content of a settings file. `problems` and `warnings` are lines for people, in file order."""

    path: Path
    entries: dict[str, SourcedValue] = field(default=Factory(dict), repr=False)
    problems: list[str] = Factory(list)
    warnings: list[str] = Factory(list)


def read_config_file(path: Path) -> ConfigFile:
    """Read a settings file. Raises only `FileNotFoundError`; all other faults are listed in `problems`."""
    found = ConfigFile(path)
    try:
        content, status = read_private(path, pipes=True)
    except (FileNotFoundError, NotADirectoryError):  # e.g. a service whose home is /dev/null
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
        return content.decode("utf-8-sig")  # some editors write a byte order mark
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        found.problems.append(f"{found.path}:{line}: not UTF-8 text")
        return None


_WHERE = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")


def _parsed(text: str, found: ConfigFile) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        where = _WHERE.search(str(exc))  # Python 3.11 reports the position only in the message
        if where is None:
            found.problems.append(f"{found.path}: not valid TOML")
        elif where["line"] is None:
            found.problems.append(
                f"{found.path}:{text.count(chr(10)) + 1}: not valid TOML: the last entry is incomplete"
            )
        else:
            line, column = int(where["line"]), int(where["column"])
            is_bare = text.split("\n")[line - 1][column - 1 : column].isalpha()
            hint = ": a string needs quotation marks" if is_bare else ""
            found.problems.append(f"{found.path}:{line}: not valid TOML at column {column}{hint}")
    except (ValueError, RecursionError):  # an integer of thousands of digits, or very deeply nested lists
        found.problems.append(
            f"{found.path}: not valid TOML: a number is too long, or lists are nested too deeply"
        )
    return None


def _take(document: dict[str, Any], lines: dict[tuple[str, ...], int], found: ConfigFile) -> None:
    """Add the document's entries and problems to `found`."""
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
                    found.entries[name] = SourcedValue(checked, Origin("file", str(found.path), line))
            problems += faults
    found.problems += [f"{found.path}:{line}: {fault}" for line, fault in sorted(problems)]


def _wrong_items(name: str, value: Any, lines: dict[tuple[str, ...], int]) -> list[tuple[int, str]]:
    """Return the faults, with line numbers, of a table whose values must be strings."""
    if name not in KEYS or KEYS[name].kind is not PAIRS or not isinstance(value, dict):
        return []
    return [
        (lines[TABLE, name, item], without_long_quotes(f'{name}: "{item}" must be a string, not {kind}'))
        for item, text in value.items()
        for kind in [shown(text, secret=True)]
        if not isinstance(text, str)
    ]


def _misplaced(document: dict[str, Any], lines: dict[tuple[str, ...], int]) -> list[tuple[int, str]]:
    """Find a misspelled table name, and settings outside a table, if no table `[presence]` exists."""
    problems = []
    for name, value in document.items():
        line = lines.get((name,), 1)
        if isinstance(value, dict) and nearest(name, [TABLE]):
            problems.append((line, f"unknown table [{name}], did you mean [presence]?"))
        elif name in KEYS:
            problems.append((line, f"{name} must be in the table [presence]"))
    return problems


def _warn(status: stat_result, found: ConfigFile) -> None:
    secrets = [name for name, entry in found.entries.items() if _is_secret(name, entry.value)]
    if secrets and readable_by_others(status):
        found.warnings.append(
            f"{found.path}: other users can read it, and it holds {' and '.join(secrets)}: chmod 600 it"
        )
    if COMMAND in found.entries and changeable_by_others(status):
        # OpenSSH also rejects files that other users can change, because these users could run any command.
        found.problems.append(
            f"{found.path}: other users can change it, and with it the program that {COMMAND} runs: "
            "chmod 600 it, and make yourself its owner"
        )
    elif writable_by_others(status):
        found.warnings.append(f"{found.path}: other users can write to it: chmod 600 it")


def _is_secret(name: str, value: Any) -> bool:
    return (KEYS[name].secret and bool(value)) or (name == "server_url" and "?" in value)


# --------------------------------------------------------------------------------------------- secret sources


LONGEST_SAYING = 300
"""Maximum number of characters of a failed command's stderr that an error quotes."""


def read_secret(path: Path) -> tuple[str, list[str]]:
    """Return the secret in a file, and warnings. Raises `ConfigError` if the secret is not one word."""
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
    """Run a command without a shell and without input, and return the printed secret.

    Raises `ConfigError` when the command fails or takes longer than `timeout` seconds. The message quotes the
    stderr of a failed command, without `secrets` and without text that looks like a secret.
    """
    name = os.path.basename(command.split()[0] if isinstance(command, str) else command[0])
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # allows `_end` to kill the command's child processes, too
        )
    except (OSError, ValueError) as exc:
        fault = why_unreadable(exc) if isinstance(exc, OSError) else "it is not a command"
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
        raise ConfigError(f"{name} ended {how}" + (f": {words}" if words else " and printed no error"))
    return _one_word(printed, name)


_SECRET_NAME = r"(?:token|key|secret|pass(?:word|wd|phrase)?|jwt|authorization|cookie|bearer|basic)"
# Matches a value that is assigned to the name of a secret.
_ASSIGNED = re.compile(rf"(?i)({_SECRET_NAME}\w*[\"']?\s*[:=]\s*[\"']?)(?:(?:bearer|basic)\s+)?[^\s\"']+")
# Matches a string with a digit after the name of a secret. A string without a digit is probably a word.
_NAMED = re.compile(rf"(?i)({_SECRET_NAME}\s+[\"']?)(?=[^\s\"']*\d)[^\s\"']+")
# Matches a long string with a digit, which is probably not text that a person wrote.
_LOOKS_SECRET = re.compile(r"(?=[\w+=~-]*\d)[\w+=~-]{16,}(?:\.[\w+=~-]+)*")


def redacted(text: str, secrets: tuple[str, ...]) -> str:
    """Return a program's output as one line, without `secrets` and without text that looks like a secret.

    If the line has more than `LONGEST_SAYING` characters, only the end is returned.
    """
    text = hide(text, secrets)
    text = _LOOKS_SECRET.sub("…", _NAMED.sub(r"\1…", _ASSIGNED.sub(r"\1…", text)))
    text = " ".join("".join(mark if mark.isprintable() else " " for mark in text).split())
    return text if len(text) <= LONGEST_SAYING else f"…{text[-LONGEST_SAYING:]}"


def _end(process: subprocess.Popen[bytes]) -> None:
    # Also kill the child processes, which may keep the pipes open.
    if os.name == "posix":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _one_word(content: bytes, where: str) -> str:
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ConfigError(f"the secret from {where} is not UTF-8 text") from None
    if not text:
        raise ConfigError(f"the secret from {where} is empty")
    if len(text.split()) > 1 or not text.isprintable():
        raise ConfigError(f"the secret from {where} must be one word, and nothing else")
    return text
