"""Run the tests of the core, the hub and the asyncio adapter in environments that differ from the locked one.

    python tests/matrix.py [NAME...]

The sets: the newest releases of the run-time dependencies that our ranges allow (`newest`), the oldest
(`oldest`), and the locked ones on every other Python that this machine has (`3.12`, `3.13`, …). Each set has
an environment and a log below build/matrix. The last lines say what ran, and which Pythons are not here.

This file is run by any Python, before anything is installed: it imports the standard library alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "matrix"
MINORS = range(11, 16)  # of Python 3: the oldest that we support, up to the next ones

# The tests of the documentation and of the package need tools that are not in requirements/test.txt.
NOT_HERE = ("docs", "embedding_guides", "fuzzing_guide", "packaging", "site", "testing_guide", "tutorial")
PATHS = (
    *(f"tests/{name}" for name in ("golden", "hub", "properties", "testing")),
    *(
        str(path.relative_to(ROOT))
        for path in sorted([*ROOT.glob("tests/test_*.py"), *ROOT.glob("tests/adapters/test_asyncio_*.py")])
        if path.stem.removeprefix("test_") not in NOT_HERE
    ),
)


@dataclass
class Set:
    """One environment: which Python, and what is installed besides requirements/test.txt."""

    name: str
    python: str  # the path of its executable
    further: tuple[tuple[str, ...], ...] = ()  # arguments of pip, one run each
    result: str = field(default="", init=False)
    failed: bool = field(default=False, init=False)


def pythons() -> dict[int, str]:
    """The Pythons that are installed, by minor version."""
    environment = dict(os.environ)
    if pyenv := shutil.which("pyenv"):  # its commands work only for the versions that it is told to use
        versions = subprocess.run([pyenv, "versions", "--bare"], capture_output=True, text=True, check=False)
        environment["PYENV_VERSION"] = ":".join(versions.stdout.split())
    found = {sys.version_info.minor: sys.executable}
    for minor in MINORS:
        command = [f"python3.{minor}", "-c", "import sys, venv, ssl; print(sys.executable)"]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        found.setdefault(minor, done.stdout.strip())
    return found


def sets() -> list[Set]:
    """All that can be run here."""
    own = sys.version_info.minor
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    newest = ("--upgrade", "--upgrade-strategy", "eager", *project["dependencies"])
    oldest = ("--require-hashes", "-r", "requirements/oldest.txt")
    return [
        Set("newest", sys.executable, (newest,)),
        Set("oldest", sys.executable, (oldest,)),
        *(Set(f"3.{minor}", path) for minor, path in pythons().items() if minor != own),
    ]


def run(one: Set) -> None:
    """Make the environment of a set, and run the tests in it."""
    folder = BUILD / one.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    python = str(folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python")
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    commands: list[tuple[str, ...]] = [
        (one.python, "-m", "venv", str(folder / "venv")),
        (*pip, "--require-hashes", "-r", "requirements/test.txt"),
        *((*pip, *arguments) for arguments in one.further),
        (*pip, "--no-deps", "--no-build-isolation", "--editable", "."),
        (python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=brief", *PATHS),
    ]
    with (folder / "log.txt").open("w+", encoding="utf-8") as log:
        for command in commands:
            done = subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=False)
            one.failed = done.returncode != 0
            if one.failed:
                break
        log.seek(0)
        lines = log.read().splitlines()
    one.result = next((line for line in reversed(lines) if re.search(r"\d+ (passed|failed|error)", line)), "")
    if one.failed:
        print(f"\n---- {one.name}: the end of {folder / 'log.txt'}", *lines[-60:], sep="\n", flush=True)
    print(f"{one.name}: {'FAILED ' if one.failed else ''}{one.result}", flush=True)


def versions(one: Set) -> str:
    """What a set came to."""
    names = ("attrs", "h11", "wsproto", "msgspec", "PyJWT")
    ask = (
        "import platform, importlib.metadata as m; "
        f"print('Python', platform.python_version(), *(n + ' ' + m.version(n) for n in {names}), sep=', ')"
    )
    python = BUILD / one.name / "venv" / "bin" / "python"
    done = subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=False)
    return done.stdout.strip().replace("Python, ", "Python ") or "not installed"


def main(names: list[str]) -> int:
    """Run the named sets, or all, a few at a time."""
    wanted = [one for one in sets() if not names or one.name in names]
    if unknown := set(names) - {one.name for one in wanted}:
        print(f"no such set here: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    print(f"running {', '.join(one.name for one in wanted)}: a few minutes each", flush=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(run, wanted))
    print()
    for one in wanted:
        print(f"{one.name}: {versions(one)}: {'FAILED ' if one.failed else ''}{one.result.strip('= ')}")
    here = pythons()
    for minor in MINORS:
        if minor not in here:
            print(f"3.{minor}: not run, this Python is not on this machine")
    return 1 if any(one.failed for one in wanted) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
