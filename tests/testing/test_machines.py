"""The machines: they pass on what is right, and find each planted bug with a short program."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from examples import times
from presence_proto import Hub, HubConfig, RealtimeClient, RealtimeConfig
from presence_proto.testing.machines import ClientMachine, HubMachine, PresenceClientMachine
from presence_proto.testing.machines.brief import BriefMachine
from presence_proto.testing.machines.client import ROOM, ServerMachine
from presence_proto.testing.scripted_clients import PHOENIX, SUPABASE
from testing.planted import BUGS

MACHINES = [ClientMachine, PresenceClientMachine, HubMachine]
BRIEF = times(1 / 4, stateful_step_count=25)
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


@pytest.mark.long
@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_right_passes_where_bugs_are_looked_for(machine: Any) -> None:
    """Else a bug could be found that is the machine's own."""
    run_state_machine_as_test(machine, settings=FINDING)


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


def check_invariants(state: Any) -> None:
    """Check all of them, as Hypothesis does after each step."""
    for one in state.invariants:
        one.function(state)


def played(machine: Any, program: str) -> Any:
    """Run a program as it was printed, and check the invariants after each step, as Hypothesis does."""
    state = machine()
    names = {"state": state, "ROOM": ROOM}
    for line in textwrap.dedent(program).strip().splitlines():
        exec(line, names)
        check_invariants(state)
    return state


@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.parametrize(("url", "topic"), [(PHOENIX, "room:b"), (SUPABASE, "realtime:a")])
def test_the_hub_may_end_a_topic_with_members(url: str, topic: str, crashes: bool) -> None:
    machine = HubMachine()
    members = [machine.start(url), machine.connect(url)]
    for visitor in members:
        machine.join(visitor, topic, "ann")
    check_invariants(machine)
    assert [len(visitor.held[topic]) for visitor in members] == [int(topic == "room:b")] * 2
    machine.end(topic, crashes)
    check_invariants(machine)
    assert machine.memberships == []
    for visitor in members:
        assert visitor.is_open
        assert visitor.joined == {}
        assert visitor.held == {}


@pytest.mark.parametrize(
    ("url", "topic"), [(PHOENIX, "room:b"), (PHOENIX, "realtime:a"), (SUPABASE, "realtime:a")]
)
def test_a_member_may_leave_and_come_back_at_once(url: str, topic: str) -> None:
    machine = HubMachine()
    first, second = machine.start(url), machine.connect(url)
    for visitor in (first, second):
        # There are no plain topics on Supabase's mount: the machine takes the other one.
        machine.join(visitor, "room:b" if url == SUPABASE else topic, "ann")
    check_invariants(machine)
    machine.leave_and_join((first, topic), "bob")
    check_invariants(machine)
    machine.leave((second, topic))
    check_invariants(machine)
    assert machine.memberships == [(first, topic)]
    assert list(first.joined) == [topic]
    assert second.joined == {}


def test_whatever_others_say_a_presence_client_shows_what_they_track() -> None:
    state = played(
        PresenceClientMachine,
        """
        state.repeat_diff()
        state.start()
        devices_0 = state.device_tracks(key="ann", meta={"display_name": "Ann", "status": "online"}, topic=ROOM)
        state.repeat_diff()
        state.claim(activity="Chess", key="me", status="idle")
        state.claim(activity="Chess", key="ann", status="idle")
        state.act(activity="Go", device=devices_0, status="away")
        """,  # noqa: E501
    )
    ann = state.client.user("ann")
    assert (ann.status, ann.activity) == ("away", "Go")
    state.trouble("closes")
    assert ROOM not in state.server.channels
    state.claim("ann", "idle", "Chess")  # nobody is in the room to hear it
    check_invariants(state)
    assert state.client.user("ann") == ann


def test_a_server_may_deny_what_waits() -> None:
    state = played(
        PresenceClientMachine,
        """
        state.start()
        state.stall()
        state.update_activity(activity="Chess", status="idle")
        state.deny()
        """,
    )
    state.serve()
    check_invariants(state)
    assert not state.server.unanswered


def test_members_of_a_supabase_channel_join_again_shout_and_track() -> None:
    state = played(
        HubMachine,
        f"""
        visitors_0 = state.start(url="{SUPABASE}")
        visitors_1 = state.connect(url="{SUPABASE}")
        state.join(key="ann", topic="realtime:a", visitor=visitors_0)
        state.join(key="bob", topic="realtime:a", visitor=visitors_1)
        state.track(membership=(visitors_0, "realtime:a"), n=1)
        state.shout(membership=(visitors_0, "realtime:a"))
        state.join(key="ann", topic="realtime:a", visitor=visitors_0)
        """,
    )
    ann, bob = state.all
    assert bob.heard == {("realtime:a", 1): 1}
    assert ann.heard == {}
    assert ann.held["realtime:a"] == bob.held["realtime:a"] == {}


class Counter(BriefMachine):
    """Breaks the second of its three invariants."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    @rule()
    def add(self) -> None:
        self.count += 1

    @invariant()
    def a_is_checked_first(self) -> None:
        assert self.count >= 0

    @invariant()
    def b_fails_at_two(self) -> None:
        assert self.count < 2

    @invariant()
    def c_is_checked_last(self) -> None:
        assert self.count >= 0


def test_only_the_invariant_that_fails_is_printed() -> None:
    steps = [step.strip() for step in program_of(Counter)]
    assert steps == ["state.add()", "state.add()", "state.b_fails_at_two()"]


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_fails_its_program_and_nothing_else_does(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug = BUGS[name]
    played(bug.machine, bug.program)
    bug.plant(monkeypatch)
    with pytest.raises(AssertionError):
        played(bug.machine, bug.program)


def program_of(machine: type) -> list[str]:
    """The steps of the program that makes a machine fail."""
    with pytest.raises(AssertionError) as failure:
        run_state_machine_as_test(machine, settings=FINDING)
    lines = "\n".join(failure.value.__notes__).splitlines()
    return [line for line in lines if "state." in line and "teardown" not in line]


@pytest.mark.long
@pytest.mark.parametrize("name", SEARCHED)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[name].plant(monkeypatch)
    assert 2 <= len(program_of(BUGS[name].machine)) <= 15
