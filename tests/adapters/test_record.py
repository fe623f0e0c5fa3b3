"""The option `record` of every adapter and of the hub, and the commands that go with it."""

from __future__ import annotations

import asyncio
import errno
import gc
import io
import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest
import trio
from click.testing import CliRunner, Result

import presence_adapters.asyncio as on_asyncio
import presence_adapters.blocking as on_threads
import presence_adapters.stepped as step_by_step
import presence_adapters.trio as on_trio
from adapters.hub_thread import hub_thread, until
from adapters.test_cli import presence, read_until, running
from presence_adapters.cli.app import app
from presence_adapters.recording import Recording
from presence_adapters.server import HubServer, HubThread
from presence_proto import (
    ChannelConfig,
    ConfigError,
    Connected,
    HubConfig,
    Identity,
    LocalProtocolError,
    PresenceConfig,
    RealtimeConfig,
)
from presence_proto.recording import replay
from presence_proto.testing import FaultyHub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALICE = Identity("alice", "Alice", "a-token-of-alice")
KEY = "the-key-of-all"


@pytest.fixture(scope="module")
def hub() -> Iterator[HubThread]:
    with hub_thread(HubConfig(api_keys={KEY})) as thread:
        yield thread


def room(hub: HubThread) -> PresenceConfig:
    return PresenceConfig(server_url=f"{hub.url}/realtime/v1", api_key=KEY, heartbeat_interval=0.05)


def channels(hub: HubThread) -> RealtimeConfig:
    return RealtimeConfig(server_url=f"{hub.url}/realtime/v1", api_key=KEY, access_token=ALICE.access_token)


def checked(path: Path) -> list[dict[str, Any]]:
    """The lines of a recording, which is complete and holds no secret, and whose replay is the same."""
    text = path.read_text("ascii")
    assert text.endswith('{"end":null}\n')
    result = replay(text.splitlines(keepends=True))
    assert result.same, result
    assert KEY not in text
    assert "a-token-of-alice" not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return [json.loads(line) for line in text.splitlines()]


def events(lines: list[dict[str, Any]]) -> list[str]:
    return [line["event"] for line in lines if "event" in line]


# ------------------------------------------------------------------------------------ presence clients


async def talk_on_asyncio(config: PresenceConfig, path: Path) -> None:
    async with on_asyncio.PresenceClient(ALICE, config, record=path) as client:
        async for event in client:
            if isinstance(event, Connected):
                break
        await client.send_chat("general", "hello")
        await client.set_access_token("another-token")
        while client.pending_commands:
            await asyncio.sleep(0.01)


async def talk_on_trio(config: PresenceConfig, path: Path) -> None:
    async with on_trio.PresenceClient(ALICE, config, record=str(path)) as client:
        async for event in client:
            if isinstance(event, Connected):
                break
        await client.send_chat("general", "hello")
        await client.set_access_token("another-token")
        while client.pending_commands:
            await trio.sleep(0.01)


def talk_in_threads(config: PresenceConfig, path: Path) -> None:
    with on_threads.PresenceClient(ALICE, config, record=path) as client:
        client.drive_in_background()
        assert any(isinstance(event, Connected) for event in client.events(5))
        client.send_chat("general", "hello")
        client.set_access_token("another-token")
        until(lambda: not client.pending_commands)


def talk_step_by_step(config: PresenceConfig, path: Path) -> None:
    client = step_by_step.PresenceClient(ALICE, config, record=path)
    client.connect()

    def connected() -> bool:
        client.step()
        return client.is_connected

    until(connected)
    client.send_chat("general", "hello")
    client.set_access_token("another-token")
    client.disconnect()

    def closed() -> bool:
        client.step()
        return client.is_closed

    until(closed)


def on_each_adapter(name: str, *args: Any) -> None:
    match name:
        case "asyncio":
            asyncio.run(talk_on_asyncio(*args))
        case "trio":
            trio.run(talk_on_trio, *args)
        case "blocking":
            talk_in_threads(*args)
        case "stepped":
            talk_step_by_step(*args)


every_adapter = pytest.mark.parametrize("name", ["asyncio", "trio", "blocking", "stepped"])


