"""The exceptions: few, and one base."""

from __future__ import annotations

import pytest

from presence_proto import errors
from presence_proto.errors import (
    ConfigError,
    LocalProtocolError,
    PresenceError,
    ProxyError,
    RecordingError,
    RemoteProtocolError,
)


@pytest.mark.parametrize("cls", [ConfigError, LocalProtocolError, ProxyError, RemoteProtocolError])
def test_one_base_catches_them_all(cls: type[PresenceError]) -> None:
    assert issubclass(cls, PresenceError)
    with pytest.raises(PresenceError, match=r"^why$"):
        raise cls("why")


def test_a_config_error_is_a_value_error_and_the_others_are_not() -> None:
    assert issubclass(ConfigError, ValueError)
    assert not issubclass(LocalProtocolError, (ValueError, RemoteProtocolError))
    assert not issubclass(RemoteProtocolError, (ValueError, LocalProtocolError))


def test_there_are_no_others() -> None:
    assert {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    } == {
        "ConfigError",
        "LocalProtocolError",
        "PresenceError",
        "ProxyError",
        "RecordingError",
        "RemoteProtocolError",
    }


def test_a_recording_error_names_the_line() -> None:
    error = RecordingError(7, "it is cut off")
    assert isinstance(error, PresenceError)
    assert (error.line, error.fault, str(error)) == (7, "it is cut off", "line 7: it is cut off")
