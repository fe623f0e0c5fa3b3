"""The site in `docs/` builds without a warning, is complete, and says what is so.

Sphinx checks the links inside of the site, anchors included: a link to nowhere is a warning. Links to the
outside are checked for their form only: the tests need no network.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import pkgutil
import pydoc
import re
import shlex
import subprocess
import sys
import tomllib
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click
import pytest
from attrs import fields_dict
from sphinx.util.inventory import InventoryFile
from wsproto.frame_protocol import CloseReason

from cli_commands import COMMANDS, CONTEXT
from presence_adapters.notifications import EVENT_TYPES
from presence_adapters.settings.keys import KEYS
from presence_adapters.settings.layers import SettingsError, load_settings
from presence_proto import HubConfig, PresenceConfig, RealtimeConfig
from presence_proto.testing import SimFaults
from presence_proto.testing.sim import laws
from test_docs import PAGES, ROOT, blocks
from test_layers import ADAPTER_SOURCES, CORE_SOURCES, SRC, WEBSOCKET

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
sys.path.append(str(DOCS))  # as in docs/conf.py

import diagrams  # noqa: E402
import docstrings  # noqa: E402

# ------------------------------------------------------------------------------------------------- the build


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", DOCS, target]
    built = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert built.returncode == 0, built.stderr
    return target


@pytest.fixture(scope="module")
def described(site: Path) -> set[str]:
    """The full names of all that the reference describes."""
    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    return {
        name for domain, objects in inventory.data.items() if domain.startswith("py:") for name in objects
    }


def test_every_module_with_public_names_is_known_to_the_site() -> None:
    with_all = {
        f"{package}.{module}".removesuffix(".")
        for package, sources in (("presence_proto", CORE_SOURCES), ("presence_adapters", ADAPTER_SOURCES))
        for module, tree in sources.items()
        if "__all__" in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    }
    inner = {"presence_adapters.testing.driver_check"}  # whose names are public elsewhere
    assert with_all - inner == set(docstrings.MODULES)
    for module in inner:
        for name in importlib.import_module(module).__all__:
            assert name in docstrings.public_names()[module.rpartition(".")[0]]


@pytest.mark.long
def test_every_public_name_is_in_the_reference(described: set[str]) -> None:
    names = {full for names in docstrings.public_names().values() for full in names.values()}
    assert names - described == set()


@pytest.mark.parametrize("module", docstrings.MODULES)
def test_help_works_for_every_public_name(module: str) -> None:
    for name in importlib.import_module(module).__all__:
        assert pydoc.render_doc(getattr(importlib.import_module(module), name))


@pytest.mark.long
def test_every_command_is_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "commands.html").read_text("utf-8")
    for name, command in COMMANDS.items():
        assert f'id="presence-{name}"' in page
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert all(flag in page for flag in option.opts), f"{name} {option.opts}"


def test_the_pictures_are_those_of_the_code() -> None:
    stale = [
        path.name
        for path, svg in diagrams.images().items()
        if not path.exists() or path.read_text("utf-8") != svg
    ]
    assert not stale, "draw them again: python docs/diagrams"


@pytest.mark.parametrize("path", sorted(diagrams.IMAGES.iterdir()), ids=lambda path: path.name)
def test_a_picture_needs_nothing_from_outside(path: Path) -> None:
    svg = path.read_text("utf-8")
    assert not re.search(r"url\([\"']?http|href=[\"']http|@import", svg)
    if path in diagrams.images():
        assert "prefers-color-scheme: dark" in svg


# ------------------------------------------------------------------------------------------- what pages say


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_the_outside_are_well_formed(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\((https?:[^)]*)\)", text):
        parts = urlsplit(link)
        assert parts.scheme == "https", link
        assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), link
        assert not re.search(r"[\s<>\"]", link), link


def console_commands() -> Iterator[tuple[str, list[str]]]:
    for page in PAGES:
        for block in blocks(page, "console"):
            for line in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
                words = shlex.split(line, comments=True)
                while re.match(r"\w+=", words[0]):  # a variable for this one command
                    del words[0]
                yield str(page.relative_to(ROOT)), [words[0].rpartition("/")[2], *words[1:]]
        prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
        for line in re.findall(r"(?<!`)`(presence [a-z]+[^`]*|make [a-z]+[^`]*)`(?!`)", prose):
            yield str(page.relative_to(ROOT)), shlex.split(line)


@pytest.mark.parametrize(("page", "words"), list(console_commands()), ids=str)
def test_commands_on_the_pages_exist(page: str, words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    match words:
        case ["presence", name, *arguments]:
            command = COMMANDS[name]
            context = click.Context(command, parent=CONTEXT, info_name=name)
            command.make_parser(context).parse_args(arguments)  # raises for options that there are not
        case ["make", target, *variables]:
            assert re.search(rf"^{target}:", makefile, re.MULTILINE)
            assert all(f"({variable.partition('=')[0]})" in makefile for variable in variables)
        case ["python" | "python3", "-m", module, *_]:
            assert importlib.util.find_spec(module)
        case _:
            assert words[0] in {".", "export", "pip", "python"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_on_the_pages_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for name in re.findall(r"`(presence_(?:proto|adapters)(?:\.\w+)+)", text):
        assert pkgutil.resolve_name(name), name
    for path in re.findall(r"`((?:benchmarks|docs|src|tests)/[^`\s]*)`", text):
        assert "TARGET" in path or (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_the_pages_import_is_in_the_reference(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("presence_"):
                assert {alias.name for alias in node.names} <= docstrings.public_names()[
                    str(node.module)
                ].keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_and_json_on_the_pages_are_such(page: Path) -> None:
    for block in blocks(page, "toml"):
        table = tomllib.loads(block).get("presence", {})
        assert table.keys() <= KEYS.keys()
    for block in blocks(page, "json"):
        for line in block.splitlines() if block.count("\n{") else [block]:
            assert json.loads(line)


def test_the_problems_on_the_page_are_what_is_said(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        '[presence]\nserver_url = "ref"\nheartbeat_interval = "soon"\nheartbeat_timout = 5\n', "utf-8"
    )
    with pytest.raises(SettingsError) as caught:
        load_settings(file, {"PRESENCE_JITTER": "lots"})
    page = (REFERENCE / "configuration.md").read_text("utf-8")
    for problem in caught.value.problems:
        assert f"Error: {problem}\n".replace(str(file), "/home/ann/.config/presence/config.toml") in page


def test_every_event_type_is_on_the_page() -> None:
    page = (REFERENCE / "api" / "adapters.md").read_text("utf-8")
    told = re.findall(r"^\| `(\w+)` \| `(\w+)` \|$", page, re.MULTILINE)
    assert told == [(name, event.__name__) for event, name in EVENT_TYPES.items()]


def test_who_logs_at_which_level_is_on_the_page() -> None:
    rows = re.findall(
        r"^\| ([A-Z]+) \| ([^|]*) \|", (REFERENCE / "logging.md").read_text("utf-8"), re.MULTILINE
    )
    told = {(level, name) for level, names in rows for name in re.findall(r"`(\w+)`", names)}
    levels = {"debug", "info", "warning", "error", "exception"}
    done = {
        (node.attr.upper().replace("EXCEPTION", "ERROR"), module.partition(".")[0])
        for module, tree in ADAPTER_SOURCES.items()
        if module != "tls_and_proxies"  # which is handed a logger
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in levels and ast.unparse(node.value) == "logger"
    }
    assert told == done


def test_the_layers_that_know_h11_and_wsproto_are_named() -> None:
    page = (DOCS / "explanation" / "layers.md").read_text("utf-8")
    modules = [module.removeprefix(WEBSOCKET) for module in CORE_SOURCES if module.startswith(WEBSOCKET)]
    assert [module for module in modules if f"`{module}`" not in page] == []


def test_every_fault_and_law_of_a_simulated_world_is_told() -> None:
    page = " ".join(
        (DOCS / "explanation" / "simulation.md").read_text("utf-8").replace("*", "").lower().split()
    )
    assert [fault.name for fault in SimFaults if f"`{str(fault.name).lower()}`" not in page] == []
    names = [name for name in vars(laws) if name.isupper()]
    assert names
    for name in names:
        assert getattr(laws, name).removeprefix("after the faults ").lower() in page.replace("`", "")


@pytest.mark.parametrize("name", ["reconnect-policy.md", "many-channels.md"])
def test_defaults_on_the_pages_are_those_of_the_code(name: str) -> None:
    rows = re.findall(
        r"^\| `(?:(\w+)\.)?(\w+)` \| ([\d.,]+)", (DOCS / "howto" / name).read_text("utf-8"), re.MULTILINE
    )
    assert rows
    for config, field, default in rows:
        configs = {"": PresenceConfig, "RealtimeConfig": RealtimeConfig, "HubConfig": HubConfig}
        assert float(default.replace(",", "")) == fields_dict(configs[config])[field].default, field


def test_the_versions_are_those_of_the_tests() -> None:
    page = (REFERENCE / "compatibility.md").read_text("utf-8")
    packages = json.loads((ROOT / "tests" / "interop" / "package-lock.json").read_text("utf-8"))["packages"]
    for name in ("phoenix", "@supabase/realtime-js", "ws"):
        assert packages[f"node_modules/{name}"]["version"] in page, name
    recordings = (ROOT / "tests" / "golden" / "README.md").read_text("utf-8")
    for text in ("1.8.12", "1.12.5", "2.129"):
        assert text in recordings
        assert text in page
    pins = (ROOT / "pyproject.toml").read_text("utf-8")
    for name in ("realtime", "websockets"):
        (pin,) = set(re.findall(rf'"{name}([^"]+)"', pins))
        assert f"`{name}{pin}`" in page
    assert int(version("realtime").split(".")[0]) == 2  # what that pin says


# ------------------------------------------------------------------------------------------ errors and codes

ERRORS = " ".join((REFERENCE / "errors.md").read_text("utf-8").split())
SPEAKING = {
    module: tree for module, tree in CORE_SOURCES.items() if not module.startswith(("testing", "recording"))
}
"""The modules whose words reach a user of a client or a hub."""

GIVES_A_REASON = {
    *("fail", "_fail", "_fail_queue", "_out", "_lost", "_down", "_end", "connection_lost"),
    *("_join_refused", "channel_ended"),
    *("JoinRefusedError", "Refusal", "Error", "abort"),
    *("close", "_close", "stop", "_no_token", "ProxyError"),
}
"""Functions that take the reason for an event."""


def numbers(tree: ast.AST) -> Iterator[int]:
    """The integers in a module, but the bounds of comparisons such as `1000 <= code`."""
    bounds = {inner for node in ast.walk(tree) if isinstance(node, ast.Compare) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and type(node.value) is int and node not in bounds:
            yield node.value


def named(tree: ast.AST, enum: type) -> Iterator[int]:
    """The members of an enumeration that a module names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == enum.__name__:
            yield int(getattr(enum, node.attr))