@every_adapter
def test_presence_clients(name: str, hub: HubThread, tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl"
    on_each_adapter(name, room(hub), path)
    lines = checked(path)
    assert events(lines)[0] == "Connected"
    assert events(lines)[-1] == "Disconnected"
    assert [line["command"] for line in lines if "command" in line] == [
        *("connect", "send_chat", "set_access_token", "disconnect"),
    ]
    gc.collect()  # an open file would warn


@every_adapter
def test_a_path_that_cannot_be_written_to(name: str, hub: HubThread, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^record: cannot write to .*: no such file or directory$"):
        on_each_adapter(name, room(hub), tmp_path / "nowhere" / "recording.jsonl")


# ------------------------------------------------------------------------------------ realtime clients


def test_realtime_clients(hub: HubThread, tmp_path: Path) -> None:
    config, supabase = channels(hub), ChannelConfig(broadcast_ack=True)
    paths = [tmp_path / name for name in ("asyncio", "trio", "blocking", "stepped")]

    async def asyncio_client() -> None:
        async with on_asyncio.RealtimeClient(config, record=paths[0]) as client:
            channel = await client.join("realtime:x", supabase)
            await channel.broadcast("e", {"n": 1})

    async def trio_client() -> None:
        async with on_trio.RealtimeClient(config, record=paths[1]) as client:
            channel = await client.join("realtime:x", supabase)
            await channel.broadcast("e", {"n": 1})

    asyncio.run(asyncio_client())
    trio.run(trio_client)
    with on_threads.RealtimeClient(config, record=paths[2]) as blocking:
        blocking.join("realtime:x", supabase).broadcast("e", {"n": 1})
    with step_by_step.RealtimeClient(config, record=paths[3]) as stepped:
        reply = stepped.join("realtime:x", supabase).broadcast("e", {"n": 1})

        def done() -> bool:
            stepped.step()
            return reply.done

        until(done)
    for path in paths:
        assert "PushReplied" in events(checked(path)), path


# ------------------------------------------------------------------------------------ files


def test_a_file_of_the_callers_stays_open_and_a_client_is_recorded_once(hub: HubThread) -> None:
    file = io.StringIO()
    with on_threads.PresenceClient(ALICE, room(hub), record=file) as client:
        client.disconnect()
    before = file.getvalue()
    assert replay(before.splitlines()).same
    with pytest.raises(LocalProtocolError), client:
        pass
    assert file.getvalue() == before


def test_a_second_run_does_not_destroy_the_first_recording(hub: HubThread, tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl"
    client = on_threads.PresenceClient(ALICE, room(hub), record=path)
    with client:
        client.disconnect()
    before = path.read_text()
    with pytest.raises(LocalProtocolError), client:
        pass
    assert path.read_text() == before


@pytest.mark.parametrize("target", [io.BytesIO(), 7])
def test_what_is_no_text_file(target: Any, hub: HubThread) -> None:
    with pytest.raises(ConfigError, match="record: cannot write to"):
        on_threads.PresenceClient(ALICE, room(hub), record=target).__enter__()


def test_a_crash_keeps_what_is_written(hub: HubThread, tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl"
    with on_threads.PresenceClient(ALICE, room(hub), record=path) as client:
        assert any(isinstance(event, Connected) for event in client.events(5))
        assert '"event":"Connected"' in path.read_text()


class Full(io.StringIO):
    """A disk with room for little."""

    def write(self, text: str) -> int:
        if self.tell() > 6000:
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_a_full_disk_ends_the_recording_and_not_the_client(
    hub: HubThread, caplog: pytest.LogCaptureFixture
) -> None:
    with on_threads.PresenceClient(ALICE, room(hub), record=Full()) as client:
        assert any(isinstance(event, Connected) for event in client.events(5))
        client.send_chat("general", "hello")
    messages = [record.getMessage() for record in caplog.records if "recording" in record.name]
    assert messages == [
        "the recording stops here, because it cannot be written: [Errno 28] No space left on device"
    ]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_behind_a_path(hub: HubThread, caplog: pytest.LogCaptureFixture) -> None:
    with on_threads.PresenceClient(ALICE, room(hub), record="/dev/full") as client:
        assert any(isinstance(event, Connected) for event in client.events(5))
    assert "No space left" in caplog.text


# ------------------------------------------------------------------------------------ the hub


def test_a_hub_server(tmp_path: Path) -> None:
    path = tmp_path / "hub.jsonl"

    async def run() -> None:
        config = HubConfig(api_keys={KEY}, authorize=lambda topic, token: None)
        async with HubServer(config, record=path) as server:
            url = f"{server.url}/realtime/v1"
            room = PresenceConfig(server_url=url, api_key=KEY)
            async with on_asyncio.PresenceClient(ALICE, room) as client:
                await anext(client)
                await client.send_chat("general", "hello")
            server.run(server.hub.broadcast, "realtime:x", "e", {})

    asyncio.run(run())
    lines = checked(path)
    assert "TopicJoined" in events(lines)
    assert [line["command"] for line in lines if "command" in line] == ["broadcast", "shutdown"]


def test_a_hub_that_cannot_be_recorded(tmp_path: Path) -> None:
    async def start(record: Path) -> None:
        async with HubServer(record=record):
            raise AssertionError

    with pytest.raises(ConfigError, match="no such file"):
        asyncio.run(start(tmp_path / "nowhere" / "file"))
    with pytest.raises(ConfigError, match="cannot record a FaultyHub"):
        HubServer(record=tmp_path / "file", hub_type=FaultyHub)


# ------------------------------------------------------------------------------------ the command line


def replayed(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, ["replay", *arguments], input=stdin)


@pytest.fixture(scope="module")
def recorded(hub: HubThread, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recordings") / "recording.jsonl"
    talk_in_threads(room(hub), path)
    return path


def test_replay_says_the_same(recorded: Path) -> None:
    for arguments in ([str(recorded)], ["-"]):
        result = replayed(*arguments, stdin=recorded.read_text())
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("the same: ")
        assert "(PresenceClient, recorded by presence-proto" in result.stdout


def test_replay_says_where_it_differs(recorded: Path, tmp_path: Path) -> None:
    lines = recorded.read_text().splitlines(keepends=True)
    number = next(number for number, line in enumerate(lines) if '"event":"Connected"' in line)
    lines[number] = lines[number].replace('"online_count":', '"online_count":9')
    other = tmp_path / "other.jsonl"
    other.write_text("".join(lines))
    result = replayed(str(other))
    assert result.exit_code == 1, result.output
    told = result.stdout.splitlines()
    assert told[-3].startswith(f"{number + 1:6}  expected  ")
    assert told[-2].startswith("        got       ")
    assert told[-1].startswith(f"line {number + 1} differs: ")
    assert told[-4].startswith(f"{number:6}  ")


def test_replay_shows_it_in_words(recorded: Path) -> None:
    result = replayed("--show", str(recorded))
    assert result.exit_code == 0
    for words in ("PresenceClient, recorded by", "> send_chat(", "< Connected(", "phx_join", "the end"):
        assert words in result.stdout


@pytest.mark.parametrize("options", [[], ["--show"]])
def test_a_reader_of_a_replay_that_went_away(
    recorded: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(*_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr("click.echo", nobody)
    result = replayed(*options, str(recorded))
    assert isinstance(result.exception, SystemExit)
    assert (result.exit_code, result.output) == (1, "")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "no such file or directory"),
        ("", "line 1: this is not a recording"),
        ("\udcff\udcfe", "line 1: this is not a recording"),
        ("cut", "is cut off"),
    ],
)
def test_replay_of_a_bad_file(text: str | None, fault: str, recorded: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    if text == "cut":
        path.write_text(recorded.read_text()[:-20])
    elif text is not None:
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    result = replayed(str(path))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert fault in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_recording_that_ended_early(recorded: Path) -> None:
    text = recorded.read_text().replace('{"end":null}', '{"end":"of all things"}')
    result = replayed("-", stdin=text)
    assert result.exit_code == 0
    assert result.stdout.endswith("the recording ends early: of all things\n")


def test_the_hub_command_records(tmp_path: Path) -> None:
    path = tmp_path / "hub.jsonl"
    with running("hub", "--port", "0", "--record", str(path)) as process:
        greeting = read_until(process, "/socket")
        url = greeting.split("Supabase clients")[1].split()[0]
        with on_threads.PresenceClient(ALICE, PresenceConfig(server_url=url)) as client:
            assert any(isinstance(event, Connected) for event in client.events(5))
        process.terminate()
        assert process.wait(10) == 0
    assert "TopicJoined" in events(checked(path))
    assert replayed(str(path)).exit_code == 0


def test_the_hub_command_cannot_record(tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "file"
    process = presence("hub", "--port", "0", "--record", str(file))
    assert process.returncode == 1
    assert process.stderr == f"Error: record: cannot write to {str(file)!r}: no such file or directory\n"
    assert CliRunner().invoke(app, ["hub", "--control", "--record", "x"]).exit_code == 2


# ---------------------------------------------------------------------------------------------- whose it is


def record_to(path: Path) -> None:
    recording = Recording(path)
    recording.hub(HubConfig(), None)
    recording.open()
    recording.until(lambda error: None)(None)


@pytest.mark.skipif(os.name != "posix", reason="there are no such permissions")
def test_a_file_that_was_there_is_ours_alone_afterwards(tmp_path: Path) -> None:
    file = tmp_path / "recording"
    file.write_text("something older and longer" * 1000)
    file.chmod(0o666)
    record_to(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "older" not in file.read_text()


@pytest.mark.skipif(os.name != "posix", reason="making links takes rights there")
@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_not_followed(tmp_path: Path, exists: bool) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    if exists:
        target.write_text("precious")
    link.symlink_to(target)
    with pytest.raises(ConfigError, match="it is a symbolic link, and its target would be overwritten"):
        record_to(link)
    assert target.exists() is exists
    assert not exists or target.read_text() == "precious"


@pytest.mark.skipif(os.name != "posix", reason="there are no such permissions")
def test_a_file_that_cannot_be_made_private_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "recording"
    file.write_text("theirs")

    def fchmod(*_: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchmod", fchmod)
    with pytest.raises(ConfigError, match=r"record: cannot write to .*: operation not permitted"):
        record_to(file)
    assert file.read_text() == "theirs"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
def test_a_pipe_is_written_to_if_somebody_reads_it(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(ConfigError, match="it is a FIFO without a reader"):
        record_to(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        record_to(fifo)
        assert os.read(reader, 10) == b""  # nothing has happened, so there is no header
    finally:
        os.close(reader)
