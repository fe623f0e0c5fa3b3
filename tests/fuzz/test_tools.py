"""Scripts, shrinking, the report of a campaign, and the commands."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fuzz import __main__, campaign, script, shrinking, targets
from fuzz.campaign import Row
from stack_depth import stack_depth

RUN = ["run", "hub", "client", "--seed", "3"]
LOG = """\
INFO: Seed: 1
#2\tINITED cov: 8 ft: 8 corp: 1/1b exec/s: 0 rss: 53Mb
#1024\tNEW    cov: 12 ft: 20 corp: 3/9b lim: 4 exec/s: 512 rss: 53Mb L: 3/4 MS: 1 EraseBytes-
#2048\tDONE   cov: 12 ft: 22 corp: 4/12b lim: 4 exec/s: 410 rss: 53Mb
Done 2048 runs in 5 second(s)
"""


@pytest.mark.parametrize("data", [b"", b"a", b"ab", bytes(range(50))])
def test_pieces_are_the_whole(data: bytes) -> None:
    for pieces in [script.single_bytes(data), *(script.chunks(data, seed) for seed in range(256))]:
        assert b"".join(pieces) == data
        assert all(pieces)


def test_records_can_be_read_and_written() -> None:
    body = script.script(script.record("t", 3, "hi"), script.record("c", 0), options=b"")
    assert body == b"t3hi\xff\xfec0"
    assert list(script.records(body, "tc")) == [("t", 3, b"hi"), ("c", 0, b"")]
    assert list(script.records(b"\x01\xff\xfe\xff\xfe!", "tc")) == [("c", 0, b""), ("c", 0, b"")]
    assert script.split(b"abc", 1) == (b"ab", b"c")
    assert script.split(b"a", 2) == (b"", b"a\0")


def test_shrinking_keeps_what_is_needed() -> None:
    def check(data: bytes) -> None:
        assert not (b"x" in data and b"y" in data)
        {}[data.count(b"z") == 9 or None]

    assert shrinking.shrink(b"aaxbb" * 9 + b"ccycc", check) == b"xy"
    assert shrinking.shrink(b"aaa", lambda data: None) is None


def test_the_last_word_of_a_log_counts() -> None:
    assert campaign.progress(LOG) == (2048, 410, 4, 12)
    assert campaign.progress("killed") == (0, 0, 0, 0)


def test_a_log_says_what_failed() -> None:
    found = "Traceback (most recent call last):\n  File ...\nValueError: not so"
    assert campaign.reason(f"{LOG}\n{found}\n\n==7== ERROR: libFuzzer: exited\nMS: 1\n") == found
    assert campaign.reason(LOG) == ""


def test_the_table_stands_in_columns() -> None:
    row = Row("hub", 2048, 410, 4, 12, (Path("crash-1"),), "", False)
    assert campaign.table([row]).splitlines() == [
        "target  executions  exec/s  corpus  edges  crashes",
        "hub           2048     410       4     12        1",
    ]


def test_replay_and_shrink(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(data: bytes) -> None:
        if b"bad" in data:
            raise ValueError

    monkeypatch.setattr(targets.load("hub"), "check", check)
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(b"all is well")
    bad.write_bytes(b"this is bad indeed")
    assert __main__.main(["replay", "hub", str(good)]) == 0
    assert __main__.main(["replay", "hub", str(good), str(bad)]) == 1
    assert __main__.main(["shrink", "hub", str(good)]) == 1
    assert __main__.main(["shrink", "hub", str(bad)]) == 0
    assert (tmp_path / "bad.small").read_bytes() == b"bad"
    assert "bad.small: 3 bytes\nb'bad'" in capsys.readouterr().out


def test_a_campaign_reports_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    crash = tmp_path / "crash-1"
    crash.write_bytes(b"to blame")
    rows = [
        Row("hub", 10, 1, 1, 1, (crash,), "ValueError: not so", False),
        Row("client", 10, 1, 1, 1, (), "", True),
        Row("presence", 10, 1, 1, 1, (), "", False),
    ]
    started: list[object] = []

    def run(names: list[str], folder: Path, **options: object) -> tuple[list[Row], bool]:
        started.append((names, folder, options))
        return rows, True

    monkeypatch.setattr(campaign, "run", run)
    assert __main__.main([*RUN, "--seconds", "5", "--folder", str(tmp_path)]) == 1
    assert started == [(["hub", "client"], tmp_path, {"seconds": 5, "jobs": 1, "seed": 3})]
    printed = capsys.readouterr().out
    assert f"-m fuzz replay hub {crash}\ndG8gYmxhbWU=\nValueError: not so\n" in printed
    assert "client: the fuzzer itself ended too early" in printed
    assert printed.endswith("interrupted\n")
    with pytest.raises(SystemExit):
        __main__.main(["run", "nonsense"])
    assert "there is no target 'nonsense'" in capsys.readouterr().err
    del rows[:2]
    assert __main__.main(["run", "--folder", str(tmp_path)]) == 0
    assert started[-1] == (list(targets.NAMES), tmp_path, {"seconds": 60, "jobs": 1, "seed": 0})


def test_one_input_in_eight_runs_with_little_stack_left(monkeypatch: pytest.MonkeyPatch) -> None:
    depths = []
    monkeypatch.setattr(targets.load("hub"), "check", lambda data: depths.append(stack_depth()))
    check = targets.check("hub")
    for number in range(400):
        check(b"%d" % number)
    deep = [depth for depth in depths if depth > sys.getrecursionlimit() - targets.STACK]
    assert 25 <= len(deep) <= 100
    assert len(set(depths)) == 2
