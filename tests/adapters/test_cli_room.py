"""The commands that visit a room, on real sockets."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from adapters.command_line import PRESENCE, ROOM, Desk, lines, presence
from adapters.hub_thread import until
from presence_adapters.cli.exits import Failure
from presence_adapters.cli.one_shot import confirmed, run
from presence_adapters.server import HubThread
from presence_proto import (
    ActivityChanged,
    ChatMessage,
    CommandFailed,
    GameInvite,
    HubConfig,
    Poked,
    UserOffline,
    UserOnline,
    UserStatus,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from presence_adapters.blocking import PresenceClient


@pytest.fixture(scope="module")
def hub() -> Iterator[HubThread]:
    with HubThread() as hub:
        yield hub


@pytest.fixture
def desk(hub: HubThread, tmp_path: Path) -> Desk:
    until(lambda: not hub.online(ROOM))
    return Desk(hub, tmp_path)


def heard(client: PresenceClient, kind: type[Any]) -> Any:
    """The next event of a kind."""
    return next(event for event in client.events(timeout=5) if isinstance(event, kind))


def all_heard(client: PresenceClient) -> list[Any]:
    return list(client.events(timeout=0.3))


# ---------------------------------------------------------------------------------------------- online


def test_who_is_online(desk: Desk) -> None:
    with desk.user("bob-1", "Bob") as bob, desk.user("cy-1", "Cy"):
        bob.update_activity(UserStatus.IN_GAME, "Playing Snake")
        until(lambda: desk.hub.online(ROOM)["bob-1"][0]["status"] == "in_game")
        found = lines(desk("online", "--json"))
        assert [
            (user["user_id"], user["display_name"], user["status"], user["activity"], user["devices"])
            for user in found
        ] == [("bob-1", "Bob", "in_game", "Playing Snake", 1), ("cy-1", "Cy", "online", None, 1)]
        table = desk("online")
        assert table.exit_code == 0
        header, first, second = table.stdout.splitlines()
        assert header.split() == ["who", "status", "activity", "since", "devices", "id"]
        assert re.fullmatch(r"Bob +▶ in game +Playing Snake +\d\d:\d\d +1 +bob-1 *", first)
        assert re.fullmatch(r"Cy +● online +\d\d:\d\d +1 +cy-1 *", second)


def test_long_lines_are_not_cut_off_where_there_is_no_terminal(desk: Desk) -> None:
    with desk.user("b" * 200, "Bob"):
        assert "b" * 200 in desk("online").stdout


def test_an_empty_room(desk: Desk) -> None:
    assert desk("online").stdout == "The room is empty.\n"
    assert lines(desk("online", "--json")) == []


def test_a_hostile_name_is_only_text(desk: Desk) -> None:
    with desk.user("evil", "\x1b[2J\nAda"):
        assert desk("online").stdout.splitlines()[1].startswith("\N{REPLACEMENT CHARACTER}[2J")
        assert desk("online", "--json").stdout.count("\n") == 1
        assert "\x1b" not in desk("poke", "evil").output


# ---------------------------------------------------------------------------------------------- messages


def test_a_poke(desk: Desk) -> None:
    with desk.user("bob-1", "Bob") as bob, desk.user("cy-1", "Cy") as cy:
        assert desk("poke", "bob").stdout == "Poked Bob.\n"
        assert lines(desk("poke", "bob-1", "--json")) == [{"user_id": "bob-1", "display_name": "Bob"}]
        poked = heard(bob, Poked)
        assert (poked.user_id, poked.display_name) == (desk.user_id, "Ann")
        assert not any(isinstance(event, Poked) for event in all_heard(cy))


@pytest.mark.parametrize("arguments", [("poke", "Zoe"), ("poke", "bob")])
def test_a_poke_for_nobody_in_particular(desk: Desk, arguments: tuple[str, ...]) -> None:
    with desk.user("bob-1", "Bob") as bob, desk.user("bob-2", "Bob"):
        result = desk(*arguments)
        assert result.exit_code == 5
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith("Error: ")
        assert "Bob (bob-1), Bob (bob-2)" in line
        assert not any(isinstance(event, Poked) for event in all_heard(bob))


def test_an_invite(desk: Desk) -> None:
    with desk.user("bob-1", "Bob") as bob, desk.user("cy-1", "Cy"):
        assert desk("invite", "Chess", "--code", "42").stdout == "Invited to Chess: Bob, Cy.\n"
        invite = heard(bob, GameInvite)
        assert (invite.display_name, invite.game, invite.code) == ("Ann", "Chess", "42")
        assert lines(desk("invite", "Go", "--json")) == [
            {"game": "Go", "code": None, "sent_to": ["Bob", "Cy"]}
        ]
    until(lambda: not desk.hub.online(ROOM))
    assert desk("invite", "Go").stdout == "Invited to Go: nobody: the room is empty.\n"


def test_a_chat(desk: Desk) -> None:
    with desk.user("bob-1", "Bob") as bob:
        assert desk("chat", "lobby", "hello there").stdout == "Sent to lobby.\n"
        message = heard(bob, ChatMessage)
        assert (message.display_name, message.channel, message.content) == ("Ann", "lobby", "hello there")
        assert message.timestamp is not None
        assert lines(desk("chat", "lobby", "x", "--json")) == [{"channel": "lobby", "content": "x"}]


def test_an_empty_text_makes_no_sense(desk: Desk) -> None:
    result = desk("chat", "lobby", "")
    assert (result.exit_code, result.stderr) == (2, "Error: content must be a non-empty string, not ''\n")


class Refused:
    """A client whose command has failed already."""

    pending_commands: frozenset[int] = frozenset()

    async def disconnect(self) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[Any]:
        yield CommandFailed(7, "send_poke", "another one")
        yield CommandFailed(8, "send_chat", "the server said error: not\x1b[2J today")


def test_what_the_server_refuses_has_failed() -> None:
    client: Any = Refused()
    with pytest.raises(Failure, match=r"^send_chat failed: the server said error: not.\[2J today$"):
        run(confirmed(client, 8))
    assert run(confirmed(client, 9)) is None


@pytest.mark.long
def test_why_it_was_not_confirmed(tmp_path: Path) -> None:
    with HubThread() as hub:
        desk = Desk(hub, tmp_path)
        hub.limit_rate(broadcasts=0)
        result = desk("chat", "lobby", "hi", "--timeout", "1.5")
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: the server did not confirm the command within 1.5 s: \S.*\n", result.stderr)


@pytest.mark.long
def test_what_the_server_does_not_answer_in_time_has_failed(tmp_path: Path) -> None:
    with HubThread() as hub:
        desk = Desk(hub, tmp_path)
        hub.delay(1.0)  # each way in takes two answers, and the chat takes one
        result = desk("chat", "lobby", "hi", "--timeout", "2.8")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: the server did not confirm the command within 2.8 s\n",
    )


# ---------------------------------------------------------------------------------------------- the way in


def test_no_server_is_one_line(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    began = time.monotonic()
    result = desk("online", "--server-url", f"ws://127.0.0.1:{port}", "--timeout", "0.5")
    assert time.monotonic() - began < 2
    assert result.exit_code == 4
    reason = f"cannot connect to 127.0.0.1:{port} (connection refused)"
    assert result.stderr == f"Error: cannot join the room within 0.5 s: {reason}\n"


def test_a_server_that_is_frozen(tmp_path: Path) -> None:
    with HubThread() as hub:
        desk = Desk(hub, tmp_path)
        hub.freeze()
        result = desk("online", "--timeout", "0.3")
    assert result.exit_code == 4
    assert result.stderr == "Error: cannot join the room within 0.3 s: the server does not answer\n"


def test_a_wrong_key_is_refused_at_once(desk: Desk) -> None:
    began = time.monotonic()
    result = presence("online", **{**desk.env, "PRESENCE_API_KEY": "wrong-key-1234"})
    assert time.monotonic() - began < 3
    assert result.exit_code == 4
    assert re.fullmatch(r"Error: cannot join the room: the server refused .* HTTP 401.*\n", result.stderr)
    assert "wrong-key" not in result.output


@pytest.mark.long
def test_a_join_that_is_refused_says_why(tmp_path: Path) -> None:
    config = HubConfig(authorize=lambda topic, token: "members only")
    with HubThread(config) as hub:
        result = Desk(hub, tmp_path)("online", "--timeout", "1.5")
    assert result.exit_code == 4
    assert "the server refused us" in result.stderr
    assert "members only" in result.stderr


# ---------------------------------------------------------------------------------------------- settings


def test_wrong_settings_are_lines(desk: Desk) -> None:
    result = desk("online", "--jitter", "lots", "--protocol", "morse")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert sorted(line.partition(" must")[0] for line in result.stderr.splitlines()) == [
        "Error: --jitter: jitter",
        "Error: --protocol: protocol",
    ]


def test_no_server_is_set(desk: Desk) -> None:
    result = presence("online", **{**desk.env, "PRESENCE_SERVER_URL": ""})
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: no server: set server_url in ")


def test_warnings_and_flags(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text('[presence]\nserver_url = "ws://127.0.0.1:1"\n')
    env = {**desk.env, "PRESENCE_SERVER_URL": "", "PRESENCE_PROTOCOLE": "x"}
    result = presence("online", "--config", str(file), "--server-url", desk.hub.url, **env)
    assert (result.exit_code, result.stdout) == (0, "The room is empty.\n")
    assert result.stderr == "Warning: PRESENCE_PROTOCOLE: no such setting, did you mean PRESENCE_PROTOCOL?\n"


def test_presence_can_be_switched_off(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "off.toml"
    file.write_text("[presence]\nenabled = false\n")
    for command in ("online", "watch", "status away", "poke x", "invite x", "chat x y"):
        result = desk(*command.split(), "--config", str(file))
        assert result.exit_code == 3
        assert result.stderr == (
            f"Error: presence is switched off: {file}:2 says enabled = false. "
            "--enabled true overrides it for this run\n"
        )
    assert desk("whoami", "--config", str(file)).exit_code == 0
    assert desk("online", "--config", str(file), "--enabled", "true").exit_code == 0


@pytest.mark.parametrize("secret", ["api-key", "access-token", "access-token-command", "params", "headers"])
def test_a_secret_is_no_flag(desk: Desk, secret: str) -> None:
    result = desk("online", f"--{secret}=abcdefgh1234")
    assert result.exit_code == 2
    assert f"--{secret}" in result.stderr
    assert "abcdefgh1234" not in result.output


def test_the_token_of_a_command_gets_us_in(tmp_path: Path) -> None:
    config = HubConfig(authorize=lambda topic, token: None if token == "tkn-1234" else "no token")
    with HubThread(config) as hub:
        desk = Desk(hub, tmp_path, PRESENCE_ACCESS_TOKEN_COMMAND="echo tkn-1234")
        assert desk("online").stdout == "The room is empty.\n"


# ---------------------------------------------------------------------------------------------- whoami


def test_who_we_are(desk: Desk) -> None:
    file = desk.env["PRESENCE_IDENTITY_FILE"]
    assert desk.identity == {
        "user_id": desk.user_id,
        "display_name": "Ann",
        "name_chosen": True,
        "identity_file": file,
    }
    assert desk("whoami").stdout == f"Ann ({desk.user_id})\nStored in {file}.\n"
    assert desk("whoami", "--name", " Ann Li ").stdout.startswith(f"Ann Li ({desk.user_id})\n")
    said = desk("whoami", "--display-name", "Boss").stdout
    assert said == f"Boss ({desk.user_id})\nThe name comes from --display-name; {file} has Ann Li.\n"


def test_a_new_identity(tmp_path: Path) -> None:
    env = {"PRESENCE_IDENTITY_FILE": str(tmp_path / "new.json"), "XDG_CONFIG_HOME": str(tmp_path)}
    assert "The name is the default one: --name changes it." in presence("whoami", **env).stdout


@pytest.mark.parametrize("name", ["", " ", "a\x1bb"])
def test_a_name_that_cannot_be_shown(desk: Desk, name: str) -> None:
    result = desk("whoami", "--name", name)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: a display name must ")
    assert "Ann" in desk("whoami").stdout


def test_a_damaged_identity_is_one_line(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "identity.json").write_text("{")
    for command in ("whoami", "online", "watch"):
        result = desk(command)
        assert result.exit_code == 2
        assert re.fullmatch(r"Error: .*identity\.json: the identity is damaged, .*\n", result.stderr)


# ---------------------------------------------------------------------------------------------- two devices


@contextmanager
def process(desk: Desk, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command in a process of its own."""
    with subprocess.Popen(
        [*PRESENCE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **desk.env, "PYTHONIOENCODING": "utf-8"},
    ) as one:
        try:
            yield one
        finally:
            if one.poll() is None:
                one.kill()


