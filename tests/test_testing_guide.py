"""The tests of `docs/howto/test-your-app.md` run, as they are, each block in the file that it names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from node_tools import INTEROP, require_node
from presence_adapters.server.hub_thread import COMMANDS

pytestmark = pytest.mark.long

PAGE = (Path(__file__).parent.parent / "docs" / "howto" / "test-your-app.md").read_text("utf-8")
SECONDS = 60


def lay_out(directory: Path, language: str) -> list[str]:
    """Write the blocks in a language into files. Returns their names."""
    names = []
    for name, code in re.findall(
        rf"^```{language}\n(?:#|//) (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
    ):
        (directory / name).write_text(code, "utf-8")
        names.append(name)
    assert len(names) == PAGE.count(f"```{language}\n"), "each block says in which file it belongs"
    return names


def run(directory: Path, *command: str) -> str:
    # What is installed for this Python comes first: `presence` is to be ours.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    result = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, "PATH": path},
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_the_tests_in_python(tmp_path: Path) -> None:
    names = lay_out(tmp_path, "python")
    assert names == ["test_lobby.py", "lobby.py", "test_trouble.py", "test_options.py", "without_pytest.py"]
    # As a user runs them: without the options of this project.
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    said = run(tmp_path, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert "5 passed" in said
    run(tmp_path, sys.executable, "-W", "error", "without_pytest.py")


@pytest.mark.interop
def test_the_tests_in_javascript(tmp_path: Path) -> None:
    node = require_node()
    assert lay_out(tmp_path, "js") == ["hub.mjs", "lobby.test.mjs"]
    (tmp_path / "node_modules").symlink_to(INTEROP / "node_modules")
    said = run(tmp_path, node, "--test", "--test-force-exit")
    assert re.search(r"^(#|ℹ) pass 1$", said, re.MULTILINE), said


def test_the_first_tests_are_short() -> None:
    for language, start in (("python", "def test_who"), ("js", "test('a cut")):
        (block,) = re.findall(
            rf"^```{language}\n((?:(?!```).*\n)*{re.escape(start)}(?:.*\n)*?)```$", PAGE, re.MULTILINE
        )
        assert len([line for line in block[block.index(start) :].splitlines() if line.strip()]) <= 12


def test_the_page_names_every_command() -> None:
    for name in COMMANDS:
        assert re.search(rf"`{name}\b", PAGE), name
