"""The options that every command with a server has: `--config`, and a flag for each setting.

    @app.command()
    @settings_options()
    def online(settings: Settings) -> None:
        ...

Secrets have no flag: everybody on the machine can read the arguments of a process. They come from the
environment, from the file or from files of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from presence_adapters.cli.exits import Disabled, WrongUsage
from presence_adapters.cli.output import debug_log
from presence_adapters.settings.identity_file import IdentityError
from presence_adapters.settings.keys import FILE, KEYS, Key
from presence_adapters.settings.layers import Settings, load_settings
from presence_proto import ConfigError

Command = TypeVar("Command", bound=Callable[..., Any])

SHOWN: dict[str, tuple[str, str]] = {
    "server_url": ("URL", "The server: a ws:// or wss:// URL, or a Supabase project ref."),
    "api_key_file": ("FILE", "A file that holds the key of the project."),
    "access_token_file": ("FILE", "A file that holds the JWT of the user."),
    "display_name": ("NAME", "What others see, this time."),
    "identity_file": ("FILE", "Another file for the identity."),
    "channel": ("CHANNEL", "The channel where everybody meets."),
    "visible": (
        "true|false",
        "Whether others see you in the room; false to look in unseen.",
    ),
    "tls_ca": ("FILE", "A file with certificates of authorities to trust."),
}
"""The flags that --help shows, with a placeholder and a text. The others work all the same."""

CONFIG_HELP = (
    "The file with the settings. Each setting that is no secret is an option, too, such as "
    "--heartbeat-interval 20."
)

DEBUG_HELP = "Say on stderr what goes over the wire, without secrets."


class Duration(click.FloatRange):
    """A time, in the unit that the option says, of at least a thousandth. No "inf", and no "nan"."""

    def __init__(self) -> None:
        super().__init__(min=0.001, max=1e6)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number. Fails with a usage error."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


_PREFIX = "setting_"  # of the parameters: a command may have arguments with the name of a setting


def settings_options(*, even_if_disabled: bool = False, lazily: bool = False) -> Callable[[Command], Command]:
    """Give a command the options, and pass it the loaded `Settings` as its keyword `settings`.

    Warnings go to stderr. What is wrong with the settings, also when the command finds it, ends with status
    2, one line for each problem; settings with `enabled = false` end with status 3, unless
    `even_if_disabled`. `lazily`: its keyword is `load`, a function that loads them, and all this is its own
    to do.
    """

    def decorated(command: Command) -> Command:
        @wraps(command)
        def with_settings(*args: Any, config: Path | None, debug: bool, **kwargs: Any) -> Any:
            flags = {name: kwargs.pop(_PREFIX + name) for name in KEYS if _PREFIX + name in kwargs}
            load = partial(load_settings, config, flags=flags)
            with debug_log() if debug else nullcontext():
                return in_log(load, *args, **kwargs)

        def in_log(load: Callable[[], Settings], *args: Any, **kwargs: Any) -> Any:
            if lazily:
                return command(*args, load=load, **kwargs)
            try:
                settings = load()
                for warning in settings.warnings:
                    click.echo(f"Warning: {warning}", err=True)
                if not (settings.enabled or even_if_disabled):
                    where = settings.source_of("enabled")
                    raise Disabled(
                        f"presence is switched off: {where} says enabled = false. "
                        "--enabled true goes over that, this time"
                    )
                return command(*args, settings=settings, **kwargs)
            except (ConfigError, IdentityError) as exc:
                raise WrongUsage(str(exc)) from None

        run: Callable[..., Any] = click.option("--debug", is_flag=True, help=DEBUG_HELP)(with_settings)
        for key in reversed([key for key in KEYS.values() if has_flag(key)]):
            run = _option(key)(run)
        config_type = click.Path(path_type=Path)
        return cast(
            "Command", click.option("--config", type=config_type, metavar="FILE", help=CONFIG_HELP)(run)
        )

    return decorated


def has_flag(key: Key) -> bool:
    """Whether a setting can be a flag."""
    return not key.secret and key.kind.from_text is not None


def _option(key: Key) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    metavar, text = SHOWN.get(key.name, ("VALUE", ""))
    return click.option(
        key.flag,
        _PREFIX + key.name,
        type=click.Path() if key.kind is FILE else str,
        metavar=metavar,
        help=text,
        hidden=key.name not in SHOWN,
    )