def line(one: subprocess.Popen[str]) -> str:
    assert one.stdout is not None
    return one.stdout.readline()


@pytest.mark.long
def test_visits_change_nothing_of_what_others_see_of_a_user_who_is_online(desk: Desk) -> None:
    with desk.user("bob-1", "Bob") as bob:
        with process(desk, "status", "in_game", "Snake", "--json") as status:
            assert json.loads(line(status)) == {
                "user_id": desk.user_id,
                "status": "in_game",
                "activity": "Snake",
            }
            until(lambda: any(user.user_id == desk.user_id for user in bob.online_users))
            all_heard(bob)
            with process(desk, "poke", "bob") as poke:
                assert line(poke) == "Poked Bob.\n"
            for arguments in (("online",), ("invite", "Go"), ("chat", "lobby", "hi")):
                assert desk(*arguments).exit_code == 0
            shown = next(user for user in bob.online_users if user.user_id == desk.user_id)
            assert lines(desk("online", "--json"))[0] == {
                "user_id": desk.user_id,
                "display_name": "Ann",
                "status": "in_game",
                "activity": "Snake",
                "online_at": shown.online_at,
                "devices": 1,
            }
            assert {type(event) for event in all_heard(bob)} == {Poked, GameInvite, ChatMessage}
            status.send_signal(signal.SIGTERM)
            assert status.wait(10) == 0
        assert isinstance(heard(bob, UserOffline).user.user_id, str)


