"""Every program of the embedding guides runs, as it is, in its own loop, in a room where something happens.

Bob, the program, comes online and says what he does. Carol sees that, comes, changes and pokes him, and he
goes: by himself, in order, without a complaint. The driver of `write-your-own.md` passes `check_driver`.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from adapters.fakes import Certificates, until
from presence_adapters.asyncio import PresenceClient
from presence_adapters.server import HubServer
from presence_adapters.testing import DUTIES, check_driver
from presence_proto import HubConfig, Identity, PresenceConfig, UserOffline, UserOnline, UserStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.long

GUIDES = Path(__file__).parent.parent / "docs" / "howto" / "embed"
PAGES = {page.stem: page.read_text("utf-8") for page in GUIDES.glob("*.md")}
PROGRAMS = {
    name: programs
    for name, page in PAGES.items()
    if (programs := re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
}
OPEN_A_WINDOW = {
    "tk": "import tkinter; tkinter.Tk().destroy()",
    "qt": "from PySide6.QtWidgets import QApplication; QApplication([])",
}
TOPIC = "realtime:jarvis-presence"
PATIENCE = 30.0  # seconds


@contextmanager
def display() -> Iterator[dict[str, str]]:
    """The environment of a program with windows, which nobody sees."""
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "SDL_VIDEODRIVER": "dummy"}
    if (xvfb := shutil.which("Xvfb")) is None:
        yield environment
        return
    reading, writing = os.pipe()
    command = [xvfb, "-displayfd", str(writing), "-screen", "0", "640x480x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL) as server:
        os.close(writing)
        try:
            with open(reading) as told:
                yield {**environment, "DISPLAY": f":{told.readline().strip()}"}
        finally:
            server.terminate()


def require_host(host: str, environment: dict[str, str]) -> None:
    """Skip when this system lacks what the host needs, unless all hosts are required."""
    if host in OPEN_A_WINDOW:
        code = OPEN_A_WINDOW[host]
        trial = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        if trial.returncode != 0:
            reason = f"{host} can open no window here: {trial.stderr.strip().splitlines()[-1]}"
            assert not os.environ.get("PRESENCE_REQUIRE_HOSTS"), reason
            pytest.skip(reason)


@pytest.mark.parametrize(
    ("host", "program"),
    [(host, programs[0]) for host, programs in PROGRAMS.items()]
    + [("write-your-own", PROGRAMS["write-your-own"][1])],
    ids=[*PROGRAMS, "write-your-own-tasks"],
)
def test_program(host: str, program: str) -> None:
    with display() as environment:
        require_host(host, environment)
        asyncio.run(asyncio.wait_for(in_a_room(host, program, environment), PATIENCE))


async def in_a_room(host: str, code: str, environment: dict[str, str]) -> None:
    """Run the program to its end, among others."""
    async with HubServer(HubConfig(presence_window=0)) as server:  # Carol pokes before a window would end
        config = PresenceConfig(server_url=server.url, api_key="any")
        program = await start(code, server.port, environment)
        try:
            assert program.stdout is not None
            if host == "select":
                invitation = (await program.stdout.readline()).decode()
                say_by_datagram("Playing Snake", int(invitation.split()[-1]))
            await until(
                lambda: "Playing Snake" in str(server.hub.online(TOPIC)) or program.returncode is not None,
                PATIENCE,
            )
            assert program.returncode is None, await program.communicate()
            async with PresenceClient(Identity("carol-789", "Carol"), config) as carol:
                await until(lambda: carol.online_count == 2)
                await carol.update_activity(UserStatus.AWAY, "Having tea")
                await carol.send_poke("bob-456")
                async for event in carol:
                    assert not isinstance(event, UserOnline)
                    if isinstance(event, UserOffline):
                        break
            printed, complaints = (text.decode() for text in await program.communicate())
        finally:
            if program.returncode is None:
                program.kill()
                await program.wait()
    for what in ("Connected(", "UserOnline(user=OnlineUser(user_id='carol-789'", "Having tea", "Poked("):
        assert what in printed, f"{printed}{complaints}"
    assert (program.returncode, complaints) == (0, "")


async def start(code: str, port: int, environment: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-W", "error", "-c", code.replace("127.0.0.1:4000", f"127.0.0.1:{port}")),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def say_by_datagram(text: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(text.encode(), ("127.0.0.1", port))


def test_every_guide_is_in_the_index_and_has_one_program() -> None:
    listed = re.findall(r"\]\(([\w-]+)\.md\)", PAGES["index"])
    assert sorted(set(listed)) == sorted(PAGES.keys() - {"index"})
    assert {name: len(programs) for name, programs in PROGRAMS.items()} == {
        name: 3 if name == "write-your-own" else 1 for name in set(listed)
    }


# ------------------------------------------------------------------------ the driver of write-your-own.md


LOOP, TASKS, CHECK = PROGRAMS["write-your-own"]


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("program", [LOOP, TASKS], ids=["loop", "tasks"])
@pytest.mark.parametrize("duty", DUTIES)
def test_duty(duty: str, program: str, tls: bool, certificates: Certificates) -> None:
    namespace: dict[str, Any] = {"__name__": "my_driver"}
    exec(program, namespace)
    trio.run(trio.to_thread.run_sync, int)  # trio keeps a thread for a while: it is there before the check
    check_driver(
        lambda: namespace["Driver"](ssl_context=certificates.client if tls else None),
        server_context=certificates.server if tls else None,
        duties=[duty],
    )


def test_the_page_names_every_duty() -> None:
    listed = re.findall(r"^\| `([a-z ]+)` \|", PAGES["write-your-own"], re.MULTILINE)
    assert listed == list(DUTIES)


@pytest.mark.parametrize("program", [LOOP, TASKS], ids=["loop", "tasks"])
def test_the_drivers_are_short(program: str) -> None:
    classes = program[re.search(r"^class ", program, re.MULTILINE).start() : program.index("if __name__")]  # type: ignore[union-attr]
    code = re.sub(r'^\s*""".*?"""\n', "", classes, flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in code.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(lines) <= 100


def test_the_check_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_driver.py").write_text(LOOP, "utf-8")
    checked: list[dict[str, Any]] = []
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        "presence_adapters.testing.check_driver", lambda make, **kwargs: checked.append(kwargs) or []
    )
    namespace: dict[str, Any] = {}
    exec(CHECK, namespace)
    for name in [name for name in namespace if name.startswith("test_")]:
        namespace[name]()
    monkeypatch.delitem(sys.modules, "my_driver")
    assert [list(kwargs) for kwargs in checked] == [[], ["server_context"]]
