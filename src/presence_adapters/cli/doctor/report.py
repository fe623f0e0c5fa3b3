"""What a check-up has found, for people and for scripts."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from presence_adapters.cli.doctor.checkup import Checkup
from presence_adapters.cli.doctor.facts import CheckupStep
from presence_adapters.cli.exits import Exit
from presence_adapters.cli.json_lines import print_json
from presence_adapters.cli.wording import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from presence_adapters.cli.doctor.checkup import Finding
    from presence_adapters.settings import Settings

_STYLES = {"ok": "green", "skipped": "bright_black", "warning": "yellow", "failed": "bold red"}
_REMEDY = " " * 31 + "→ "


async def examine(load: Callable[[], Settings], timeout: float, *, as_lines: bool) -> Exit:
    """Do a check-up, and tell each step as soon as it is done. Returns the exit status."""
    console = Console(highlight=False, soft_wrap=True)
    status = Exit.OK
    async with aclosing(Checkup(load, timeout).findings()) as findings:
        async for finding in findings:
            status = exit_status(finding)
            if as_lines:
                print_json(as_json(finding))
            else:
                console.print(as_text(finding))
    if status is Exit.OK and not as_lines:
        console.print("All is well.")
    return status


def outcome(finding: Finding) -> str:
    """One word for it: `ok`, `skipped`, `warning` or `failed`."""
    if finding.diagnosis is not None:
        return "failed" if finding.diagnosis.fault.grave else "warning"
    return "skipped" if finding.seconds is None else "ok"


def exit_status(finding: Finding) -> Exit:
    """What the last finding makes of the exit status."""
    if outcome(finding) != "failed":
        return Exit.OK
    assert finding.diagnosis is not None
    if finding.step is CheckupStep.CONFIG:
        return Exit.DISABLED if finding.diagnosis.fault.name == "presence-off" else Exit.USAGE
    return Exit.FAILED if finding.step in (CheckupStep.PRESENCE, CheckupStep.HEARTBEAT) else Exit.UNREACHABLE


def as_json(finding: Finding) -> dict[str, Any]:
    """An object for scripts."""
    found: dict[str, Any] = {"step": finding.step, "status": outcome(finding)}
    if finding.diagnosis is not None:
        diagnosis = finding.diagnosis
        found |= {"fault": diagnosis.fault.name, "cause": diagnosis.cause, "remedy": diagnosis.remedy}
    else:
        found["found"] = finding.text
    return found if finding.seconds is None else found | {"seconds": round(finding.seconds, 4)}


def as_text(finding: Finding) -> Text:
    """A line; under one with a fault, what to do."""
    word = outcome(finding)
    took = "" if finding.seconds is None else f"{finding.seconds * 1000:.0f} ms"
    line = Text.assemble((f"{word:<8}", _STYLES[word]), f" {finding.step:<10} {took:>9}  ")
    if finding.diagnosis is None:
        return line.append(printable(finding.text))
    return line.append(
        f"{printable(finding.diagnosis.cause)}\n{_REMEDY}{printable(finding.diagnosis.remedy)}"
    )


def run(load: Callable[[], Settings], timeout: float, *, as_lines: bool) -> Exit:
    """`examine` in a loop of its own."""

    def load_aloud() -> Settings:
        settings = load()
        for warning in settings.warnings:
            click.echo(f"Warning: {warning}", err=True)
        return settings

    try:
        return asyncio.run(examine(load_aloud, timeout, as_lines=as_lines))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