def test_who_is_not_online_is_not_seen_to_visit(desk: Desk) -> None:
    with desk.user("bob-1", "Bob") as bob:
        all_heard(bob)
        assert desk("poke", "Bob").exit_code == 0
        assert {type(event) for event in all_heard(bob)} == {Poked}


@pytest.mark.long
def test_the_latest_status_is_shown_and_the_other_one_again_afterwards(desk: Desk) -> None:
    with desk.user("bob-1", "Bob") as bob, process(desk, "status", "in_game", "Snake") as first:
        assert line(first) == "You are in game (Snake). Ctrl-C ends it.\n"
        assert heard(bob, UserOnline).user.status is UserStatus.IN_GAME
        with process(desk, "status", "away") as second:
            assert line(second) == "You are away. Ctrl-C ends it.\n"
            assert heard(bob, ActivityChanged).user.status is UserStatus.AWAY
            assert lines(desk("online", "--json"))[0]["devices"] == 2
            second.send_signal(signal.SIGINT)
            assert second.wait(10) == 0
        shown = heard(bob, ActivityChanged).user
        assert (shown.status, shown.activity) == (UserStatus.IN_GAME, "Snake")
        first.send_signal(signal.SIGINT)
        assert first.wait(10) == 0
        assert first.stderr is not None
        assert first.stderr.read() == ""


