"""What is logged, at which level, and at what cost; the wire log and `--debug`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from adapters.every_adapter import ON, Listen
from adapters.hub_thread import hub_thread
from presence_adapters.cli.app import app
from presence_adapters.server import HubThread
from presence_adapters.stepped import PresenceClient
from presence_proto import Connected, HubConfig, Identity, PresenceConfig

if TYPE_CHECKING:
    from pathlib import Path

FAST: Any = {"jitter": 0.0, "close_timeout": 0.5}
API_KEY = "s3cret-api-key"
JWT = "s3cret-access-token"

on_all = pytest.mark.parametrize("listen", ON.values(), ids=ON.keys())


def of(caplog: pytest.LogCaptureFixture, *modules: str) -> list[logging.LogRecord]:
    names = {f"presence_adapters.{module}" for module in modules}
    return [record for record in caplog.records if record.name in names]


@on_all
def test_connections_and_events_are_logged_for_debugging(
    listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "presence_adapters")
    with hub_thread() as hub:
        caplog.clear()
        listen(PresenceConfig(server_url=hub.url, **FAST), lambda events: True)
        port = hub.port
    drivers = of(caplog, "async_driver", "asyncio", "trio", "socket_driver")
    ours = [record for record in drivers if record.threadName == "MainThread"]
    messages = [record.getMessage() for record in ours]
    assert messages[:2] == [f"connection 1: opening 127.0.0.1:{port}", "connection 1: open"]
    assert "connection 1: closing" in messages
    assert {record.conn for record in ours} == {1}  # type: ignore[attr-defined]  # an extra
    assert {record.levelno for record in ours} == {logging.DEBUG}
    events = of(caplog, "event_log")
    kinds: list[Any] = [record.event for record in events if record.threadName == "MainThread"]  # type: ignore[attr-defined]
    assert kinds[0] == "Connected"
    assert kinds[-1] == "Disconnected"


@on_all
def test_a_lost_connection_is_logged_with_its_reason(
    listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "presence_adapters")
    config = PresenceConfig(server_url="ws://nowhere.invalid", **FAST)
    listen(config, lambda events: True)
    messages = [record.getMessage() for record in caplog.records]
    assert any(
        said.startswith("connection 1: ended: cannot find the host nowhere.invalid") for said in messages
    )


@on_all
def test_the_wire_log_tells_all_but_secrets(listen: Listen, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "presence_adapters.wire_log")
    with HubThread(HubConfig(api_keys=frozenset({API_KEY}))) as hub:
        caplog.clear()
        config = PresenceConfig(server_url=hub.url.partition("?")[0], api_key=API_KEY, **FAST)
        listen(config, lambda events: True, access_token=lambda: JWT)
    told = [record.getMessage() for record in of(caplog, "wire_log") if record.threadName == "MainThread"]
    text = "\n".join(told)
    for words in ("PresenceClient config", "GET /realtime/v1/websocket?", "phx_join", "presence_state"):
        assert words in text
    for words in ("set_access_token", "AccessTokenNeeded", "Connected(", "transport_opened 1"):
        assert words in text
    assert "s3cret" not in text
    numbers = {record.endpoint for record in of(caplog, "wire_log") if record.threadName == "MainThread"}  # type: ignore[attr-defined]
    assert len(numbers) == 1
    assert all(message.startswith(f"{number} ") for message in told for number in numbers)


def test_a_recording_and_a_wire_log_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "presence_adapters.wire_log")
    file = tmp_path / "session.jsonl"
    with hub_thread() as hub:
        caplog.clear()
        ON["stepped"](PresenceConfig(server_url=hub.url, **FAST), lambda events: True, record=file)
    assert file.read_text().count("phx_join") == caplog.text.count("phx_join") > 0


def test_a_faulty_hub_has_no_wire_log_and_works(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "presence_adapters")
    with HubThread() as hub:
        assert hub.port


def test_who_does_not_listen_does_not_pay() -> None:
    client = PresenceClient(Identity("a", "A"), PresenceConfig(server_url="ws://127.0.0.1"))
    driver: Any = client._driver
    assert driver._on_event == client._events.put  # as it is, with nothing around it
    assert "receive_data" not in vars(client._core)  # a recorder would put its own there


def test_debug_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(API_KEY)
    key_file.chmod(0o600)
    monkeypatch.setenv("PRESENCE_ACCESS_TOKEN", JWT)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with HubThread(HubConfig(api_keys=frozenset({API_KEY}))) as hub:
        options = ["--server-url", hub.url.partition("?")[0], "--api-key-file", str(key_file), "--json"]
        options += ["--identity-file", str(tmp_path / "identity.json")]
        result = CliRunner().invoke(app, ["online", *options, "--debug"])
        quiet = CliRunner().invoke(app, ["online", *options])
    assert (result.exit_code, quiet.exit_code) == (0, 0), result.stderr
    assert result.stdout == quiet.stdout
    for words in ("wire_log: ", "phx_join", "connection 1: open", "event_log: Connected"):
        assert words in result.stderr
    assert "s3cret" not in result.output
    assert quiet.stderr == ""
    assert logging.getLogger("presence_adapters").level == logging.NOTSET


def test_a_listener_who_comes_late_hears_of_connections_only(caplog: pytest.LogCaptureFixture) -> None:
    with hub_thread() as hub:
        client = PresenceClient(Identity("a", "A"), PresenceConfig(server_url=hub.url, **FAST))
        caplog.set_level(logging.DEBUG, "presence_adapters")
        with client:
            while not any(isinstance(event, Connected) for event in client.events()):
                client.step()
    assert of(caplog, "socket_driver")
    assert not [record for record in of(caplog, "wire_log", "event_log") if record.threadName == "MainThread"]
