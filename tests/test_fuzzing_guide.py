"""`docs/howto/fuzz-your-app.md` tells the truth: the bugs of its app are found as it says, and fixed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from test_docs import HOWTO, blocks

pytestmark = pytest.mark.long

PAGE = HOWTO / "fuzz-your-app.md"
BLOCKS = blocks(PAGE, "python")
SHOWN = blocks(PAGE, "text")


def run(directory: Path, *files: str) -> str:
    """The page's blocks so far, as a user would run them: the last one of each name counts."""
    (directory / "pytest.ini").write_text("[pytest]\n")
    for block in BLOCKS[: len(files)]:
        name, code = re.fullmatch(r"# (\S+)\n(.*)", block, re.DOTALL).groups()  # type: ignore[union-attr]
        (directory / name).write_text(code, "utf-8")
    names = [re.match(r"# (\S+)", block)[1] for block in BLOCKS[: len(files)]]  # type: ignore[index]
    assert names == list(files)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    return subprocess.run(
        command, cwd=directory, capture_output=True, encoding="utf-8", timeout=300, check=False
    ).stdout


def shows(said: str, shown: str) -> bool:
    lines = [line.removeprefix("E").strip() for line in said.splitlines()]
    return all(line in lines for line in shown.splitlines())


def test_the_guide(tmp_path: Path) -> None:
    first = ("lobby.py", "test_lobby.py")
    said = run(tmp_path, *first)
    assert shows(said, SHOWN[0]), said
    assert "FAILED test_lobby.py" in said
    said = run(tmp_path, *first, "lobby.py", "test_lobby_machine.py")
    assert shows(said, SHOWN[1]), said
    assert "FAILED test_lobby_machine.py" in said
    said = run(tmp_path, *first, "lobby.py", "test_lobby_machine.py", "lobby.py")
    assert "2 passed" in said, said
    assert len(BLOCKS) == 5
    assert len(SHOWN) == 2
