"""The machines: they pass on what is right, and find each planted bug with a short program."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from presence_proto import Hub, HubConfig, RealtimeClient, RealtimeConfig
from presence_proto.testing.machines import ClientMachine, HubMachine, PresenceClientMachine
from presence_proto.testing.machines.presence_client import ROOM
from presence_proto.testing.machines.server_side import ServerMachine
from testing.planted import BUGS, Bug

MACHINES = [ClientMachine, PresenceClientMachine, HubMachine]
BRIEF = settings(max_examples=settings().max_examples // 4, stateful_step_count=25)
FINDING = settings(
    max_examples=max(500, settings().max_examples),
    stateful_step_count=10,
    database=None,
    report_multiple_bugs=False,
    phases=[Phase.generate, Phase.shrink],
)
SEARCHED = [name for name, bug in BUGS.items() if bug.quick or settings().max_examples > 1000]


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_right_passes(machine: Any) -> None:
    run_state_machine_as_test(machine, settings=BRIEF)


class OldForm(ClientMachine):
    """A client that speaks V1."""

    def make_client(self) -> RealtimeClient:
        return RealtimeClient(RealtimeConfig(server_url="ws://host.test", vsn="1.0.0"))


class Windowed(HubMachine):
    """A hub that collects its diffs."""

    presence_window = 0.5

    def make_hub(self) -> Hub:
        return Hub(HubConfig(presence_window=0.5))


@pytest.mark.parametrize("machine", [OldForm, Windowed])
def test_others_can_be_tried(machine: Any) -> None:
    run_state_machine_as_test(machine, settings=BRIEF)


def test_a_machine_needs_a_client() -> None:
    with pytest.raises(NotImplementedError):
        ServerMachine()


# ---------------------------------------------------------------------------------------------- planted bugs


def played(bug: Bug) -> None:
    """Run a program as it was printed, and check the invariants after each step, as Hypothesis does."""
    state = bug.machine()
    names = {"state": state, "ROOM": ROOM}
    for line in textwrap.dedent(bug.program).strip().splitlines():
        exec(line, names)
        for invariant in state.invariants:
            invariant.function(state)


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_fails_its_program_and_nothing_else_does(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug = BUGS[name]
    played(bug)
    bug.plant(monkeypatch)
    with pytest.raises(AssertionError):
        played(bug)


def program_of(machine: type) -> list[str]:
    """The steps of the program that makes a machine fail."""
    with pytest.raises(AssertionError) as failure:
        run_state_machine_as_test(machine, settings=FINDING)
    lines = "\n".join(failure.value.__notes__).splitlines()
    return [line for line in lines if "state." in line and "teardown" not in line]


@pytest.mark.parametrize("name", SEARCHED)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[name].plant(monkeypatch)
    assert 2 <= len(program_of(BUGS[name].machine)) <= 15
