"""Every Python snippet of the README and the docs runs, as it is, against a hub; what is named is there."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from presence_adapters.hub_server import HubServer

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

SHOWS = {
    "README.md 1": "Connected(online_count=1",
    "README.md 2": "[('alice', 'joined')]",
    "README.md 3": None,  # it asserts for itself, and ends
    "docs/howto/from-jarvis.md 1": "on the old wire, Ann sees Bob on the new one",
    "docs/howto/from-realtime.md 1": "here is happy alice\nheard hello",
    "docs/howto/from-realtime.md 2": "here is happy alice\nheard hello",
    "docs/howto/many-channels.md 1": "room:11 [('alice', 'joined')]",
    "docs/howto/many-channels.md 2": "12 rooms",
    "docs/howto/phoenix.md 1": "here are ['alice']",
    "docs/howto/phoenix.md 2": "the reply is {}",
    "docs/howto/reconnect-policy.md 1": "in the room",
    "docs/howto/reconnect-policy.md 2": "given up: ",
    "docs/howto/supabase.md 1": "1 online",
    "docs/howto/supabase.md 2": "heard {'text': 'hello'}",
    "docs/howto/tokens.md 1": "in the room",
    "docs/howto/tokens.md 2": "joined realtime:lobby",
    "docs/howto/tokens.md 3": "InvalidToken: sign in first\nnow we are in realtime:lobby",
    "docs/explanation/simulation.md 1": "all is well again after",
    "docs/explanation/simulation.md 2": "greeted twice, in minute",
    "docs/howto/report-a-bug.md 1": "Connected(online_count=1",
    "docs/howto/report-a-bug.md 2": "PresenceClient is the same",
    "docs/howto/report-a-bug.md 3": '{"end":null}',
    "docs/reference/logging.md 1": "DEBUG:presence_adapters.event_log:Connected",
    "docs/reference/configuration.md 1": "Connected(online_count=1",
}
"""What each snippet prints. Those that go on for ever are interrupted once they have."""


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
    pytest.param(code, SHOWS.get(name, "no expectation is written down"), id=name)
    for page in PAGES
    if page not in OTHERS
    for number, code in enumerate(blocks(page, "python"), 1)
    for name in [f"{page.relative_to(ROOT)} {number}"]
]


@pytest.mark.parametrize(("code", "shows"), SNIPPETS)
def test_snippet(code: str, shows: str | None, tmp_path: Path) -> None:
    async def run() -> None:
        async with HubServer() as server:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-u",
                "-W",
                "error",
                "-c",
                code.replace("127.0.0.1:4000", f"127.0.0.1:{server.port}"),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=tmp_path,
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
