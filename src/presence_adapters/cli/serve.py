"""Implementation of `presence hub`: startup text, control mode, and serving until a signal."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import signal
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, get_type_hints

import click
import msgspec
from attrs import evolve

from presence_adapters.cli.one_shot import on_stop_signal
from presence_adapters.cli.output import hub_log
from presence_adapters.server.hub_server import FILES_BESIDES, HubServer, raise_open_files_limit
from presence_adapters.server.hub_thread import COMMANDS, HubThread, new_api_key
from presence_adapters.settings.layers import default_config_path
from presence_adapters.tls_and_proxies import os_error_words
from presence_proto import LocalProtocolError, PresenceError
from presence_proto.testing import Faults

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from presence_proto import HubConfig


# --------------------------------------------------------------------------------------------------- greeting
# The startup text of a hub: the URLs of the hub, and an example client in Python and as settings.


_PYTHON = """\
import asyncio
{imports}from presence_adapters.asyncio import PresenceClient
from presence_proto import Identity, PresenceConfig

async def main():
    config = PresenceConfig({arguments})
    async with PresenceClient(Identity("alice", "Alice"), config) as client:
        async for event in client:
            print(event)

asyncio.run(main())
"""


def greeting(
    config: HubConfig,
    url: str,
    certificate: Path | None,
    api_key_file: Path | None,
    *,
    shows_jarvis: bool = True,
) -> str:
    """Return the startup text. `url`: the URL of the hub, without a path.

    `shows_jarvis`: whether to include the URL of the older Jarvis JSON protocol, which few users need.
    """
    phoenix, jarvis = config.protocol != "jarvis", config.protocol != "phoenix" and shows_jarvis
    urls = [("Supabase", f"{url}/realtime/v1"), ("Phoenix", f"{url}/socket")] if phoenix else []
    urls += [("Jarvis", url)] if jarvis else []
    server = {"server_url": f"{url}/realtime/v1"} if phoenix else {"server_url": url, "protocol": "jarvis"}
    arguments = [f"{name}={json.dumps(value)}" for name, value in server.items()]
    lines = [f"{name} = {json.dumps(value)}" for name, value in server.items()]
    imports = ""
    if api_key_file is not None:
        path = json.dumps(str(api_key_file.absolute()))
        imports = "from pathlib import Path\n"
        arguments.append(f"api_key=Path({path}).read_text().strip()")
        lines.append(f"api_key_file = {path}")
    if certificate is not None:
        path = json.dumps(str(certificate.absolute()))
        lines.append(f"# tls_ca = {path}  # if the certificate is self-signed")
    python = _PYTHON.format(imports=imports, arguments=", ".join(arguments))
    return "\n".join(
        [
            "The hub is running.",
            "",
            *(f"  {f'{name} clients':<18} {where}" for name, where in urls),
            "",
            "A client to try:",
            "",
            *_indented(python),
            "",
            f"Or, for `presence watch`, in {default_config_path()}:",
            "",
            *_indented("\n".join(["[presence]", *lines])),
            "",
            "Ctrl-C stops it.",
        ]
    )


def _indented(text: str) -> list[str]:
    return [f"  {line}" if line else "" for line in text.splitlines()]


# ---------------------------------------------------------------------------------------------------- control
# `presence hub --control`: a hub for tests in any language, controlled by commands on stdin.
#
# A command is a line of JSON: `{"do": "refuse_handshakes", "count": 2}`. The commands are the methods of
# `HubThread` in `COMMANDS`. The reply to each command is a line: `{"ok": true}`, with a `result` if the
# method returns a value, or `{"ok": false, "error": "…"}`.


def control(host: str, port: int, context: ssl.SSLContext | None, log_level: str, config: HubConfig) -> None:
    """Run a hub with a new random API key. Run commands from stdin until stdin ends or a signal arrives.

    Raises `OSError` when the hub cannot listen.
    """
    config = evolve(config, api_keys=[new_api_key()])
    hub_log(log_level)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    with HubThread(config, host=host, port=port, ssl_context=context) as hub:
        urls = {"url": hub.url, "socket_url": hub.socket_url, "jarvis_url": hub.jarvis_url}
        try:
            click.echo(msgspec.json.encode({**urls, "port": hub.port, "api_key": hub.api_key}))
            for answer in answers(hub, sys.stdin.buffer):
                click.echo(msgspec.json.encode(answer))
        except BrokenPipeError:
            # stdout is closed. Without this redirection, the flush of stdout at exit would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def answers(hub: HubThread, lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Run the commands in `lines`, one after the other, and yield the reply to each."""
    for line in lines:
        try:
            result = _done(hub, line)
        # TimeoutError is an OSError, but `wait_online` raises TimeoutError with its own message.
        except (PresenceError, TimeoutError) as exc:
            yield {"ok": False, "error": str(exc)}
        except OSError as exc:
            yield {"ok": False, "error": os_error_words(exc)}
        else:
            yield {"ok": True} if result is None else {"ok": True, "result": result}


