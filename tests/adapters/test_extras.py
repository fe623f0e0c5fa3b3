"""A package that is not installed: whatever needs it names the extra that has it."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from presence_proto.testing import hypothesis_extra

ROOT = Path(__file__).parent.parent.parent

NEEDED = [
    ("presence_adapters.trio", "trio", "trio"),
    ("presence_adapters.settings.layers", "platformdirs", "cli"),
    ("presence_proto.testing.strategies", "hypothesis", "testing"),
    ("presence_proto.testing.strategies.messages", "hypothesis", "testing"),
    ("presence_proto.testing.machines", "hypothesis", "testing"),
]

WITHOUT = """
import importlib, sys
sys.modules[{package!r}] = None  # as if it were not there
try:
    importlib.import_module({module!r})
except ModuleNotFoundError as exc:
    print(exc.name, exc, sep="|")
"""


@pytest.mark.long
@pytest.mark.parametrize(("module", "package", "extra"), NEEDED)
def test_what_is_missing_is_named_with_its_extra(module: str, package: str, extra: str) -> None:
    program = WITHOUT.format(package=package, module=module)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (
        result.stdout
        == f"{package}|{package} is missing. Install it: pip install 'presence-proto[{extra}]'\n"
    )


def test_the_package_itself_is_named_and_not_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(ModuleNotFoundError, match=r"'presence-proto\[testing\]'") as caught:
        importlib.reload(hypothesis_extra)
    assert caught.value.name == "hypothesis"
    assert caught.value.__suppress_context__, "what was missing is said once"


def test_the_extras_have_what_they_are_named_for() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for _, package, extra in NEEDED:
        assert any(requirement.startswith(package) for requirement in extras[extra])


@pytest.mark.long
@pytest.mark.parametrize("package", ["trio", "hypothesis", "platformdirs", "click", "rich", "textual"])
def test_what_needs_no_extra_is_there_without_them(package: str) -> None:
    program = f"""
import sys
sys.modules[{package!r}] = None
import presence_proto, presence_proto.testing
import presence_adapters.asyncio, presence_adapters.blocking, presence_adapters.stepped
import presence_adapters.server, presence_adapters.pytest_plugin
"""
    subprocess.run([sys.executable, "-c", program], check=True)
