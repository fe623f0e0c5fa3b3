"""Every Python snippet of the README and the docs runs, as it is, against a hub; what is named is there."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from presence_adapters.server import HubServer

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

SHOWS = {
    "README.md 1": "Connected(online_count=1",
    "README.md 2": "[('alice', 'joined')]",
    "README.md 3": None,  # it asserts for itself, and ends
    "docs/howto/browsers.md 1": "pages of https://chat.example https://*.staging.example may connect",
    "docs/howto/from-jarvis.md 1": "on the old wire, Ann sees Bob on the new one",
    "docs/howto/from-realtime.md 1": "here is happy alice\nheard hello",
    "docs/howto/from-realtime.md 2": "here is happy alice\nheard hello",
    "docs/howto/many-channels.md 1": "room:11 [('alice', 'joined')]",
    "docs/howto/many-channels.md 2": "12 rooms",
    "docs/howto/phoenix.md 1": "here are ['alice']",
    "docs/howto/phoenix.md 2": "joined room:lobby",
    "docs/howto/phoenix.md 3": "the reply is {}",
    "docs/howto/phoenix.md 4": "joined room:lobby",
    "docs/howto/reconnect-policy.md 1": "in the room",
    "docs/howto/reconnect-policy.md 2": "given up: ",
    "docs/howto/supabase.md 1": "1 online",
    "docs/howto/supabase.md 2": "heard {'text': 'hello'}",
    "docs/howto/supabase.md 3": "joined realtime:news",
    "docs/howto/tokens.md 1": "in the room",
    "docs/howto/tokens.md 2": "joined realtime:lobby",
    "docs/howto/tokens.md 3": "InvalidToken: sign in first\nnow we are in realtime:lobby",
    "docs/explanation/simulation.md 1": "all is well again after",
    "docs/explanation/simulation.md 2": "greeted twice, in minute",
    "docs/howto/report-a-bug.md 1": "Connected(online_count=1",
    "docs/howto/report-a-bug.md 2": "PresenceClient is the same",
    "docs/howto/report-a-bug.md 3": '{"end":null}',
    "docs/reference/logging.md 1": "DEBUG:presence_adapters.socket_driver:connection 1: ended: eof",
    "docs/reference/configuration.md 1": "Connected(online_count=1",
}
"""What each snippet prints. Those that go on for ever are interrupted once they have."""

SHOWN_IN_FULL = {ROOT / "docs" / "reference" / "logging.md"}
"""Pages that show all that their snippet prints."""


TOUCHY = ("PRESENCE_", "XDG_", "COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_")
"""The beginnings of variables that change what our programs do or print."""


def environment(home: Path) -> dict[str, str]:
    """For programs of the pages: a home of their own, and nothing of the terminal that we run in."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(TOUCHY)}
    return {**others, "HOME": str(home), "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}


def blocks(page: Path, language: str) -> list[str]:
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [dedent(block) for block in found]


HOWTO = ROOT / "docs" / "howto"
OTHERS = {
    *(HOWTO / "embed").glob("*.md"),
    HOWTO / "test-your-app.md",
    HOWTO / "fuzz-your-app.md",
    ROOT / "docs" / "tutorial.md",
}
"""test_embedding_guides.py, test_testing_guide.py, test_fuzzing_guide.py and test_tutorial.py run these."""

SNIPPETS = [
    pytest.param(
        page,
        code,
        SHOWS.get(name, "no expectation is written down"),
        id=name,
        marks=() if page.name == "README.md" else pytest.mark.long,  # a process for each
    )
    for page in PAGES
    if page not in OTHERS
    for number, code in enumerate(blocks(page, "python"), 1)
    for name in [f"{page.relative_to(ROOT)} {number}"]
]


@pytest.mark.parametrize(("page", "code", "shows"), SNIPPETS)
def test_snippet(page: Path, code: str, shows: str | None, tmp_path: Path) -> None:
    async def run() -> None:
        async with HubServer() as server:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-W",
                "error",
                "-c",
                code.replace("127.0.0.1:4000", f"127.0.0.1:{server.port}"),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=tmp_path,
                env=environment(tmp_path),
            )
            assert process.stdout is not None
            assert process.stderr is not None
            printed = ""
            async with asyncio.timeout(20):
                if shows is not None:
                    while shows not in printed:
                        line = await process.stdout.readline()
                        assert line, f"it ended without {shows!r}: {printed}{await process.stderr.read()!r}"
                        printed += line.decode()
                    if "async for" in code and "break" not in code:
                        process.send_signal(signal.SIGINT)
                errors = (await process.stderr.read()).decode()
                await process.wait()
            assert process.returncode == 0 or errors.rstrip().endswith("KeyboardInterrupt"), errors
            if page in SHOWN_IN_FULL:
                (text,) = blocks(page, "text")
                assert printed.replace(str(server.port), "4000") == text

    asyncio.run(run())


def test_the_commands_of_the_readme_exist() -> None:
    text = "\n".join(blocks(ROOT / "README.md", "console"))
    targets = re.findall(r"^\$ make (\w+)", text, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert targets[:2] == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_inside_the_project_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CHANGELOG.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"
