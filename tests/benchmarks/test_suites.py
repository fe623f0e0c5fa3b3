"""Every benchmark runs, in a very small form, and notices who does its work wrong."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from attrs import evolve
from benchmarks.chart import write_chart
from benchmarks.contest import WRONG_ROSTER, Entry, Result
from benchmarks.crowd import Crowd, Member
from benchmarks.plain_client import Roster, all_see_all, user_id
from benchmarks.plan import Plan
from benchmarks.report import write_json
from benchmarks.suites import SUITES
from benchmarks.table import Row, Table, ranked, rows_of
from click.testing import CliRunner

from benchmarks import __main__ as command
from benchmarks import (
    chart,
    client_suites,
    commands,
    contest,
    fanout,
    imports,
    memory,
    processes,
    storm,
    wave,
    weigh,
    workloads,
)
from node_tools import require_node

pytestmark = pytest.mark.long

LIAR = (sys.executable, str(Path(__file__).parent / "liar.py"))
NOWHERE = ("there-is-no-such-program",)
BROKEN = (sys.executable, "-c", "raise ImportError('no peer here')")


def plan(share: float = 0.01) -> Plan:
    return Plan(seed=7, rounds=1, share=share, progress=lambda _: None)


def small() -> workloads.Workload:
    return workloads.steady(7, users=5, diffs=20)


def values(tables: Iterable[Table]) -> dict[str, float | None]:
    return {row.name: row.value for table in tables for row in table.rows}


# ---------------------------------------------------------------------------------------------- clients


def without_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    real = client_suites.contest_of

    def ours_only(pairs: Iterable[tuple[Entry, workloads.Workload]], **more: object) -> list[Result]:
        return real([pair for pair in pairs if pair[0].ours], **more)  # type: ignore[arg-type]

    monkeypatch.setattr(client_suites, "contest_of", ours_only)
    monkeypatch.setattr(
        client_suites,
        "contest",
        lambda workload, entries, **more: ours_only(
            [(one, workload) for one in entries], name=workload.name, **more
        ),
    )


@pytest.mark.parametrize("name", client_suites.CLIENT_SUITES)
def test_clients_of_ours(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_peers(monkeypatch)
    monkeypatch.setattr(client_suites, "SIZES", (10, 1_000))
    [table] = client_suites.CLIENT_SUITES[name](plan())
    assert table.rows
    assert [row.fault for row in table.rows] == [None] * len(table.rows)
    assert all(row.value is not None and row.value > 0 for row in table.rows)


def test_commands_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {"PresenceClient": commands.CHAT["PresenceClient"], "nowhere": NOWHERE, "broken": BROKEN}
    monkeypatch.setattr(commands, "CHAT", ours)
    chat, others = commands.commands(plan())
    assert [row.fault for row in chat.rows] == [
        None,
        "there-is-no-such-program is not installed",
        "ImportError: no peer here",
    ]
    assert [row.fault for row in others.rows] == [None, None]
    assert all(row.value for row in (chat.rows[0], *others.rows))


@pytest.mark.interop
def test_commands_next_to_their_peers() -> None:
    require_node()
    command._install_node_packages(command.Console(stderr=True))
    chat, _ = commands.commands(plan())
    assert {row.name: row.fault for row in chat.rows} == dict.fromkeys(commands.CHAT)


def test_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = {"floor: Python alone": ("-c", "pass"), "broken": ("-c", "raise ImportError('no peer here')")}
    monkeypatch.setattr(imports, "PEERS", peers)
    [table] = imports.imports(plan())
    values = {row.name: row.value for row in table.rows}
    alone = values.pop("floor: Python alone")
    assert values.pop("broken") is None
    assert alone is not None
    assert all(value is not None and value > alone for value in values.values())


@pytest.mark.interop
@pytest.mark.parametrize("name", ["single", "steady", "v1", "deflate", "socket"])
def test_clients_next_to_their_peers(name: str) -> None:
    require_node()
    command._install_node_packages(command.Console(stderr=True))
    [table] = client_suites.CLIENT_SUITES[name](plan())
    assert {row.name: row.fault for row in table.rows} == dict.fromkeys(row.name for row in table.rows)
    assert len(table.rows) >= 3


def test_another_roster_does_not_count() -> None:
    entries = [client_suites.LEAST_TEXT, Entry("liar", LIAR)]
    honest, liar = contest.contest(small(), entries, rounds=2, progress=lambda _: None)
    assert honest.fault is None
    assert len(honest.rounds) == 2
    assert (liar.fault, liar.wrong, liar.rounds) == (WRONG_ROSTER, True, [])


def test_who_is_missing_is_said() -> None:
    entries = [Entry("nowhere", NOWHERE), Entry("broken", BROKEN)]
    nowhere, broken = contest.contest(small(), entries, rounds=1, progress=lambda _: None)
    assert nowhere.fault == "there-is-no-such-program is not installed"
    assert broken.fault == "ImportError: no peer here"
    assert not nowhere.wrong
    assert not broken.wrong


# ---------------------------------------------------------------------------------------------- servers


def fan_out_of(monkeypatch: pytest.MonkeyPatch, *names: str) -> dict[str, float | None]:
    for group in ("SERVERS", "BURSTS"):
        monkeypatch.setattr(fanout, group, [one for one in getattr(fanout, group) if one.name in names])
    tables = fanout.fan_out(plan(0.005))
    assert {row.fault for table in tables for row in table.rows} == {None}
    rates = values(tables)
    assert rates.keys() == set(names)
    return rates


def test_the_fan_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "CLIENTS", (400,))
    rates = fan_out_of(
        monkeypatch,
        "HubServer",
        "HubServer, deflate",
        "websockets.broadcast",
        "websockets, each send awaited, deflate",
        "floor: asyncio transport.write",
        "20 at once: HubServer, a member says them",
    )
    assert all(rates.values())


@pytest.mark.interop
def test_the_fan_out_of_node(monkeypatch: pytest.MonkeyPatch) -> None:
    require_node()
    command._install_node_packages(command.Console(stderr=True))
    monkeypatch.setattr(fanout, "CLIENTS", (400,))
    assert all(fan_out_of(monkeypatch, "ws (node)", "20 at once: ws (node)").values())


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "CLIENTS", (200,))
    monkeypatch.setattr(
        fanout, "SERVERS", [fanout.Server("nowhere", NOWHERE), fanout.Server("broken", BROKEN)]
    )
    monkeypatch.setattr(fanout, "BURSTS", [])
    table, _ = fanout.fan_out(plan())
    assert [row.fault for row in table.rows] == [
        "there-is-no-such-program is not installed",
        "ImportError: no peer here",
    ]


def test_the_crowd_notices_what_is_lost() -> None:
    async def run() -> int:
        crowd = Crowd(deflate=False, join=False)
        member = Member(crowd, 0)
        for number in (0, 1, 3, 4):
            crowd.heard(member, number)
        return crowd._wrong

    assert asyncio.run(run()) == 2


def test_the_wave_and_its_rosters() -> None:
    frames, sizes, costs = wave.wave(plan(0.02))
    assert [row.fault for row in (*frames.rows, *sizes.rows, *costs.rows)] == [None] * (
        len(frames.rows) + len(sizes.rows) + len(costs.rows)
    )
    by_name = values([frames])
    assert max(value or 0 for name, value in by_name.items() if " 0 s, " in name) == 20


def test_a_roster_that_differs_is_seen() -> None:
    one, other = Roster(), Roster()
    one.there = {user_id(0): "a", user_id(1): "b"}
    other.there = dict(one.there)
    assert all_see_all([one, other])
    other.there[user_id(1)] = "c"
    assert not all_see_all([one, other])
    other.there = one.there = {user_id(0): "a"}
    assert not all_see_all([one, other])


def test_the_storm() -> None:
    cost, when = storm.storm(plan(0.06))
    first, half, last = (row.value for row in when.rows)
    assert first is not None
    assert half is not None
    assert last is not None
    assert 0.75 < first <= half <= last < 10
    assert all(row.value for row in cost.rows)
    assert storm.World(7, 20).storm() == storm.World(7, 20).storm()


def test_a_storm_that_somebody_does_not_survive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storm, "PATIENCE", 0.1)
    tables = storm.storm(plan(0.01))
    assert {row.fault for table in tables for row in table.rows} == {WRONG_ROSTER}


# ---------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("kind", weigh.KINDS)
def test_everything_can_be_weighed(kind: str) -> None:
    count = 100 if kind.endswith("-user") else 3
    assert 100 < weigh.weigh(weigh.KINDS[kind](count), count, trace=True) < 400_000
    weigh.tracemalloc.stop()


def test_the_table_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, kinds in (("CLIENTS", {}), ("CONNECTIONS", {"Hub": "hub", "nobody": "x"}), ("USERS", {})):
        monkeypatch.setattr(memory, name, kinds)
    _, table, _ = memory.memory(plan())
    hub, nobody = table.rows
    assert hub.value is not None
    assert 1 < hub.value < 16
    assert hub.note.startswith("(")
    assert nobody.fault == "KeyError: 'x'"


# ---------------------------------------------------------------------------------------------- the report


def test_ratios_and_ranks() -> None:
    fast, slow, ours = Row("fast", 1.0), Row("slow", 4.0), Row("ours", 2.0, ours=True)
    missing = Row("missing", None, fault="not there")
    table = Table("t", "T", "", "µs", ranked([slow, missing, fast, ours]))
    assert [row.name for row in table.rows] == ["ours", "fast", "slow", "missing"]
    assert [table.ratio(row) for row in table.rows] == [1.0, 0.5, 2.0, None]
    table = evolve(table, rows=ranked(table.rows, higher=True), higher=True)
    assert [row.name for row in table.rows] == ["ours", "slow", "fast", "missing"]
    assert [table.ratio(row) for row in table.rows] == [1.0, 0.5, 2.0, None]


def test_the_spread_is_half_the_distance_of_the_quartiles() -> None:
    [row] = rows_of([Result("x", rounds=[8.0, 9.0, 10.0, 11.0, 12.0])])
    assert row.value == 10.0
    assert row.spread == pytest.approx(0.15)


def run(monkeypatch: pytest.MonkeyPatch, suite: Callable[[Plan], list[Table]], *args: str) -> tuple[int, str]:
    monkeypatch.setitem(SUITES, "steady", suite)
    monkeypatch.setattr(command, "_install_node_packages", lambda _: None)
    result = CliRunner().invoke(command.main, ["steady", *args])
    return result.exit_code, result.output + str(result.exception or "")


def table_of(*rows: Row) -> Table:
    return Table("steady", "A title", "What is measured.", "µs per diff", list(rows), "A bias.")


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = [Row("ours", 2.0, 0.1, ours=True), Row("peer", 5.0, 0.02), Row("other", None, fault="not there")]
    kept, chart = tmp_path / "build" / "x.json", tmp_path / "build" / "x.svg"
    code, output = run(
        monkeypatch, lambda _: [table_of(*rows)], "--quick", "--json", str(kept), "--chart", str(chart)
    )
    assert code == 0, output
    for expected in (
        "2.50 x",
        "no number: not there",
        "What is measured. A bias.",
        "processor",
        "load after",
    ):
        assert expected in output, output
    report = json.loads(kept.read_text("utf-8"))
    assert [row["ratio"] for row in report["tables"][0]["rows"]] == [1.0, 2.5, None]
    assert report["machine"]["presence-proto"]
    assert "A title" in chart.read_text("utf-8")


def test_wrong_work_fails_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def suite(plan: Plan) -> list[Table]:
        entries = [client_suites.LEAST_TEXT, Entry("liar", LIAR)]
        return [table_of(*rows_of(contest.contest(small(), entries, rounds=1, progress=plan.progress)))]

    code, output = run(monkeypatch, suite)
    assert code == 1
    assert "somebody did its work wrong" in output
    assert WRONG_ROSTER in output


@pytest.mark.parametrize(
    ("args", "says"), [(["nothing"], "'nothing' is not one of"), (["--rounds", "0"], "0 is not in the range")]
)
def test_errors_of_the_command(args: list[str], says: str) -> None:
    result = CliRunner().invoke(command.main, args)
    assert result.exit_code == 2
    assert says in result.output


def test_many_tables_are_drawn_in_two_columns(tmp_path: Path) -> None:
    many = [evolve(table_of(Row("ours", 2.0, ours=True)), title=f"Title {n}") for n in range(6)]
    write_chart([*many, table_of(Row("nobody", None))], tmp_path / "x.svg")
    drawn = (tmp_path / "x.svg").read_text("utf-8")
    assert all(f"Title {n}" in drawn for n in range(6))


def test_a_child_that_has_ended() -> None:
    child = processes.Child(BROKEN)
    with pytest.raises(RuntimeError, match="ImportError: no peer here"):
        child.ask(load="x")
    with pytest.raises(RuntimeError):
        child.ask(load="x")
    child.close()


def test_a_chart_of_a_report(tmp_path: Path) -> None:
    tables = [
        evolve(table_of(Row("ours", 2.0, 0.1, ours=True), Row("theirs", 4.0)), name=name) for name in "ab"
    ]
    report, image = tmp_path / "bench.json", tmp_path / "bench.svg"
    write_json(tables, {}, report)
    assert [Table.from_dict(table.as_dict()) for table in tables] == tables
    done = CliRunner().invoke(chart.main, [str(report), str(image), "b"])
    assert done.exit_code == 0, done.output
    assert "<svg" in image.read_text("utf-8")
    done = CliRunner().invoke(chart.main, [str(report), str(image), "c"])
    assert done.exit_code == 2
    assert "no table c; there are a, b" in done.output
