"""What may import what. The sources are read, not run: an import inside a function counts, too.

- The core is pure: of the standard library it uses what stands in `PURE`, of other packages what it declares.
- Imports in the core go down one list, `ORDER`.
- The adapters use what the core says is public.
"""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attrs import frozen

import presence_proto

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src"
CORE, ADAPTERS = "presence_proto", "presence_adapters"

# The modules of the core. Each may import those above it only.
ORDER = [
    "version",
    "errors",
    "secrets",
    "endpoint",
    "validators",
    "json_text",
    "config",
    "presence",
    "events",
    "payloads",
    "timers",
    "websocket.events",
    "websocket.deflate",
    "websocket.frames",
    "websocket.handshake",
    "websocket.tunnel",
    "websocket.protocol",
    "websocket",
    "serializer",
    "connection",
    "join_refusals",
    "phoenix_socket",
    "channel",
    "realtime_client",
    "room",
    "phoenix_room",
    "jarvis_room",
    "roster",
    "restart_grace",
    "presence_client",
    "hub.authorization",
    "hub.origins",
    "hub.config",
    "hub.limits",
    "hub.admission",
    "hub.topic",
    "hub.peer",
    "hub.channels",
    "hub.phoenix",
    "hub.jarvis",
    "hub.hub",
    "hub",
    "recording.frames",
    "recording.redaction",
    "recording.format",
    "recording.recorder",
    "recording.replay",
    "recording",
]

# Upward, and for the type checker only.
TYPES_OF: dict[tuple[str, str], str] = {}

# The standard library without I/O, clocks, threads and chance.
PURE = {
    "__future__",
    "abc",
    "base64",
    "binascii",
    "codecs",
    "collections",
    "collections.abc",
    "contextlib",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "hmac",
    "http",
    "importlib",
    "inspect",
    "ipaddress",
    "itertools",
    "json",
    "math",
    "re",
    "struct",
    "types",
    "typing",
    "urllib.parse",
    "zlib",
}
TYPES = {"random"}  # a Random is handed in
READS_THE_INTERPRETER = {"version": "sys"}  # its version number, a constant, for the User-Agent
MAKES_RANDOM = {"recording.replay"}  # which gives it the recorded state at once
TESTING = {"random"}  # what the tools for tests may use besides: they seed their own
WEBSOCKET = "websocket."
IMPURE_CALLS = {"open", "print", "input", "breakpoint", "eval", "exec", "__import__", "hash", "id"}

# What is needed besides by adapters that need no extra.
ADAPTERS_NEED = {"PyJWT": "the expiry of access tokens"}

ADAPTERS_MAY_IMPORT = {
    f"presence_proto{name}"
    for name in ("", ".hub", ".presence", ".recording", ".secrets", ".serializer", ".testing", ".websocket")
}

# Files with more than 700 lines that are not blank, and why.
LONG_FILES: dict[str, str] = {}


@frozen
class Import:
    """`names` of `module`; no names for `import module`."""

    module: str
    names: tuple[str, ...]
    for_types: bool

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


@cache
def nodes(tree: ast.AST) -> list[ast.AST]:
    return list(ast.walk(tree))


@cache
def imports(tree: ast.AST) -> list[Import]:
    return list(_imports(tree))


