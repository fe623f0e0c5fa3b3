"""Secrets that do not stand in the settings themselves: in a file, or printed by a command."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from presence_adapters.private_files import read_private, readable_by_others, why_unreadable
from presence_proto import ConfigError
from presence_proto.secrets import hide

if TYPE_CHECKING:
    from pathlib import Path

    from presence_adapters.setting_kinds import Command

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