# ---------------------------------------------------------------------------------------------- status


@pytest.mark.long
def test_a_status_for_a_time(desk: Desk) -> None:
    result = desk("status", "AWAY", "--seconds", "1")
    assert (result.exit_code, result.stdout) == (0, "You are away. Ctrl-C ends it.\n")


def test_what_we_look_at_is_since_we_came_and_not_since_we_look(desk: Desk) -> None:
    with desk.user(desk.user_id, "Ann") as ann:
        (seen,) = lines(desk("online", "--json"))
        assert seen["online_at"] == ann.online_users[0].online_at


def test_an_empty_activity_is_none(desk: Desk) -> None:
    (said,) = lines(desk("status", "away", "", "--seconds", "1", "--json"))
    assert said["activity"] is None


@pytest.mark.parametrize("option", [["online", "--timeout"], ["status", "away", "--seconds"]])
@pytest.mark.parametrize("text", ["nan", "inf", "0", "soon"])
def test_a_time_that_is_none(desk: Desk, option: list[str], text: str) -> None:
    result = desk(*option, text)
    assert result.exit_code == 2
    assert option[-1] in result.stderr


def test_a_status_that_does_not_exist(desk: Desk) -> None:
    result = desk("status", "busy")
    assert result.exit_code == 2
    assert "'do_not_disturb'" in result.stderr


