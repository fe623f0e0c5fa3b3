"""The exit statuses of `presence`, and the errors that end it with them."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import click


class Exit(IntEnum):
    """What the exit status says."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DISABLED = 3
    UNREACHABLE = 4
    NO_SUCH_USER = 5
    INTERRUPTED = 130


MEANINGS = {
    Exit.OK: "It worked.",
    Exit.FAILED: "It did not work: the server refused it, or did not confirm it in time.",
    Exit.USAGE: "The command line, a setting or the identity is wrong.",
    Exit.DISABLED: "Presence is switched off: enabled = false in the settings.",
    Exit.UNREACHABLE: "No way into the room in time, or the server did not let us in.",
    Exit.NO_SUCH_USER: "Nobody in the room has this id or name, or several have the name.",
    Exit.INTERRUPTED: "Ended by Ctrl-C before it was done.",
}


def described() -> str:
    """All of them, one a line, for a help text."""
    return "\n".join(f"  {status:<5}{meaning}" for status, meaning in MEANINGS.items())


class Failure(click.ClickException):
    """It did not work. Each line of the message becomes one on stderr."""

    exit_code = Exit.FAILED

    def show(self, file: Any = None) -> None:
        """Print it."""
        for line in self.message.splitlines():
            click.echo(f"Error: {line}", file=file, err=True)


class WrongUsage(Failure):
    """The command line, a setting or the identity is wrong."""

    exit_code = Exit.USAGE


class Disabled(Failure):
    """Presence is switched off."""

    exit_code = Exit.DISABLED


class Unreachable(Failure):
    """There is no way into the room."""

    exit_code = Exit.UNREACHABLE


class NoSuchUser(Failure):
    """Nobody in the room is meant, or several may be."""

    exit_code = Exit.NO_SUCH_USER
