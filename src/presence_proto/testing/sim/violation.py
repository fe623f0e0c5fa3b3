"""What a world says when a law is broken."""

from __future__ import annotations

from presence_proto.errors import reduce_exception


class SimViolation(AssertionError):  # noqa: N818 - it is a law that is broken, not the world
    """A law was broken in a simulated world.

    The text has all that is needed to see it again: `law` in words, `who` broke it, `details`, the virtual
    time `now` in seconds, how to `replay` it, and the `tail` of the log.
    """

    def __init__(self, law: str, who: str, details: str, *, now: float, replay: str, tail: list[str]) -> None:
        self.law = law
        self.who = who
        self.details = details
        self.now = now
        self.replay = replay
        self.tail = tail
        super().__init__(law, who, details)

    __reduce__ = reduce_exception

    def __str__(self) -> str:
        lines = "".join(f"\n    {line}" for line in self.tail)
        return (
            f"{self.law} ({self.who}, at {self.now:.6f} s): {self.details}\n"
            f"  to see it again: {self.replay}\n"
            f"  the end of the log:{lines}"
        )