def test_a_status_with_no_way_in(desk: Desk) -> None:
    result = desk("status", "away", "--server-url", "ws://127.0.0.1:1", "--timeout", "0.2")
    assert result.exit_code == 4
    assert "connection refused" in result.stderr


@pytest.mark.long
@pytest.mark.parametrize("as_json", [False, True])
def test_a_status_survives_losses(tmp_path: Path, as_json: bool) -> None:
    with HubThread() as hub:
        desk = Desk(hub, tmp_path)
        cutting = threading.Thread(target=lambda: (hub.wait_online(ROOM, 1), time.sleep(0.1), hub.cut_all()))
        cutting.start()
        result = desk("status", "away", "--seconds", "2", *(["--json"] if as_json else []))
        cutting.join()
    assert result.exit_code == 0
    said = result.stdout.splitlines()[1:]
    if as_json:
        assert [json.loads(one)["event"] for one in said] == ["disconnected", "connected"]
    else:
        assert [one.split(",")[0] for one in said] == ["Disconnected", "Connected again"]


def test_a_status_ends_when_the_server_lets_us_in_no_more(tmp_path: Path) -> None:
    with HubThread() as hub:
        desk = Desk(hub, tmp_path)

        def refuse() -> None:
            hub.wait_online(ROOM, 1)
            hub.refuse_handshakes(status=403)
            hub.cut_all()

        refusing = threading.Thread(target=refuse)
        refusing.start()
        result = desk("status", "away")
        refusing.join()
    assert result.exit_code == 4
    assert "HTTP 403" in result.stderr


def test_ctrl_c_ends_a_visit_that_waits(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with process(desk, "online", "--server-url", f"ws://127.0.0.1:{port}") as one:
            silent.accept()[0].close()
            one.send_signal(signal.SIGINT)
            assert one.wait(10) == 130
            assert one.communicate() == ("", "")


# ---------------------------------------------------------------------------------------------- Jarvis


@pytest.mark.long
def test_the_jarvis_protocol(tmp_path: Path) -> None:
    with HubThread(HubConfig(presence_window=0.0)) as hub:
        desk = Desk(hub, tmp_path, PRESENCE_SERVER_URL=hub.jarvis_url, PRESENCE_PROTOCOL="jarvis")
        with desk.user("bob-1", "Bob", server_url=hub.jarvis_url, protocol="jarvis") as bob:
            assert desk("poke", "Bob").stdout == "Poked Bob.\n"
            assert heard(bob, Poked).display_name == "Ann"
            assert desk("invite", "Go").stdout == "Invited to Go: Bob.\n"
            assert [user["user_id"] for user in lines(desk("online", "--json"))] == ["bob-1"]
            refused = desk("chat", "lobby", "hi")
            assert refused.exit_code == 2
            assert refused.stderr == "Error: send_chat: the Jarvis JSON protocol has no chat\n"
            with process(desk, "status", "in_game", "Snake") as status:
                assert line(status) == "You are in game (Snake). Ctrl-C ends it.\n"
                assert heard(bob, ActivityChanged).user.activity == "Snake"
                assert desk("poke", "Bob").exit_code == 0
                assert not any(isinstance(event, (ActivityChanged, UserOffline)) for event in all_heard(bob))
                status.send_signal(signal.SIGINT)
                assert status.wait(10) == 0


def test_help_says_what_the_exit_status_means() -> None:
    text = presence("--help").stdout
    for status in ("0", "1", "2", "3", "4", "5", "130"):
        assert re.search(rf"^ +{status} +[A-Z].*\.$", text, re.MULTILINE)
    assert "_PRESENCE_COMPLETE=bash_source" in text
    for command in ("watch", "online", "status", "poke", "invite", "chat", "whoami"):
        result = presence(command, "-h")
        assert result.exit_code == 0, result.output
