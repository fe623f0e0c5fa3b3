"""What is published: the wheel and the source distribution, and what importing the package costs.

`make wheel-test` runs a part of the other tests against the installed wheel.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def run(*arguments: object, cwd: Path | None = None) -> str:
    """Run Python, and return what it prints."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, and the wheel that is built from it."""
    target = tmp_path_factory.mktemp("dist")
    run("-W", "error", "-m", "build", "--no-isolation", "--outdir", target, ROOT)
    return target


def wheel_of(directory: Path) -> zipfile.ZipFile:
    (path,) = directory.glob("*.whl")
    return zipfile.ZipFile(path)


def sdist_of(directory: Path) -> tarfile.TarFile:
    (path,) = directory.glob("*.tar.gz")
    return tarfile.open(path)


# -------------------------------------------------------------------------------------------- what it holds


@pytest.mark.long
def test_the_wheel_holds_the_packages_and_nothing_else(dist: Path) -> None:
    names = [name for name in wheel_of(dist).namelist() if ".dist-info/" not in name]
    sources = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path)
    }
    assert set(names) == sources
    assert {name.partition("/")[0] for name in names} == {"presence_proto", "presence_adapters"}
    assert {"presence_proto/py.typed", "presence_adapters/py.typed"} <= set(names)


@pytest.mark.long
def test_the_wheel_says_what_it_is(dist: Path) -> None:
    with wheel_of(dist) as wheel:
        info = f"presence_proto-{PROJECT['version']}.dist-info"
        metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
        entry_points = wheel.read(f"{info}/entry_points.txt").decode()
        assert f"{info}/licenses/LICENSE" in wheel.namelist()
    assert (metadata["Name"], metadata["Version"]) == ("presence-proto", PROJECT["version"])
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    assert "presence = presence_adapters.cli:main" in entry_points
    assert "presence = presence_adapters.pytest_plugin" in entry_points


@pytest.mark.long
def test_the_source_holds_what_is_needed_to_test_it_and_nothing_built(dist: Path) -> None:
    with sdist_of(dist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    for needed in ("src/presence_proto/py.typed", "tests/conftest.py", "docs/conf.py", "Makefile", "LICENSE"):
        assert needed in names
    assert ".ci/run" in names  # tests read it
    for folder in ("node_modules", ".venv", "__pycache__", ".git", "build"):
        assert not [name for name in names if folder in name.split("/")]


@pytest.mark.long
def test_the_source_makes_the_same_wheel(dist: Path, tmp_path: Path) -> None:
    run("-W", "error", "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, ROOT)
    with wheel_of(dist) as one, wheel_of(tmp_path) as other:
        assert {entry.filename: entry.CRC for entry in one.infolist()} == {
            entry.filename: entry.CRC for entry in other.infolist()
        }


@pytest.mark.long
def test_the_index_would_take_them(dist: Path) -> None:
    assert "FAILED" not in run("-m", "twine", "check", "--strict", *dist.iterdir())


# -------------------------------------------------------------------------------------------- installing it


@pytest.mark.long
@pytest.mark.parametrize("extra", ["", "trio", "cli", "testing", "all"])
def test_extras_resolve(extra: str, dist: Path, tmp_path: Path) -> None:
    """Against what is installed here, without an index: all that it needs is in `all`."""
    (wheel,) = dist.glob("*.whl")
    wanted = f"{wheel}[{extra}]" if extra else wheel
    run("-m", "pip", "install", "--dry-run", "--no-index", "--quiet", wanted, cwd=tmp_path)


def test_all_is_the_extras_for_users() -> None:
    extras = PROJECT["optional-dependencies"]
    assert extras["all"] == ["presence-proto[cli,testing,trio]"]


def test_the_packages_run_as_a_module(tmp_path: Path) -> None:
    said = run("-m", "presence_adapters", "--help", cwd=tmp_path)
    assert said.startswith("Usage: presence ")


# -------------------------------------------------------------------------------------------- testing it


def recipe(target: str) -> str:
    """The command of a target in the Makefile, with its variables unexpanded."""
    found = re.search(rf"^{target}:.*\n\t(.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert found is not None, target
    return found[1]


def test_make_test_differs_from_test_all_in_the_marker_and_the_profile() -> None:
    assert recipe("test") == '$(PYTEST) -m "not long" --hypothesis-profile=brief'
    assert recipe("test-all") == '$(PYTEST) -m "" --hypothesis-profile=thorough'


def test_both_measure_coverage_and_fail_below_all_of_it() -> None:
    (pytest_command,) = re.findall(r"^PYTEST := (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert "--cov" in pytest_command.split()
    assert {"-m", "-k", "--ignore", "--no-cov"} & set(pytest_command.partition("pytest")[2].split()) == set()
    coverage = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["coverage"]
    assert coverage["run"]["branch"]
    assert coverage["report"]["fail_under"] == 100


def test_a_plain_pytest_leaves_nothing_out() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]["ini_options"]
    assert not {"-m", "-k", "--ignore", "--deselect"} & set(options["addopts"])
    assert options["testpaths"] == ["tests"]


def test_ci_runs_every_test_and_skips_none_for_a_missing_tool() -> None:
    commands = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    required = "PRESENCE_REQUIRE_NODE=1 PRESENCE_REQUIRE_HOSTS=1 PRESENCE_REQUIRE_CHROMIUM=1"
    assert f"{required} make test-all" in commands


# -------------------------------------------------------------------------------------------- importing it

NOT_FOR_THE_CORE = {
    *("asyncio", "concurrent", "selectors", "socket", "ssl", "subprocess", "tomllib"),
    *("click", "hypothesis", "platformdirs", "pytest", "rich", "textual", "trio", "presence_adapters"),
}


def loaded(statement: str, tmp_path: Path) -> set[str]:
    """The modules that a statement loads, and a bare Python does not."""
    ask = "import sys; print(*sys.modules)"
    return set(run("-c", f"{statement}; {ask}", cwd=tmp_path).split()) - set(
        run("-c", ask, cwd=tmp_path).split()
    )


def test_importing_the_core_loads_no_adapter_and_no_io(tmp_path: Path) -> None:
    assert NOT_FOR_THE_CORE & loaded("import presence_proto", tmp_path) == set()


def test_importing_an_adapter_loads_no_other_one(tmp_path: Path) -> None:
    modules = loaded("import presence_adapters.asyncio", tmp_path)
    assert "asyncio" in modules
    assert {"click", "hypothesis", "pytest", "rich", "textual", "trio"} & modules == set()