@pytest.mark.parametrize("module", SPEAKING, ids=lambda module: module or "presence_proto")
def test_every_close_code_is_explained(module: str) -> None:
    tree = SPEAKING[module]
    codes = {code for code in numbers(tree) if 1000 < code < 1016} | set(named(tree, CloseReason))
    assert [code for code in codes if f"| {code} |" not in ERRORS] == []


@pytest.mark.parametrize("module", ["connection", "websocket.handshake", "hub.admission"])
def test_every_status_is_explained(module: str) -> None:
    tree = SPEAKING[module]
    statuses = {status for status in numbers(tree) if 400 <= status < 600} | set(named(tree, HTTPStatus))
    assert statuses
    assert [status for status in statuses if f"| {status} |" not in ERRORS] == []


def reasons(tree: ast.AST) -> Iterator[str]:
    """The fixed parts of the texts that are given as reasons."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):  # a response
            for key, value in zip(node.keys, node.values, strict=True):
                if ast.unparse(key or value) == "'reason'" and isinstance(value, ast.Constant):
                    yield str(value.value)
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in GIVES_A_REASON:
                for argument in node.args:
                    parts = argument.values if isinstance(argument, ast.JoinedStr) else [argument]
                    for part in parts:
                        if isinstance(part, ast.Constant) and isinstance(part.value, str):
                            yield part.value.strip(" :()`")


@pytest.mark.parametrize("module", SPEAKING, ids=lambda module: module or "presence_proto")
def test_every_reason_is_explained(module: str) -> None:
    for reason in reasons(SPEAKING[module]):
        assert reason in ERRORS, reason


def test_every_failure_of_a_connection_is_explained() -> None:
    for node in ast.walk(ADAPTER_SOURCES["tls_and_proxies"]):
        if isinstance(node, ast.FunctionDef) and node.name in ("why_not_connected", "why_lost"):
            texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)][
                1:
            ]  # its docstring
            assert [text for text in texts if str(text or "").strip(" ()") not in ERRORS] == []


def test_every_exception_is_explained() -> None:
    for module, names in docstrings.public_names().items():
        for name in names:
            value = getattr(importlib.import_module(module), name)
            if isinstance(value, type) and issubclass(value, Exception):
                assert f"`{name}`" in ERRORS, name


def test_every_source_is_looked_at() -> None:
    assert SRC.is_dir()
    assert any(list(reasons(tree)) for tree in SPEAKING.values())
