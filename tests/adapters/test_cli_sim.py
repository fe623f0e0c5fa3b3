"""`presence sim`."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from presence_adapters.cli import sim
from presence_adapters.cli.app import app
from presence_proto.testing import SimViolation

SUMMARY = re.compile(
    r"(\d+) of (\d+) seeds, (\d+\.\d) client-hours in \d+\.\d s \(\d+\.\d a second\), \d+ writes, \d+ bytes, "
    r"\d+ events; faults: (.+)\n"
)
PRESENCE = [sys.executable, "-X", "dev", "-W", "error", "-m", "presence_adapters", "sim"]


def run(*options: str) -> Result:
    return CliRunner().invoke(app, ["sim", *options], prog_name="presence")


def summary(result: Result) -> tuple[str, ...]:
    match = SUMMARY.search(result.stdout)
    assert match is not None, result.output
    assert result.stdout.endswith(match[0])
    return match.groups()


def test_some_seeds() -> None:
    result = run("--seeds", "1-3", "--minutes", "3", "--clients", "3")
    assert result.exit_code == 0
    done, of, hours, faults = summary(result)
    assert (done, of) == ("3", "3")
    assert float(hours) >= 0.4
    assert re.search(r"cut \w+ \d+", faults)


def test_no_faults_and_hours() -> None:
    result = run("--seed", "1", "--hours", "0.5", "--clients", "2", "--faults", "none")
    assert summary(result) == ("1", "1", "1.0", "none")


def test_the_log() -> None:
    result = run("--seed", "1", "--minutes", "1", "--clients", "2", "--log")
    assert "00:00:00.000000  hub      calls set_faults(states_late=True)" in result.stdout
    assert re.search(r"^00:00:0\d\.\d{6}  \w+ +opens connection 1$", result.stdout, re.MULTILINE)
    assert (
        run("--seed", "1", "--minutes", "1", "--clients", "2", "--log").stdout.splitlines()[:-1]
        == (result.stdout.splitlines()[:-1])
    )


@pytest.mark.long
def test_several_processes_do_the_same() -> None:
    alone, together = (
        subprocess.run(
            [*PRESENCE, "--seeds", "0-3", "--minutes", "2", "--clients", "2", "--jobs", jobs],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
        for jobs in ("1", "2")
    )
    assert re.sub(r"in .* a second\)", "", alone) == re.sub(r"in .* a second\)", "", together)


def test_a_violation_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(seed: int, **options: object) -> None:
        raise SimViolation(
            "a law", "ada", "why", now=1.5, replay=f"presence sim --seed {seed}", tail=["the end"]
        )

    monkeypatch.setattr(sim, "play_seed", broken)
    result = run("--seeds", "7-9")
    assert result.exit_code == 1
    assert result.stdout.startswith(
        "a law (ada, at 1.500000 s): why\n"
        "  to see it again: presence sim --seed 7\n"
        "  the end of the log:\n"
        "    the end\n"
    )
    assert summary(result)[:2] == ("0", "3")


def test_the_default_is_a_hundred_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def play(seed: int, **options: object) -> sim.SimStats:
        seen.append(seed)
        return sim.SimStats()

    monkeypatch.setattr(sim, "play_seed", play)
    assert run().exit_code == 0
    assert seen == [*range(100)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--seeds 5", "'5' is not a range such as 0-99"),
        ("--seeds 9-5", "'9-5' is not a range such as 0-99"),
        ("--seed 1 --seeds 1-2", "either --seed or --seeds"),
        ("--minutes 1 --hours 1", "either --minutes or --hours"),
        ("--log --jobs 2", "--log works with one process only"),
        ("--faults some", "'some' is not one of"),
        ("--minutes 0", "0"),
        ("--minutes nan", "'nan' is not a number"),
        ("--hours inf", "inf is not in the range"),
        (f"--seeds 0-{'9' * 20}", "is not a range such as 0-99"),
    ],
)
def test_usage(options: str, message: str) -> None:
    result = run(*options.split())
    assert result.exit_code == 2
    assert message in result.stderr


ENDLESS = ["--seeds", "0-100000", "--minutes", "1", "--clients", "1"]


def interrupted(*options: str) -> tuple[str, str]:
    """What is printed when a Ctrl-C comes after the first line, or when the workers are there."""
    with subprocess.Popen(
        [*PRESENCE, *ENDLESS, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            if "--log" in options:
                assert process.stdout.readline()
            else:
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
                while len(children.read_text().split()) < 3:  # two, and the resource tracker
                    time.sleep(0.05)
                time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=60)
            assert process.returncode == 130
            return stdout, stderr
        finally:
            process.kill()


@pytest.mark.long
def test_ctrl_c_stops_it_with_a_summary() -> None:
    stdout, stderr = interrupted("--log")
    assert SUMMARY.search(stdout)
    assert stderr.strip() == ""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="sees in /proc when the workers are there")
def test_ctrl_c_stops_the_workers_too() -> None:
    stdout, stderr = interrupted("--jobs", "2")
    assert SUMMARY.fullmatch(stdout)
    assert stderr.strip() == ""