def _imports(tree: ast.AST) -> Iterator[Import]:
    for_types = {
        inner
        for node in nodes(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, (), node in for_types)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they lead"
            assert node.module is not None
            yield Import(node.module, tuple(alias.name for alias in node.names), node in for_types)


def sources(package: str) -> dict[str, ast.Module]:
    """The modules of a package by dotted name, without that of the package; `""` for the package itself."""
    found = {}
    for path in sorted((SRC / package).rglob("*.py")):
        parts = path.relative_to(SRC / package).with_suffix("").parts
        found[".".join(parts).removesuffix("__init__").removesuffix(".")] = ast.parse(path.read_text("utf-8"))
    return found


CORE_SOURCES = sources(CORE)
ADAPTER_SOURCES = sources(ADAPTERS)
by_core_module = pytest.mark.parametrize("module", CORE_SOURCES, ids=lambda name: name or CORE)
by_adapter_module = pytest.mark.parametrize("module", ADAPTER_SOURCES, ids=lambda name: name or ADAPTERS)


def inner_imports(module: str) -> Iterator[tuple[str, bool]]:
    """The modules of the core that `module` imports, and whether for types only."""
    for one in imports(CORE_SOURCES[module]):
        if one.package == CORE:
            name = one.module.removeprefix(CORE).removeprefix(".")
            for inner in one.names:
                whole = f"{name}.{inner}".removeprefix(".")
                yield (whole if whole in CORE_SOURCES else name), one.for_types
            assert one.names, f"{module}: import what is needed from {one.module}"


def in_testing(module: str) -> bool:
    return module.partition(".")[0] == "testing"


# ---------------------------------------------------------------------------------------- the walker itself


def test_the_walker_sees_every_import() -> None:
    tree = ast.parse(
        "import os.path, time as clock\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from random import Random\n"
        "else:\n    import random\n"
        "def f():\n    from socket import socket, AF_INET\n"
    )
    assert set(imports(tree)) == {
        Import("os.path", (), False),
        Import("time", (), False),
        Import("typing", ("TYPE_CHECKING",), False),
        Import("random", ("Random",), True),
        Import("random", (), False),
        Import("socket", ("socket", "AF_INET"), False),
    }


# ---------------------------------------------------------------------------------------- the core


@by_core_module
def test_the_core_is_pure(module: str) -> None:
    declared = {"attrs", "h11", "msgspec", "wsproto"} | ({"hypothesis"} if in_testing(module) else set())
    for one in imports(CORE_SOURCES[module]):
        allowed = one.package in declared | {CORE} or one.module in PURE
        allowed |= in_testing(module) and one.module in TESTING
        allowed |= READS_THE_INTERPRETER.get(module) == one.module
        allowed |= module in MAKES_RANDOM and one.module in TYPES
        assert allowed or (one.for_types and one.module in TYPES), one.module
        if one.package in ("h11", "wsproto"):
            assert module.startswith(WEBSOCKET)


@by_core_module
def test_the_core_calls_nothing_impure(module: str) -> None:
    names = {node.func.id for node in nodes(CORE_SOURCES[module]) if _is_call(node)}
    assert not names & IMPURE_CALLS


def _is_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def test_the_list_of_pure_modules_is_no_longer_than_it_must_be() -> None:
    pure = [tree for module, tree in CORE_SOURCES.items()]
    used = {one.module for tree in pure for one in imports(tree)}
    assert used >= PURE | TYPES


def test_the_core_declares_what_it_imports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {requirement.partition(">")[0] for requirement in project["dependencies"]}
    used = {
        one.package
        for module, tree in CORE_SOURCES.items()
        for one in imports(tree)
        if one.module not in PURE | TYPES | set(READS_THE_INTERPRETER.values())
        and one.package != CORE
        and not in_testing(module)
    }
    assert declared == used | set(ADAPTERS_NEED)


def test_every_module_has_its_place() -> None:
    listed = [name for name in CORE_SOURCES if name and not in_testing(name)]
    assert sorted(ORDER) == sorted(listed)


@pytest.mark.parametrize("module", ORDER)
def test_imports_go_up_the_list_only(module: str) -> None:
    below = ORDER[ORDER.index(module) :]
    for imported, for_types in inner_imports(module):
        assert imported, "no module of the core imports the package: it imports them all"
        assert not in_testing(imported), "what is for tests is for tests"
        if imported in below:
            assert for_types, f"{module} imports {imported}, which comes after it"
            assert (module, imported) in TYPES_OF


def test_every_exception_is_needed() -> None:
    upward = {
        (module, imported)
        for module in ORDER
        for imported, _ in inner_imports(module)
        if imported in ORDER[ORDER.index(module) :]
    }
    assert upward == set(TYPES_OF)


def test_the_public_names_are_there_once_and_in_order() -> None:
    names = presence_proto.__all__
    assert names == sorted(set(names))
    assert all(hasattr(presence_proto, name) for name in names)
    imported = {name for one in imports(CORE_SOURCES[""]) if one.package == CORE for name in one.names}
    assert imported == set(names)


# ---------------------------------------------------------------------------------------- the adapters


@by_adapter_module
def test_adapters_use_public_names_only(module: str) -> None:
    tree, aliases = ADAPTER_SOURCES[module], set()
    for one in imports(tree):
        if one.package == CORE:
            assert one.module in ADAPTERS_MAY_IMPORT
            if one.module == CORE:
                assert set(one.names) <= set(presence_proto.__all__)
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname or alias.name for alias in node.names if alias.name == CORE}
    for node in nodes(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            assert node.attr in presence_proto.__all__


@by_core_module
def test_the_core_knows_nothing_of_the_adapters(module: str) -> None:
    assert ADAPTERS not in {one.package for one in imports(CORE_SOURCES[module])}


# ---------------------------------------------------------------------------------------- names

SAME_NAME = {
    "PresenceClient": "the core's, and one for each loop: who changes loops changes an import",
    "RealtimeClient": "the same",
    "Channel": "the core's, and one for each kind of waiting: await, block, step",
}


def test_no_two_classes_share_a_name() -> None:
    names = Counter(
        node.name
        for tree in [*CORE_SOURCES.values(), *ADAPTER_SOURCES.values()]
        for node in nodes(tree)
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, count in names.items() if count > 1} == set(SAME_NAME)


STUBS = {"sys", "zlib"}  # public things with private names: `sys._current_frames`, the types of zlib


@pytest.mark.parametrize("package", [CORE, ADAPTERS])
def test_private_attributes_stay_in_their_module(package: str) -> None:
    for module, tree in (CORE_SOURCES if package == CORE else ADAPTER_SOURCES).items():
        own = {node.attr for node in nodes(tree) if isinstance(node, ast.Attribute) and _is_self(node.value)}
        own |= {node.name for node in nodes(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        own |= {node.target.id for node in nodes(tree) if _is_annotation(node)}
        for node in nodes(tree):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
                assert node.attr in own or ast.unparse(node.value) in STUBS, f"{module}: {ast.unparse(node)}"


def _is_self(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return ast.unparse(node) == "super()"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _is_annotation(node: ast.AST) -> bool:
    return isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)


# ---------------------------------------------------------------------------------------- sizes


def test_no_file_is_two_things() -> None:
    long = set()
    for path in SRC.rglob("*.py"):
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
        if len(lines) > 700:
            long.add(str(path.relative_to(SRC)))
    assert long == set(LONG_FILES)
