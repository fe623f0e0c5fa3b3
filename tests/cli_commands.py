"""The commands of `presence` by name. The command itself imports each only when it runs."""

from __future__ import annotations

import click

from presence_adapters.cli.app import app

# Commands take their settings from it. Click keeps the help option of the first context that it sees.
CONTEXT = click.Context(app, info_name="presence", **app.context_settings)


def _all() -> dict[str, click.Command]:
    found = {name: app.get_command(CONTEXT, name) for name in app.list_commands(CONTEXT)}
    return {name: command for name, command in found.items() if command is not None}


COMMANDS = _all()
assert len(COMMANDS) > 10
