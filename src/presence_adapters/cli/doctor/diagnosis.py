"""From the facts to the cause and the remedy: a pure function of two tables.

Of the faults of a step the first that fits is the one: so the special ones come first, and the last of each
step fits always.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from presence_adapters.cli.doctor import faults_at_the_server, faults_on_the_way

if TYPE_CHECKING:
    from presence_adapters.cli.doctor.facts import CheckupStep, Facts
    from presence_adapters.cli.doctor.fault import Fault

FAULTS = [*faults_on_the_way.FAULTS, *faults_at_the_server.FAULTS]


@frozen
class Diagnosis:
    """A fault, in the words of this case."""

    fault: Fault
    cause: str
    remedy: str


def diagnose(step: CheckupStep, facts: Facts) -> Diagnosis:
    """What it means that a step did not go well: the first of its faults that fits."""
    fault = next(fault for fault in FAULTS if fault.step is step and fault.fits(facts))
    words = _words(facts)
    return Diagnosis(fault, fault.cause.format_map(words), fault.remedy.format_map(words))


def _words(facts: Facts) -> dict[str, str]:
    return {
        "where": facts.where,
        "host": facts.host,
        "path": facts.path,
        "proxy": facts.proxy or "",
        "channel": facts.channel,
        "timeout": f"{facts.timeout:g}",
        "ref": facts.project or "",
        "key_ref": facts.key.project or "",
        "problems": _without_stop("; ".join(facts.problems)),
        "setting": facts.disabled_by or "",
        "clock": facts.clock_words,
        "status": str(facts.answer.status) if facts.answer else "",
        "redirect": (facts.answer.redirect if facts.answer else None) or "",
        "error": facts.answer.error if facts.answer else "",
        "detail": _without_stop(facts.detail),
        "refusal": _without_stop(facts.refusal or ""),
    }


def _without_stop(words: str) -> str:
    """The words of others, which come to stand at the end of a sentence of ours."""
    return words.rstrip(" .")
