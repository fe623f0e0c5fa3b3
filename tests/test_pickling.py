"""Every exception, event, output and config survives pickle and copy: process pools send them, log handlers
copy them.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import attrs
import msgspec
import pytest

import presence_adapters
import presence_proto
from presence_adapters.errors import JoinError, PushError
from presence_adapters.testing.driver_check import DutyResult
from presence_proto import BroadcastReplay, ChannelConfig, HubConfig, Identity, PresenceConfig, RealtimeConfig
from presence_proto.errors import PresenceError

WAYS: dict[str, Callable[[Any], Any]] = {
    **{f"pickle {n}": lambda value, n=n: pickle.loads(pickle.dumps(value, n)) for n in range(2, 6)},
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}

# The command's own classes never leave its process.
PRIVATE = ("presence_adapters.cli.", "presence_adapters.__main__")


def modules() -> Iterator[Any]:
    for package in (presence_proto, presence_adapters):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.startswith(PRIVATE):
                yield importlib.import_module(found.name)


@cache
def classes() -> dict[str, type]:
    """All public exceptions and structs that the package defines, by full name."""
    return {
        f"{module.__name__}.{name}": value
        for module in modules()
        for name, value in vars(module).items()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and not name.startswith("_")
        and (
            issubclass(value, (BaseException, msgspec.Struct))
            or (value.__module__.endswith(".outputs") and attrs.has(value))
        )
    }


def sample(parameter: inspect.Parameter) -> Any:
    """A value that tells one parameter from another. Containers show whether a copy is deep enough."""
    values = {
        "float": 1.5,
        "list[str]": [parameter.name],
        "list[DutyResult]": [DutyResult("a duty", "failed", parameter.name)],
    }
    return values.get(str(parameter.annotation), f"<{parameter.name}>")


def made(cls: type) -> Any:
    """An instance with something in every field."""
    if attrs.has(cls):
        return cls(**{field.name: f"<{field.name}>" for field in attrs.fields(cls)})
    if issubclass(cls, msgspec.Struct):
        return cls(**{name: f"<{name}>" for name in cls.__struct_fields__})
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return cls("what happened")
    positional = [sample(each) for each in parameters if each.kind is not each.KEYWORD_ONLY]
    named = {each.name: sample(each) for each in parameters if each.kind is each.KEYWORD_ONLY}
    return cls(*positional, **named)


def content(value: Any) -> Any:
    """What makes one the same as another."""
    if isinstance(value, BaseException):
        return type(value), value.args, str(value), value.__dict__
    return value


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", classes())
def test_exceptions_events_and_outputs_survive(name: str, way: str) -> None:
    value = made(classes()[name])
    assert content(WAYS[way](value)) == content(value)


MODULES = ("presence_proto.config", "presence_proto.hub.config")
CONFIGS = [
    Identity("alice-123", "Alice", "token"),
    RealtimeConfig(
        server_url="ws://127.0.0.1:4000/socket", api_key="key", params={"a": "1"}, headers={"X-A": "b"}
    ),
    PresenceConfig(project_ref="abcdefghij", api_key="key"),
    BroadcastReplay(since=1_700_000_000_000, limit=10),
    ChannelConfig(
        private=True,
        presence_key="alice-123",
        broadcast_replay={"since": 1},
        postgres_changes=[{"event": "*"}],
        extra={"broadcast": {"new": [1]}},
    ),
    HubConfig(api_keys=["key"]),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_configs_survive(config: Any, way: str) -> None:
    again = WAYS[way](config)
    assert again == config
    assert type(again) is type(config)


def test_no_config_is_forgotten() -> None:
    public = [getattr(presence_proto, name) for name in presence_proto.__all__]
    defined = {cls for cls in public if isinstance(cls, type) and attrs.has(cls)}
    of_config = {cls for cls in defined if cls.__module__ in MODULES}
    assert of_config == {type(config) for config in CONFIGS}


@pytest.mark.parametrize("way", WAYS)
def test_what_was_noted_and_added_goes_along(way: str) -> None:
    error = JoinError("room:1", "full", {"reason": "full"})
    error.add_note("while the test ran")
    again = WAYS[way](error)
    assert (again.topic, again.reason, again.response) == ("room:1", "full", {"reason": "full"})
    assert again.__notes__ == ["while the test ran"]


@pytest.mark.parametrize("way", WAYS)
def test_an_exception_of_the_application_with_parameters_of_its_own_survives(way: str) -> None:
    error = CodedError(code=7)
    again = WAYS[way](error)
    assert (type(again), again.code, str(again)) == (CodedError, 7, "it was 7")


class CodedError(PresenceError):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"it was {code}")
        self.code = code


def test_a_push_error_says_the_same_after_a_trip() -> None:
    error = PushError("room:1", "the server answered 'error'", "error", {"reason": "no"})
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "push to 'room:1' failed: the server answered 'error'"
    assert (again.status, again.response) == ("error", {"reason": "no"})
