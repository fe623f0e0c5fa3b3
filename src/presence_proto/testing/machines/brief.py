"""A machine that prints short programs."""

from __future__ import annotations

from typing import Any

from hypothesis.stateful import RuleBasedStateMachine


class BriefMachine(RuleBasedStateMachine):
    """Invariants are checked after every step; only the one that fails stands in the program."""

    def check_invariants(self, settings: Any, output: Any, *more: Any) -> None:
        """As Hypothesis does it, but for the printing."""
        checked: list[str] = []
        try:
            super().check_invariants(settings, checked.append, *more)
        except BaseException:
            for line in checked[-1:]:
                output(line)
            raise
