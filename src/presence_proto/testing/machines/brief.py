"""`BriefMachine`: a state machine that prints short programs."""

from __future__ import annotations

from typing import Any

from hypothesis.stateful import RuleBasedStateMachine


class BriefMachine(RuleBasedStateMachine):
    """State machine that checks invariants after every step, but prints only the failing invariant."""

    def check_invariants(self, settings: Any, output: Any, *more: Any) -> None:
        """Check the invariants as `RuleBasedStateMachine` does. Passing invariants are not printed."""
        checked: list[str] = []
        try:
            super().check_invariants(settings, checked.append, *more)
        except BaseException:
            for line in checked[-1:]:
                output(line)
            raise
