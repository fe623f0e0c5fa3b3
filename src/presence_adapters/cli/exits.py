"""Exit statuses of `presence`, and the exceptions that cause each exit status."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import click


class Exit(IntEnum):
    """The exit statuses of the commands. `MEANINGS` has the explanations."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DISABLED = 3
    UNREACHABLE = 4
    NO_SUCH_USER = 5
    INTERRUPTED = 130


MEANINGS = {
    Exit.OK: "Success.",
    Exit.FAILED: "The command failed: the server refused it, or did not confirm it in time.",
    Exit.USAGE: "The command line, a setting or the identity is wrong.",
    Exit.DISABLED: "Presence is switched off: the settings have enabled = false.",
    Exit.UNREACHABLE: "The room could not be joined in time, or the server refused the client.",
    Exit.NO_SUCH_USER: "No user in the room has this id or name, or several users have the name.",
    Exit.INTERRUPTED: "Interrupted by Ctrl-C.",
}


def described() -> str:
    """Return all exit statuses with their meanings, one per line, for a help text."""
    return "\n".join(f"  {status:<5}{meaning}" for status, meaning in MEANINGS.items())


class Failure(click.ClickException):
    """Error of a failed command. Each line of the message is printed on stderr as a separate error."""

    exit_code = Exit.FAILED

    def show(self, file: Any = None) -> None:
        """Print the message to stderr."""
        for line in self.message.splitlines():
            click.echo(f"Error: {line}", file=file, err=True)


class WrongUsage(Failure):
    """Error: the command line, a setting or the identity is wrong."""

    exit_code = Exit.USAGE


class Disabled(Failure):
    """Error: presence is switched off in the settings."""

    exit_code = Exit.DISABLED


class Unreachable(Failure):
    """Error: the client cannot join the room."""

    exit_code = Exit.UNREACHABLE


class NoSuchUser(Failure):
    """Error: no user in the room has the given id or name, or several users have the name."""

    exit_code = Exit.NO_SUCH_USER