def _done(hub: HubThread, line: bytes) -> Any:
    try:
        arguments = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise LocalProtocolError("a line must be a JSON object") from None
    name = arguments.pop("do", None)
    command = COMMANDS.get(name) if isinstance(name, str) else None
    if command is None:
        raise LocalProtocolError(f'"do" must be one of {", ".join(COMMANDS)}, not {_shown(name)}')
    try:
        checked = msgspec.convert(arguments, _arguments(command))
    except msgspec.ValidationError:
        raise LocalProtocolError(f"{name}: {_wrong(command, arguments)}") from None
    return command(hub, **{name: getattr(checked, name) for name in arguments})


@cache
def _arguments(command: Callable[..., Any]) -> type[msgspec.Struct]:
    """Return a struct type that validates the arguments of a command."""
    types = get_type_hints(_signed(command))
    fields = [
        (each.name, types[each.name])
        if each.default is each.empty
        else (each.name, types[each.name], each.default)
        for each in _parameters(command)
    ]
    return msgspec.defstruct(command.__name__, fields, kw_only=True, forbid_unknown_fields=True)


def _parameters(command: Callable[..., Any]) -> list[inspect.Parameter]:
    _, *parameters = inspect.signature(_signed(command)).parameters.values()
    return parameters


def _signed(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with the arguments of a command: `set_faults` takes the fields of `Faults`."""
    return Faults.__init__ if command is HubThread.set_faults else command


def _wrong(command: Callable[..., Any], arguments: dict[str, Any]) -> str:
    known = _arguments(command).__struct_fields__
    types = get_type_hints(_signed(command))
    for name, value in arguments.items():
        if name not in known:
            return f"unknown argument {name!r}, expected {', '.join(known) or 'none'}"
        try:
            msgspec.convert(value, types[name])
        except msgspec.ValidationError:
            return f"{name} must be {getattr(types[name], '__name__', types[name])}, not {_shown(value)}"
    return f"it needs {', '.join(each.name for each in _parameters(command) if each.default is each.empty)}"


def described() -> str:
    """Return a help text that lists each command with its arguments and the first line of its docstring."""
    lines = []
    for name, command in COMMANDS.items():
        arguments = [
            each.name if each.default is each.empty else f"{each.name}={_shown(each.default)}"
            for each in _parameters(command)
        ]
        lines += [f"  {' '.join([name, *arguments])}", f"      {inspect.getdoc(command)}".split("\n")[0]]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# ------------------------------------------------------------------------------------------------------ serve


async def serve(
    config: HubConfig,
    host: str,
    port: int,
    context: ssl.SSLContext | None,
    log_level: str,
    record: Path | None,
    greet: Callable[[str], str],
) -> None:
    """Run a hub until SIGINT or SIGTERM. `greet` returns the startup text for the hub's URL.

    Raises `OSError` when the hub cannot listen, and `ConfigError` when the hub cannot write to `record`.
    """
    hub_log(log_level)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    raise_open_files_limit(2 * config.max_connections + FILES_BESIDES)
    async with HubServer(config, host=host, port=port, ssl_context=context, record=record) as server:
        end = asyncio.ensure_future(server.wait_closed())
        with on_stop_signal(end.cancel):
            click.echo(greet(server.url))
            await asyncio.wait([end])
        if not end.cancelled():
            end.result()  # re-raise the failure of the hub
        click.echo("stopping")
