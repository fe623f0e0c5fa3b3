"""What a rule of the hub's user says against a client may quote its token. Nobody else is told that."""

from __future__ import annotations

from typing import Any

import pytest

from presence_proto.hub.member import Refused, objection


def quoting(topic: str, token: str | None) -> str | None:
    return f"{token} is not for {topic}"


def failing(topic: str, token: str | None) -> str | None:
    raise LookupError(token)


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("jwt-12345", "… is not for room:a"),
        ("", " is not for room:a"),
        ("room", "room is not for room:a"),
        (None, "None is not for room:a"),
        (5, "None is not for room:a"),
    ],
)
def test_the_token_is_left_out(token: Any, reason: str) -> None:
    assert objection(quoting, "room:a", token) == reason


def test_no_objection() -> None:
    assert objection(None, "room:a", "jwt-123") is None
    assert objection(lambda topic, token: None, "room:a", "jwt-123") is None


def test_a_rule_that_fails_refuses() -> None:
    with pytest.raises(Refused) as refused:
        objection(failing, "room:a", "jwt-123")
    assert refused.value.reason == "join crashed"
    assert refused.value.detail == " (LookupError in a rule)"
