"""The click group of all commands. Each command is imported on use, because importing all takes a second."""

from __future__ import annotations

import io
import logging
import os
import sys
from importlib import import_module
from typing import Any

import click

from presence_adapters.cli.exits import Exit
from presence_adapters.cli.exits import described as exit_statuses

MODULES = {
    "chat": "room",
    "demo": "local",
    "doctor": "doctor.command",
    "hub": "hub",
    "invite": "room",
    "online": "room",
    "poke": "room",
    "replay": "local",
    "sim": "local",
    "status": "room",
    "watch": "room",
    "whoami": "room",
}
"""The module in `presence_adapters.cli` that defines each command."""

CONNECTION_LOG = "presence_adapters.connection_monitor"

EPILOG = f"""\b
Exit status:
{exit_statuses()}

\b
Tab completion, in the start-up file of your shell:
  bash   eval "$(_PRESENCE_COMPLETE=bash_source presence)"
  zsh    eval "$(_PRESENCE_COMPLETE=zsh_source presence)"
  fish   _PRESENCE_COMPLETE=fish_source presence | source
"""


class _Commands(click.Group):
    """Group of lazily imported commands. Ctrl-C sets exit status 130; click's 1 means a failed command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in MODULES:
            return None
        module = import_module(f"presence_adapters.cli.{MODULES[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(Exit.INTERRUPTED)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
)
@click.version_option(package_name="presence-proto", prog_name="presence", message="%(prog)s %(version)s")
def app() -> None:
    """See who is online and what they are doing, over Phoenix Channels and Supabase Realtime."""
    # The commands report connection losses themselves. Without this handler, `logging` would also print the
    # losses on stderr. With --debug, the losses are in the log, too.
    logging.getLogger(CONNECTION_LOG).addHandler(logging.NullHandler())
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the parent process closed this stream
            null = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(null, mode, closefd=False))  # noqa: SIM115  # stays open until exit
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # the locale's encoding may lack characters of names
