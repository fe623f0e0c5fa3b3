"""The guard of instruction counts. Valgrind itself is not run: it is not everywhere, and takes its time."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from benchmarks.instructions import REFERENCE, build, minor
from click.testing import CliRunner

from benchmarks import hot_paths, instructions


def guard(
    monkeypatch: pytest.MonkeyPatch, reference: Path, counts: dict[str, int], *args: str
) -> tuple[int, str]:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/valgrind")
    monkeypatch.setattr(instructions, "count", lambda names: {name: counts[name] for name in names})
    result = CliRunner().invoke(instructions.main, ["--reference", str(reference), *args])
    return result.exit_code, result.output + str(result.exception or "")


COUNTS = dict.fromkeys(instructions.NAMES, 1_000)


def test_what_is_recorded_is_compared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    code, output = guard(monkeypatch, kept, COUNTS)
    assert code == 1
    assert "make some with --record" in output
    assert guard(monkeypatch, kept, COUNTS, "--record")[0] == 0
    assert guard(monkeypatch, kept, COUNTS | {"client-text": 1_050, "client-bytes": 500})[0] == 0
    code, output = guard(monkeypatch, kept, COUNTS | {"client-text": 1_051})
    assert code == 1
    assert "client-text: 1,000 before, 1,051 now (+5.1%)" in output
    assert guard(monkeypatch, kept, COUNTS | {"client-text": 1_051}, "--tolerance", "6")[0] == 0
    assert guard(monkeypatch, kept, COUNTS | {"client-text": 1_051}, "hub-heartbeat")[0] == 0


def test_another_build_fails_and_is_counted_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps({minor(): {"build": "Python 2", "counts": {"client-text": 1_000}}}), "utf-8")
    code, output = guard(monkeypatch, kept, COUNTS)
    assert code == 3
    assert "Python 2" in output
    assert "cannot be compared" in output
    # Counts of two builds are not mixed.
    assert guard(monkeypatch, kept, {"burst": 5}, "burst", "--record")[0] == 0
    assert json.loads(kept.read_text("utf-8")) == {minor(): {"build": build(), "counts": {"burst": 5}}}


def test_a_path_that_nobody_has_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps({minor(): {"build": build(), "counts": {"client-text": 1_000}}}), "utf-8")
    code, output = guard(monkeypatch, kept, COUNTS)
    assert code == 1
    assert "client-crowd, client-bytes, presence-bytes" in output


def test_without_valgrind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    result = CliRunner().invoke(instructions.main, [])
    assert result.exit_code == 1
    assert "valgrind is not installed" in str(result.exception) + result.output


def test_the_start_of_python_cancels_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **more: None)
    monkeypatch.setattr(
        instructions,
        "instructions",
        lambda args: 1_000_000 + (37 * int(args[-1]) if "hot_paths" in str(args) else 0),
    )
    counted = {"client-text": 37, "hub-broadcast": 37, "import": 1_000_000}
    assert instructions.count(list(counted)) == counted


def test_what_fails_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/valgrind")
    monkeypatch.setattr(instructions, "VALGRIND", ("env",))
    kept = tmp_path / "kept.json"
    result = CliRunner().invoke(instructions.main, ["--record", "--reference", str(kept), "hub-heartbeat"])
    assert result.exit_code == 1
    assert "hub-heartbeat 500 has failed" in str(result.exception) + result.output


@pytest.mark.long
@pytest.mark.parametrize("name", hot_paths.HOT_PATHS)
def test_hot_paths_run(name: str) -> None:
    prepare, _ = hot_paths.HOT_PATHS[name]
    prepare(3)()


def test_the_kept_counts_are_of_all_paths() -> None:
    for kept in json.loads(REFERENCE.read_text("utf-8")).values():
        assert kept["counts"].keys() == set(instructions.NAMES)


def test_the_page_says_what_was_counted() -> None:
    page = (Path(__file__).parents[2] / "docs/explanation/performance.md").read_text("utf-8")
    counts = json.loads(REFERENCE.read_text("utf-8"))["3.11"]["counts"]
    assert f"{counts['client-text']:,} instructions" in page
    assert f"{counts['client-crowd']:,} in one of" in page
    for name in ("single-presence", "single-realtime", "devices", "update-activity", "heartbeat"):
        assert f"| {counts[name]:,} instructions |" in page, name
