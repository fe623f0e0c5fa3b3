"""What a fault is, and the conditions that several of them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from attrs import frozen

from presence_adapters.cli.doctor.facts import CheckupStep, Facts

if TYPE_CHECKING:
    from presence_adapters.cli.doctor.facts import TlsTrouble

Condition: TypeAlias = Callable[[Facts], bool]

OTHER_NETWORK = "Try from another network. If it works there, a firewall or proxy of this one is in the way."


@frozen
class Fault:
    """Something that can be wrong: a name for scripts that never changes, and what to tell people.

    `diagnosis` fills in what stands in braces. `grave`: the check-up ends with it; others are warnings.
    """

    name: str
    step: CheckupStep
    cause: str
    remedy: str
    fits: Condition
    grave: bool = True


def always(facts: Facts) -> bool:
    """The last of the faults of a step fits when no other does."""
    return True


def tls(trouble: TlsTrouble) -> Condition:
    """TLS has failed in this way."""
    return lambda facts: facts.tls_trouble == trouble


def status(*statuses: int) -> Condition:
    """The HTTP answer has one of these."""
    return lambda facts: facts.answer is not None and facts.answer.status in statuses
