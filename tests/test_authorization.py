"""What a hub's rule is asked, and in which forms a rule may be written."""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import pytest
from attrs import evolve

from presence_proto import Allow, ConfigError, HubConfig, JoinRequest

ASKED = JoinRequest("room:a", "a-token", "ann")


def by_request(request: JoinRequest) -> str | None:
    return f"no, {request.key}"


def by_token(topic: str, token: str | None) -> str | None:
    return f"no, {topic} and {token}"


class Rule:
    def by_request(self, request: JoinRequest, /) -> str | None:
        return f"no, {request.key}"

    def __call__(self, topic: str, token: str | None = None) -> str | None:
        return f"no, {topic} and {token}"


def with_more(request: JoinRequest, *, strict: bool = True) -> str | None:
    return f"no, {request.key}"


def with_anything(*args: Any) -> str | None:
    return f"no, {args[0].key}, one of {len(args)}"


def with_a_third(topic: str, token: str | None, more: int = 0) -> str | None:
    return f"no, {topic} and {token}"


@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        (by_request, "no, ann"),
        (Rule().by_request, "no, ann"),
        (with_more, "no, ann"),
        (partial(by_token, "x"), "no, x and JoinRequest(topic='room:a', key='ann')"),
        (with_anything, "no, ann, one of 1"),
        (by_token, "no, room:a and a-token"),
        (Rule(), "no, room:a and a-token"),
        (with_a_third, "no, room:a and a-token"),
        (lambda topic, token: None, None),
        (lambda request: Allow("bob"), Allow("bob")),
    ],
)
def test_a_rule_takes_a_request_or_a_topic_and_a_token(rule: Any, answer: Any) -> None:
    config = HubConfig(authorize=rule)
    assert config.authorize is not None
    assert config.authorize(ASKED) == answer
    again = evolve(config, idle_timeout=5)
    assert again.authorize is not None
    assert again.authorize(ASKED) == answer


def no_arguments() -> None:
    raise AssertionError


def three(topic: str, token: str | None, key: str) -> None:
    raise AssertionError


def named(*, topic: str) -> None:
    raise AssertionError


@pytest.mark.parametrize("rule", [no_arguments, three, named, "a rule", 5, dict])
def test_what_cannot_be_asked_is_refused_at_once(rule: Any) -> None:
    with pytest.raises(ConfigError, match=r"of one argument .a JoinRequest."):
        HubConfig(authorize=rule)


def test_a_config_with_an_older_rule_is_a_value_as_before() -> None:
    config = HubConfig(authorize=by_token)
    assert config == HubConfig(authorize=by_token)
    assert pickle.loads(pickle.dumps(config)) == config


def test_without_a_rule_there_is_none() -> None:
    assert HubConfig().authorize is HubConfig(authorize=None).authorize is None


def test_a_request_does_not_show_its_token() -> None:
    assert repr(ASKED) == "JoinRequest(topic='room:a', key='ann')"


@pytest.mark.parametrize("key", ["", 5, b"ann", "\ud800"])
def test_only_a_string_is_a_key(key: Any) -> None:
    with pytest.raises(ConfigError, match="key must be a non-empty Unicode string"):
        Allow(key)
    assert Allow().key is None
