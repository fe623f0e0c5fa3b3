"""A Sphinx extension: our docstrings, which are plain text with `names` and indented examples, as the reST
that autodoc wants, with links from each public name to where it is described.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sphinx.addnodes import pending_xref
from sphinx.util.typing import stringify_annotation

import presence_proto

if TYPE_CHECKING:
    from docutils.nodes import Element, document
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

MODULES = (
    "presence_proto",
    "presence_proto.hub",
    "presence_proto.recording",
    "presence_proto.testing",
    "presence_proto.testing.sim",
    "presence_proto.testing.strategies",
    "presence_proto.testing.machines",
    "presence_proto.testing.server_script",
    "presence_proto.websocket",
    "presence_adapters.asyncio",
    "presence_adapters.trio",
    "presence_adapters.blocking",
    "presence_adapters.stepped",
    "presence_adapters.server",
    "presence_adapters.settings",
    "presence_adapters.testing",
)
"""Those with an `__all__`. What several of them have is described as the first one's."""

ALSO_PUBLIC = (
    "presence_proto.hub.config.join_params_are_the_meta",
    "presence_proto.presence.Meta",
    "presence_proto.serializer.Message",
    "presence_proto.serializer.UserBroadcast",
    "presence_proto.serializer.V1Serializer",
    "presence_proto.serializer.V2Serializer",
    "presence_proto.serializer.serializer_for",
    "presence_adapters.notifications.EVENT_TYPES",
    "presence_adapters.notifications.notification",
    "presence_adapters.pytest_plugin.presence_hub",
)
"""Of modules without one: what users import from them."""


UNIONS = ("PresenceOutput", "RealtimeOutput", "PresenceEvent", "RealtimeEvent")
"""The larger ones first: they have the smaller ones in them."""

DEFAULTS = (
    (r"= ?<factory>|= NOTHING\b", "= {}"),  # all are empty mappings
    (r"= <function (\w+)>", r"= \1"),
    (r"= <class '[\w.]*?(\w+)'>", r"= \1"),
    (r"= <(\w+\.\w+): \d+>", r"= \1"),  # a flag
)
"""Defaults as `inspect` has them, and how they are written."""


@cache
def public_names() -> dict[str, dict[str, str]]:
    """Module -> name -> the full name under which the reference describes it."""
    names: dict[str, dict[str, str]] = {}
    seen: dict[int, str] = {}
    for module in MODULES:
        found = names[module] = {}
        for name in import_module(module).__all__:
            value = getattr(import_module(module), name)
            found[name] = seen.setdefault(id(value), f"{module}.{name}")
    for full in ALSO_PUBLIC:
        module, _, name = full.rpartition(".")
        names.setdefault(module, {})[name] = full
    return names


def where_is(name: str, module: str | None) -> str | None:
    """The full name of what `name` means to a reader of `module`, if it is public."""
    names = public_names()
    last = name.rpartition(".")[2]
    if name.startswith("core."):  # `import presence_proto as core` in the adapters
        return names["presence_proto"].get(last)
    for one in (module, *MODULES, *names):
        if one is not None and last in names.get(one, ()):
            full = names[one][last]
            if "." not in name or name == full or name.startswith(f"{full.partition('.')[0]}."):
                return full
    return None


def as_rest(lines: list[str], module: str | None) -> list[str]:
    """A docstring as reST."""
    written: list[str] = []
    in_code = False
    for number, line in enumerate(lines):
        indented = line.startswith("    ")
        if indented and not in_code and (number == 0 or not lines[number - 1].strip()):
            written += [".. code-block:: python", ""]
            in_code = True
        elif line.strip() and not indented:
            in_code = False
        written.append(line if in_code else re.sub(r"`([^`]+)`", lambda m: _link(m[1], module), line))
    return written


def _link(name: str, module: str | None) -> str:
    full = where_is(name, module) if re.fullmatch(r"[\w.]+", name) else None
    return f"``{name}``" if full is None else f":py:obj:`{name} <{full}>`"


def _docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = as_rest(lines, _module_of(name))


def _module_of(name: str) -> str | None:
    return next((one for one in sorted(public_names(), reverse=True) if name.startswith(one)), None)


def _signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, arguments: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Unions keep their names, and defaults are what one would write: else Sphinx cannot take them apart."""
    if arguments is not None:
        for default, written in DEFAULTS:
            arguments = re.sub(default, written, arguments)
    for union in UNIONS:
        members = stringify_annotation(getattr(presence_proto, union), "smart")
        returns = returns and returns.replace(members, f"~presence_proto.{union}")
    return arguments, returns


def _resolve(app: Sphinx, doctree: document) -> None:
    """Annotations name things as their module knows them: say the full name instead."""
    for node in doctree.findall(pending_xref):
        if node.get("refdomain") == "py":
            full = where_is(node["reftarget"], node.get("py:module"))
            if full is not None:
                node["reftarget"] = full


def _missing(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Element) -> Element | None:
    """Names that are not public stay without a link. A public name that the reference lacks is an error."""
    ours = node.get("refdomain") != "py" or where_is(node["reftarget"], node.get("py:module")) is not None
    return None if ours else content


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-process-signature", _signature)
    app.connect("doctree-read", _resolve)
    app.connect("missing-reference", _missing)
    return {"parallel_read_safe": True}
