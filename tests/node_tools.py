"""Node and the official JavaScript clients of `interop/`, for the tests that compare ourselves with them."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

INTEROP = Path(__file__).parent / "interop"
INSTALL_TIMEOUT = 300  # seconds

# npm writes it last, so a half-done install does not count.
_INSTALLED = INTEROP / "node_modules" / ".package-lock.json"


def require_node() -> str:
    """The path of node; the packages that `interop/package-lock.json` names are there, installed if need be.

    Skips the test when there is no node, or the packages cannot be installed. With `PRESENCE_REQUIRE_NODE=1`
    in the environment it fails instead.
    """
    node, missing = _find()
    if missing and os.environ.get("PRESENCE_REQUIRE_NODE") == "1":
        pytest.fail(f"{missing} (PRESENCE_REQUIRE_NODE=1 does not allow to skip this)", pytrace=False)
    if missing:
        pytest.skip(missing)
    return node


def run_script(name: str, stdin: str, *, timeout: float = 60) -> str:
    """Run the script `name` of `interop/` to its end, and return what it prints. Requires node."""
    result = subprocess.run(
        [require_node(), INTEROP / name],
        input=stdin,
        cwd=INTEROP,
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )
    assert result.returncode == 0, f"{name} ended with {result.returncode}:\n{result.stderr}"
    return result.stdout


@cache
def _find() -> tuple[str, str]:
    """The path of node and `""`, or `""` and what is missing."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        return "", "node is not installed: not compared with the official JavaScript clients"
    if _is_installed():
        return node, ""
    if npm is None:
        return "", "npm is not installed: the official JavaScript clients are not there"
    try:
        subprocess.run([npm, "ci"], cwd=INTEROP, capture_output=True, timeout=INSTALL_TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError) as exc:
        return "", f"npm could not install the official JavaScript clients: {exc}"
    return node, ""


def _is_installed() -> bool:
    lock = INTEROP / "package-lock.json"
    return _INSTALLED.exists() and _INSTALLED.stat().st_mtime >= lock.stat().st_mtime
