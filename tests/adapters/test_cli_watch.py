"""`presence watch`: in a terminal, in lines, and as its pictures in the documentation."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from docs import captures
from rich.text import Span

from adapters.command_line import PRESENCE, ROOM, Desk
from adapters.hub_thread import until
from adapters.terminal import Terminal
from presence_adapters.asyncio import PresenceClient
from presence_adapters.cli.watch.screen import AROUND, Feed, RoomApp, RosterTable
from presence_adapters.server import HubThread
from presence_proto import Identity, PresenceConfig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from textual.pilot import Pilot

IMAGES = Path(__file__).parents[2] / "docs" / "images"


@pytest.fixture
def hub() -> Iterator[HubThread]:
    with HubThread() as hub:
        yield hub


@pytest.fixture
def desk(hub: HubThread, tmp_path: Path) -> Desk:
    return Desk(hub, tmp_path)


def environment(desk: Desk, **more: str) -> dict[str, str]:
    base = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    return {**base, **desk.env, "PYTHONIOENCODING": "utf-8", "TERM": "xterm-256color", **more}


def presents(hub: HubThread, user_id: str) -> list[dict[str, Any]]:
    return hub.online(ROOM).get(user_id, [])


# ---------------------------------------------------------------------------------------------- a terminal


@contextmanager
def watching(desk: Desk, *arguments: str, size: tuple[int, int] = (80, 24), **env: str) -> Iterator[Terminal]:
    with Terminal([*PRESENCE, "watch", *arguments], environment(desk, **env), size) as terminal:
        yield terminal


@pytest.mark.long
def test_the_live_room_in_a_terminal_through_a_restart(desk: Desk) -> None:
    hub = desk.hub
    with desk.user("bob-1", "Bob", reconnect_delay=0.05) as bob, watching(desk) as terminal:
        terminal.read_until("Bob is here", "the room", "what happens", "connected to 127.", "devices", "Quit")
        assert terminal.output.startswith("\x1b[?1049h")
        terminal.press("s")
        terminal.read_until("do_not_disturb")
        terminal.press("\x1b[B\r")  # the second status
        time.sleep(1.0)
        terminal.press("Making tea\r")
        until(lambda: [meta["activity"] for meta in presents(hub, desk.user_id)] == ["Making tea"])
        assert presents(hub, desk.user_id)[0]["status"] == "idle"
        terminal.resize(200, 60)
        bob.send_chat("lobby", "Where is everybody?")
        terminal.read_until("Where is everybody?")
        hub.stop(orderly=True)
        terminal.read_until("as it was")
        hub.start()
        terminal.read_until("Connected again")
        until(lambda: [meta["activity"] for meta in presents(hub, desk.user_id)] == ["Making tea"])
        terminal.press("q")
        assert terminal.wait() == 0
        assert terminal.output.count("\x1b[?1049h") == terminal.output.count("\x1b[?1049l") == 1
        assert "Traceback" not in terminal.output
        until(lambda: not presents(hub, desk.user_id))


@pytest.mark.long
@pytest.mark.parametrize("way", ["\x03", signal.SIGINT, signal.SIGTERM])
def test_it_gives_the_terminal_back(desk: Desk, way: Any) -> None:
    with watching(desk) as terminal:
        terminal.read_until("connected to")
        if isinstance(way, str):
            terminal.press(way)
        else:
            terminal.kill(way)
        assert terminal.wait() == 0
        assert terminal.output.count("\x1b[?1049l") == 1
        assert "Traceback" not in terminal.output


@pytest.mark.long
def test_a_server_that_lets_nobody_in_is_one_line(desk: Desk) -> None:
    with watching(desk, PRESENCE_API_KEY="wrong-key-1234") as terminal:
        assert terminal.wait() == 4
        tail = terminal.output.rpartition("\x1b[?1049l")[2]
        assert "Error: Error" not in tail
        assert re.search(r"Error: .*HTTP 401", tail)
        assert "wrong-key" not in terminal.output


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "env"), [(("--plain",), {}), (("--debug",), {}), ((), {"TERM": "dumb"})]
)
def test_a_terminal_can_have_lines(desk: Desk, arguments: tuple[str, ...], env: dict[str, str]) -> None:
    with watching(desk, *arguments, **env) as terminal:
        terminal.read_until("Connected, 1 online")
        terminal.press("\x03")
        assert terminal.wait() == 0
        assert "\x1b" not in terminal.output


def test_without_textual_it_says_what_to_install(desk: Desk) -> None:
    code = "import sys; sys.modules['textual'] = None; sys.argv = ['presence', 'watch']"
    command = [sys.executable, "-c", f"{code}; from presence_adapters.cli import main; main()"]
    with Terminal(command, environment(desk), (80, 24)) as terminal:
        assert terminal.wait() == 1
        hint = "Install the command line: pip install 'presence-proto[cli]'"
        assert terminal.output == f"presence: textual is missing. {hint}\r\n"


@pytest.mark.long
def test_a_bug_is_no_success(desk: Desk) -> None:
    code = "import sys; sys.argv = ['presence', 'watch']; from presence_adapters.cli import main"
    code += "; from presence_adapters.cli.watch.screen import Feed; Feed.add = lambda *_: 1 / 0; main()"
    with Terminal([sys.executable, "-c", code], environment(desk), (80, 24)) as terminal:
        assert terminal.wait() == 1
        assert "ZeroDivisionError" in terminal.output
        assert terminal.output.endswith("Error: the live room has failed: this is a bug\r\n")


# ---------------------------------------------------------------------------------------------- lines


@contextmanager
def piped(desk: Desk, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*PRESENCE, "watch", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(desk),
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def test_lines_where_there_is_no_terminal(desk: Desk) -> None:
    with desk.user("bob-1", "Bob") as bob, piped(desk) as process:
        assert process.stdout is not None
        assert re.fullmatch(r"\d\d:\d\d:\d\d  ✔ Connected, 2 online\n", process.stdout.readline())
        assert process.stdout.readline().endswith("  + Bob is here, online\n")
        bob.send_chat("lobby", "a\nb\x1b[2J")
        line = process.stdout.readline()
        assert line.endswith("» Bob in lobby: a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}[2J\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.communicate() == ("", "")


def test_lines_of_json(desk: Desk) -> None:
    with desk.user("bob-1", "Böb") as bob, piped(desk, "--json") as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert first["event"] == "connected"
        assert [user["user_id"] for user in first["data"]["users"]] == [desk.user_id, "bob-1"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
        bob.send_poke(desk.user_id)
        text = process.stdout.readline()
        assert text.isascii()
        assert json.loads(text)["data"] == {"user_id": "bob-1", "display_name": "Böb"}
        process.stdout.close()
        bob.send_poke(desk.user_id)  # there is nobody to read of it
        assert process.wait(10) == 1
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_lines_end_when_the_server_lets_us_in_no_more(desk: Desk) -> None:
    with piped(desk) as process:
        assert process.stdout is not None
        assert "Connected" in process.stdout.readline()
        desk.hub.refuse_handshakes(status=403)
        desk.hub.cut_all()
        assert process.wait(10) == 4
        _, errors = process.communicate()
        assert errors.count("\n") == 1
        assert "HTTP 403" in errors


# ---------------------------------------------------------------------------------------------- the keys


def pilot(
    hub: HubThread, story: Callable[[Pilot[Any], PresenceClient], Awaitable[None]], **options: Any
) -> None:
    """Play with the app, without a terminal."""

    async def play() -> None:
        config = PresenceConfig(server_url=hub.url, api_key=hub.api_key, jitter=0.0, **options)
        async with PresenceClient(Identity("me", "Me"), config) as client:
            app = RoomApp(client, "somewhere", visible=config.visible)

            async def steps(pilot: Pilot[Any]) -> None:
                await shows(pilot, "connected to somewhere")
                await story(pilot, client)
                await pilot.press("q")

            await app.run_async(headless=True, size=(80, 24), auto_pilot=steps)

    asyncio.run(play())


async def shows(pilot: Pilot[Any], words: str) -> None:
    deadline = time.monotonic() + 10
    while words not in (text := captures.screen_text(pilot.app)):
        assert time.monotonic() < deadline, f"no {words!r} in {text!r}"
        await asyncio.sleep(0.02)


@pytest.mark.long
def test_every_key(hub: HubThread, tmp_path: Path) -> None:
    async def story(pilot: Pilot[Any], client: PresenceClient) -> None:
        await shows(pilot, "Bob is here")
        await pilot.press("i", "enter", *"Chess", "enter", "enter")  # a game is needed, a code is not
        await shows(pilot, "You invite everybody to Chess")
        await pilot.press("i", *"Go", "enter", *"42", "enter")
        await pilot.press("c", *"hello", "tab", "backspace", "y", "enter")
        await shows(pilot, "You in lobby: hello")  # "lobb", and "y" again
        await pilot.press("c", *"x", "escape")
        await pilot.press("s", "down", "down", "enter", *"Snake", "enter")
        await shows(pilot, "You are in game (Snake)")
        while len(pilot.app.screen_stack) > 1:  # the form is on its way out
            await pilot.pause()
        await pilot.press("up", "p")
        await shows(pilot, "You poke Bob")
        await shows(pilot, "▶ in game")

    with Desk(hub, tmp_path).user("bob-1", "Bob") as bob:
        pilot(hub, story)
        heard = [repr(event) for event in bob.events(timeout=0.5)]
    for words in (
        "GameInvite(user_id='me', display_name='Me', game='Chess', code=None",
        "GameInvite(user_id='me', display_name='Me', game='Go', code='42'",
        "channel='lobby', content='hello'",
        "activity='Snake'",
        "Poked(user_id='me'",
    ):
        assert any(words in event for event in heard), words
    assert not any("content='x'" in event for event in heard)


@pytest.mark.long
def test_nobody_to_poke_and_nobody_to_be(hub: HubThread) -> None:
    async def story(pilot: Pilot[Any], client: PresenceClient) -> None:
        assert "Me" not in captures.screen_text(pilot.app).partition("what happens")[0]
        await pilot.press("p")
        await pilot.press("s", "enter", "enter")
        await shows(pilot, "! update_activity: this client is invisible")

    pilot(hub, story, visible=False)


@pytest.mark.long
def test_the_countdown_and_the_latency(hub: HubThread) -> None:
    async def story(pilot: Pilot[Any], client: PresenceClient) -> None:
        await shows(pilot, "heartbeat ")
        hub.refuse_handshakes()
        hub.cut_all()
        await shows(pilot, "disconnected next attempt in 1 s")
        await shows(pilot, "HTTP 503")
        hub.heal()
        await shows(pilot, "Connected again")

    pilot(hub, story, heartbeat_interval=0.1, reconnect_delay=1.0)


@pytest.mark.long
def test_it_takes_every_size(hub: HubThread) -> None:
    async def story(pilot: Pilot[Any], client: PresenceClient) -> None:
        for size in ((300, 100), (60, 12), (20, 5), (3, 2)):
            await pilot.resize_terminal(*size)
            await pilot.press("s", "escape", "tab", "up", "down")
        await pilot.resize_terminal(80, 24)
        await shows(pilot, "Connected, 1 online")

    pilot(hub, story)


@pytest.mark.long
def test_a_small_terminal_shows_users_and_events_and_what_is_typed(hub: HubThread, tmp_path: Path) -> None:
    async def story(pilot: Pilot[Any], client: PresenceClient) -> None:
        await shows(pilot, "Bob is here")
        await pilot.resize_terminal(40, 10)
        await shows(pilot, "Bob ● online")
        await shows(pilot, "Me ● online")
        await shows(pilot, "+ Bob is here, online")
        await pilot.press("s", "enter", *"Making tea")
        await shows(pilot, "Making tea")
        await pilot.press("enter")
        await shows(pilot, "You are online (Making tea)")

    with Desk(hub, tmp_path).user("bob-1", "Bob"):
        pilot(hub, story)


@pytest.mark.long
@pytest.mark.parametrize("visible", [True, False])
def test_a_user_who_may_come_back_after_a_restart_is_dimmed(
    hub: HubThread, tmp_path: Path, *, visible: bool
) -> None:
    async def story(pilot: Pilot[Any], client: PresenceClient) -> None:
        await shows(pilot, "Bob is here")
        roster = pilot.app.query_one(RosterTable)

        async def until_dimmed(dimmed: bool) -> None:
            async with asyncio.timeout(30):
                while roster.get_cell("bob-1", "who").spans != ([Span(0, 3, "dim")] if dimmed else []):
                    await pilot.pause()

        await until_dimmed(False)
        await asyncio.to_thread(hub.stop)
        await asyncio.to_thread(leaving.close)
        await asyncio.to_thread(hub.start)
        await until_dimmed(True)
        with Desk(hub, tmp_path).user("bob-1", "Bob"):
            await until_dimmed(False)

    with ExitStack() as leaving:
        leaving.enter_context(Desk(hub, tmp_path).user("bob-1", "Bob"))
        pilot(hub, story, visible=visible, reconnect_delay=0.05)


def test_more_users_than_rows_cost_no_column(hub: HubThread, tmp_path: Path) -> None:
    async def story(pilot: Pilot[Any], client: PresenceClient) -> None:
        await shows(pilot, "U9 is here")
        roster = pilot.app.query_one(RosterTable)
        async with asyncio.timeout(10):
            while not roster.show_vertical_scrollbar:
                await pilot.pause()
        assert roster.scrollbar_size_horizontal == 0
        assert roster.virtual_size.width - roster.scrollable_content_region.width <= AROUND // 2
        await shows(pilot, "devices")

    with ExitStack() as stack:
        for number in range(10):
            stack.enter_context(Desk(hub, tmp_path).user(f"id{number}", f"U{number}"))
        pilot(hub, story)


def test_a_message_without_end_is_cut_off(hub: HubThread, tmp_path: Path) -> None:
    async def story(pilot: Pilot[Any], client: PresenceClient) -> None:
        bob.send_chat("lobby", "y" * 300_000)
        bob.send_chat("lobby", "what?")
        await shows(pilot, "what?")
        feed = pilot.app.query_one(Feed)
        assert len(feed.lines) < 20
        assert feed.virtual_size.width <= feed.scrollable_content_region.width

    with Desk(hub, tmp_path).user("bob-1", "Bob") as bob:
        pilot(hub, story)


# ---------------------------------------------------------------------------------------------- pictures


@pytest.mark.long
def test_the_pictures_say_what_is_so_today(tmp_path: Path) -> None:
    asyncio.run(captures.draw((80, 24), tmp_path))
    drawn = sorted(tmp_path.iterdir())
    assert [path.stem for path in drawn] == [
        f"watch-80x24-{one}" for one in ("back", "connected", "reconnecting")
    ]
    for path in drawn:  # their colours and fonts are up to the versions of libraries
        kept = IMAGES / path.name
        words, kept_words = (captures.text_of(one.read_text("utf-8")) for one in (path, kept))
        assert words == kept_words, "run python docs/captures.py"


def test_there_is_nothing_of_this_machine_in_them() -> None:
    pictures = sorted(IMAGES.glob("watch-*.svg"))
    assert len(pictures) == 6
    for picture in pictures:
        text = picture.read_text("utf-8")
        assert str(Path.home()) not in text
        assert "127.0.0.1" not in text
