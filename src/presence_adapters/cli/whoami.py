"""`presence whoami`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from presence_adapters.cli.json_lines import print_json
from presence_adapters.cli.wording import printable

if TYPE_CHECKING:
    from presence_adapters.settings import Settings


def show_identity(settings: Settings, name: str | None, *, as_lines: bool) -> None:
    """Print who we are, after a change of the name if there is one.

    Raises `ConfigError` for a name that cannot be shown, and `IdentityError`.
    """
    stored = settings.stored_identity() if name is None else settings.rename(name)
    shown = settings.identity()
    if as_lines:
        print_json(
            {
                "user_id": shown.user_id,
                "display_name": shown.display_name,
                "name_chosen": stored.name_chosen,
                "identity_file": str(settings.identity_path),
            }
        )
        return
    click.echo(f"{printable(shown.display_name)} ({shown.user_id})")
    source = settings.source_of("display_name")
    if source.kind != "default":
        click.echo(
            f"The name is that of {source}; {settings.identity_path} has {printable(stored.display_name)}."
        )
    elif stored.name_chosen:
        click.echo(f"Kept in {settings.identity_path}.")
    else:
        click.echo(f"Kept in {settings.identity_path}. Nobody has chosen the name yet: --name does.")
