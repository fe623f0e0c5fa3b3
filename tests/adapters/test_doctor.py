"""`presence doctor` against real servers and sockets: each fault that it knows, and ways that are fine."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adapters.broken_setups import (
    KEY,
    SETUPS,
    Workshop,
    answers,
    dated,
    free_port,
    jwt,
    raw,
    says,
    talker,
)
from adapters.command_line import presence as in_process
from adapters.fakes import run as run_and_collect
from adapters.fakes import sockets
from adapters.proxy import ProxyThread
from adapters.socks_proxy import SocksThread
from adapters.test_cli import presence, read_until, running
from presence_adapters.cli.doctor.checkup import Checkup, Finding, as_json, as_text, exit_status, outcome
from presence_adapters.cli.doctor.facts import CheckupStep, Facts
from presence_adapters.cli.doctor.faults import FAULTS, diagnose
from presence_adapters.cli.doctor.probes import server_time, speaks_tls
from presence_adapters.server import HubServer, HubThread
from presence_adapters.settings.layers import load_settings
from presence_proto import HubConfig
from presence_proto.testing import FaultyHub

run = partial(run_and_collect, collect=False)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "LOCALAPPDATA", "APPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return Workshop(tmp_path, monkeypatch)


async def examined(given: dict[str, Any]) -> list[Finding]:
    """The findings; `given` are flags, secrets as environment variables, and the `timeout` of a step."""
    given = dict(given)
    timeout = given.pop("timeout", 5.0)
    env = {name: value for name, value in given.items() if name.startswith("PRESENCE_")}
    flags = {name: value for name, value in given.items() if name not in env}
    checkup = Checkup(lambda: load_settings(None, env, flags), timeout)
    return [finding async for finding in checkup.findings()]


def names(findings: list[Finding]) -> list[str]:
    return [finding.diagnosis.fault.name for finding in findings if finding.diagnosis is not None]


def test_every_fault_has_a_broken_set_up() -> None:
    assert [fault.name for fault in FAULTS] == list(SETUPS)
    assert len(SETUPS) >= 50


@pytest.fixture(scope="module", autouse=True)
def no_socket_is_left() -> Iterator[None]:
    """Of all tests together: to look after each of them takes longer than they do."""
    before = sockets()
    yield
    gc.collect()
    assert sockets() <= before


@pytest.mark.parametrize("name", SETUPS)
def test_the_fault_is_named(name: str, world: Workshop) -> None:
    async def main() -> list[Finding]:
        async with SETUPS[name](world) as given:
            return await examined(given)

    findings = run(main)
    (fault,) = [fault for fault in FAULTS if fault.name == name]
    told = names(findings)
    assert told[0] == name
    found = findings[-1] if fault.grave else next(one for one in findings if one.step is fault.step)
    assert found.step is fault.step
    assert outcome(found) == ("failed" if fault.grave else "warning")
    assert found.diagnosis is not None
    for words in (found.diagnosis.cause, found.diagnosis.remedy):
        assert words.endswith(".")
        assert "{" not in words
        assert "  " not in words
        assert ": ." not in words
    # Each step before it was fine, or not needed.
    assert [outcome(one) in ("ok", "skipped", "warning") for one in findings[:-1]] == [True] * (
        len(findings) - 1
    )
    assert json.loads(json.dumps(as_json(findings[-1])))["status"] == "failed"
    assert exit_status(findings[-1]) in (1, 2, 3, 4)


# ---------------------------------------------------------------------------------------------- more of them


def told(main: Any) -> tuple[str, str]:
    """The name of the fault that a check-up ends with, and its cause."""
    last = run(main)[-1].diagnosis
    return last.fault.name, last.cause


def test_a_damaged_identity(world: Workshop, tmp_path: Path) -> None:
    identity = tmp_path / "id.json"
    identity.write_text("{")
    name, cause = told(lambda: examined({"server_url": "ws://room.test", "identity_file": str(identity)}))
    assert name == "wrong-settings"
    assert f"{identity}: the identity is damaged" in cause


def test_a_project_ref_is_the_same_in_capitals(world: Workshop) -> None:
    world.no_dns(socket.EAI_NONAME)
    given = {"server_url": "ABCDEFGHIJ", "PRESENCE_API_KEY": jwt(ref="abcdefghij")}
    assert told(lambda: examined(given))[0] == "no-such-project"  # and not wrong-project


def test_a_proxy_that_is_none(world: Workshop) -> None:
    world.proxy("socks4://proxy.test:1080")
    name, cause = told(lambda: examined({"server_url": "ws://room.test"}))
    assert name == "wrong-settings"
    assert cause.startswith("http_proxy in the environment: proxy must start with http:// or socks5://")


@pytest.mark.long
@pytest.mark.parametrize(
    ("login", "answers", "name", "words"),
    [
        (("ann", "pw"), (), "proxy-login", "it wants a user name and password, or another way to log in."),
        (None, (None, None, b"\5\4"), "proxy-no-way", "cannot reach room.test:80: host unreachable."),
        (None, (None, None, b"\5\2"), "proxy-refuses", "its rules do not allow this connection."),
        (None, (b"HTTP/1.1 400 Bad\r\n\r\n",), "no-proxy", "is not a proxy of the kind"),
        (None, (None, None, b"\5\0\0\1" + bytes(6) + b"hello"), "not-http", ""),
    ],
)
def test_the_faults_of_a_socks_proxy(
    world: Workshop, login: tuple[str, str] | None, answers: Any, name: str, words: str
) -> None:
    with SocksThread(login, answers) as proxy:
        found, cause = told(lambda: examined({"server_url": "ws://room.test", "PRESENCE_PROXY": proxy.url}))
    assert (found, words in cause) == (name, True)


def test_a_room_behind_a_socks_proxy(world: Workshop) -> None:
    async def main() -> list[Finding]:
        async with HubServer() as server:
            with SocksThread(("ann", "pw")) as proxy:
                url = f"ws://room.test:{server.port}/realtime/v1"
                login = proxy.url.replace("//", "//ann:pw@")
                return await examined({"server_url": url, "PRESENCE_PROXY": login})

    findings = run(main)
    assert names(findings) == []
    assert next(one.text for one in findings if one.step is CheckupStep.PROXY).startswith(
        "a tunnel to room.test:"
    )


def test_a_proxy_that_does_not_answer(world: Workshop) -> None:
    async def main() -> list[Finding]:
        async with SETUPS["no-answer"](world) as given:
            world.proxy(given["server_url"].replace("ws:", "http:"))
            return await examined({"server_url": "ws://room.test", "timeout": 0.2})

    name, cause = told(main)
    assert (name, "no answer within 0.2 s" in cause) == ("proxy-down", True)


def test_patience_for_tls_ends_with_the_step_only(world: Workshop) -> None:
    """asyncio has a limit of its own, which looks as if the server had hung up."""
    world.monkeypatch.setattr("asyncio.constants.SSL_HANDSHAKE_TIMEOUT", 0.05)

    async def main() -> list[Finding]:
        async with SETUPS["tls-silent"](world) as given:
            return await examined({**given, "timeout": 0.3})

    assert told(main)[0] == "tls-silent"


def test_a_name_server_that_does_not_answer(world: Workshop) -> None:
    """Nothing waits for it, at the end neither."""
    enough = threading.Event()
    world.monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: enough.wait(30) and [])
    began = time.monotonic()
    name, cause = told(lambda: examined({"server_url": "ws://room.test", "timeout": 0.05}))
    assert (name, "no answer within 0.05 s" in cause) == ("no-name-server", True)
    assert time.monotonic() - began < 20
    enough.set()


def test_an_address_that_drops_what_comes_does_not_hide_the_next_one(world: Workshop) -> None:
    """As with a host that has an address of IPv6, on a machine that has no way there."""

    async def main() -> list[Finding]:
        async with SETUPS["no-answer"](world) as dropping, HubServer() as hub:
            ports = [int(dropping["server_url"].rpartition(":")[2]), hub.port]
            where = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
            world.monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: where)
            return await examined({"server_url": "ws://room.test", "timeout": 1.6})

    tcp = next(finding for finding in run(main) if finding.step is CheckupStep.TCP)
    assert (outcome(tcp), tcp.text.partition(", ")[2]) == ("ok", "but not to 127.0.0.1")


@pytest.mark.parametrize("order", [1, -1])
def test_a_refusal_says_more_than_what_this_machine_cannot_do(order: int, world: Workshop) -> None:
    where = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", free_port())),
        (socket.AF_INET, 9999, 0, "", ("::1", 1)),  # there is no such kind of socket
    ][::order]
    world.monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: where)
    assert told(lambda: examined({"server_url": "ws://room.test"}))[0] == "refused-port"


def test_a_connection_that_is_reset(world: Workshop) -> None:
    async def main() -> list[Finding]:
        def happened(event: Any) -> None:
            if named(event) == "ClientConnected":
                asyncio.get_running_loop().call_soon(lambda: hub.cut_all(reset=True))

        async with HubServer(hub_type=FaultyHub, on_event=happened) as hub:
            hub.set_faults(joins_ignored=True)
            return await examined({"server_url": hub.url})

    name, cause = told(main)
    assert name == "lost-in-join"
    assert "reset by peer" in cause


@pytest.mark.parametrize("protocol", ["phoenix", "jarvis"])
def test_a_server_that_closes_the_websocket_at_once(protocol: str, world: Workshop) -> None:
    """It has opened it all the same: the handshake was fine."""

    async def main() -> list[Finding]:
        async with talker(code=1013) as port:
            return await examined({"server_url": f"ws://127.0.0.1:{port}", "protocol": protocol})

    name, cause = told(main)
    assert name == ("wrong-protocol" if protocol == "jarvis" else "lost-in-join")
    assert cause.endswith("code 1013: we are full.")


@pytest.mark.parametrize("withheld", [True, False], ids=["before the state", "after it"])
@pytest.mark.parametrize("code", [1008, None])
def test_a_server_that_lets_us_in_and_puts_us_out(withheld: bool, code: int | None, world: Workshop) -> None:
    async def main() -> list[Finding]:
        def happened(event: Any) -> None:
            if named(event) == "TopicJoined":
                asyncio.get_running_loop().call_soon(put_out)

        def put_out() -> None:
            if code is None:
                hub.run(hub.hub.close_channel, "realtime:jarvis-presence", reason="enough")
            else:
                hub.run(hub.hub.disconnect, hub.hub.connections[0], code, "enough")

        async with HubServer(hub_type=FaultyHub, on_event=happened) as hub:
            hub.set_faults(states_withheld=withheld)
            return await examined({"server_url": hub.url})

    name, cause = told(main)
    assert name == ("lost-in-presence" if withheld else "lost-in-heartbeat")
    assert cause.endswith("enough.")


@pytest.mark.parametrize("response", [{"message": "full moon"}, "full moon", {"reason": ["full moon"]}])
def test_a_refusal_without_a_reason_is_quoted(response: Any, world: Workshop) -> None:
    reply = json.dumps(
        ["1", "1", "realtime:jarvis-presence", "phx_reply", {"status": "error", "response": response}]
    )

    async def main() -> list[Finding]:
        async with talker(reply) as port:
            return await examined({"server_url": f"ws://127.0.0.1:{port}"})

    name, cause = told(main)
    assert name == "join-refused"
    assert "full moon" in cause


@pytest.mark.parametrize(
    ("protocol", "text", "name"),
    [
        ("jarvis", '{"type": "error", "message": "you have no permission"}', "no-rights"),
        ("jarvis", '{"type": "error", "message": "moon"}', "join-refused"),
        ("jarvis", '{"type": 5}', "wrong-protocol"),
        ("phoenix", '{"type": "error", "message": "Invalid JSON"}', "wrong-protocol-jarvis"),
        ("phoenix", '{"topic": "t", "event": "e", "payload": {}, "ref": null}', "wrong-protocol-jarvis"),
    ],
)
def test_what_a_server_says_to_a_join(protocol: str, text: str, name: str, world: Workshop) -> None:
    async def main() -> list[Finding]:
        async with talker(text) as port:
            return await examined({"server_url": f"ws://127.0.0.1:{port}", "protocol": protocol})

    assert told(main)[0] == name


def days_ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def test_a_channel_that_crashes_before_it_says_who_is_there(world: Workshop) -> None:
    async def main() -> list[Finding]:
        def happened(event: Any) -> None:
            if named(event) == "TopicJoined":
                loop = asyncio.get_running_loop()
                loop.call_soon(lambda: hub.run(hub.hub.crash_channel, "realtime:jarvis-presence"))

        async with HubServer(hub_type=FaultyHub, on_event=happened) as hub:
            hub.set_faults(states_withheld=True)
            return await examined({"server_url": hub.url})

    assert told(main)[0] == "lost-in-presence"


def test_a_web_page_of_any_size(world: Workshop) -> None:
    async def main() -> list[Finding]:
        async with answers("200 OK", body="x" * 300_000)(world) as given:
            return await examined(given)

    assert told(main)[0] == "no-websocket"


def test_an_expired_certificate_behind_a_proxy(world: Workshop) -> None:
    """There the server is not asked what time it is."""

    async def main(proxy: ProxyThread) -> list[Finding]:
        world.proxy(proxy.url)
        days = {
            name: datetime.now(UTC) - timedelta(days=ago)
            for name, ago in (("not_before", 40), ("not_after", 9))
        }
        async with raw(dated("200 OK", days=-20), tls=world.tls("room.test", **days)) as port:
            return await examined({"server_url": f"wss://room.test:{port}", "tls_ca": world.trust})

    with ProxyThread() as proxy:
        assert told(lambda: main(proxy))[0] == "certificate-expired"


def test_probes_of_a_port_where_nobody_listens() -> None:
    port = free_port()
    assert run(lambda: server_time("room.test", "127.0.0.1", port, 1.0)) is None
    assert run(lambda: speaks_tls("room.test", "127.0.0.1", port, 1.0)) is False


def test_a_server_that_wants_to_know_which_host_is_meant(world: Workshop) -> None:
    """As those do that serve many."""
    context = world.tls("localhost")

    def choose(_: object, name: str | None, __: object) -> int | None:
        return None if name == "localhost" else ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    context.sni_callback = choose

    async def main() -> tuple[list[Finding], float | None]:
        async with raw(dated("200 OK"), tls=context) as port:
            findings = await examined({"server_url": f"ws://localhost:{port}"})
            return findings, await server_time("localhost", "127.0.0.1", port, 5.0)

    findings, now = run(main)
    assert names(findings) == ["tls-wanted"]
    assert now is not None


def test_a_server_that_refuses_tls_in_tls_speaks_it() -> None:
    async def main() -> bool:
        async with raw(b"\x15\x03\x03\x00\x02\x02\x28") as port:  # fatal: handshake_failure
            return await speaks_tls("localhost", "127.0.0.1", port, 5.0)

    assert run(main)


# ---------------------------------------------------------------------------------------------- all is well


def outcomes(findings: list[Finding]) -> dict[str, str]:
    return {str(finding.step): outcome(finding) for finding in findings}


@pytest.mark.parametrize("protocol", ["phoenix", "jarvis"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_all_is_well(protocol: str, tls: bool, world: Workshop) -> None:
    seen: list[str | None] = []

    async def main() -> list[Finding]:
        config = HubConfig(api_keys={KEY})
        context = world.tls() if tls else None
        async with HubServer(
            config, ssl_context=context, on_event=lambda event: seen.append(named(event))
        ) as hub:
            given = {
                "server_url": hub.url,
                "protocol": protocol,
                "PRESENCE_API_KEY": KEY,
                "tls_ca": world.trust,
            }
            findings = await examined(given)
            assert hub.hub.connections == ()
            return findings

    findings = run(main)
    assert names(findings) == []
    assert [finding.step for finding in findings] == list(CheckupStep)
    skipped = {"proxy", "clock"} if tls else {"proxy", "clock", "TLS"}
    assert {step for step, how in outcomes(findings).items() if how != "ok"} == skipped
    assert exit_status(findings[-1]) == 0
    assert seen[0] == "ClientConnected"
    assert seen[-1] == "ClientDisconnected"


def named(event: Any) -> str:
    return type(event).__name__


def test_nobody_sees_it(world: Workshop) -> None:
    """It waits for a heartbeat, in the channel, for a quarter of a second: who is there meanwhile?"""

    async def main() -> set[str]:
        there: set[str] = set()
        async with HubServer() as server:
            checking = asyncio.create_task(examined({"server_url": server.url}))
            while not checking.done():
                there |= set(server.hub.online("realtime:jarvis-presence"))
                await asyncio.sleep(0.005)
            assert names(await checking) == []
        return there

    assert run(main) == set()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_through_a_proxy_to_a_host_that_only_the_proxy_knows(tls: bool, world: Workshop) -> None:
    async def main(proxy: ProxyThread) -> list[Finding]:
        setting = {"PRESENCE_PROXY": proxy.url} if tls else {}
        world.proxy("http://127.0.0.1:1" if tls else proxy.url)  # the setting goes over the environment
        async with HubServer(ssl_context=world.tls("room.test") if tls else None) as server:
            url = server.url.replace("127.0.0.1", "room.test")
            return await examined({"server_url": url, "tls_ca": world.trust, **setting})

    with ProxyThread() as proxy:
        findings = run(lambda: main(proxy))
    assert names(findings) == []
    assert outcomes(findings)["proxy"] == "ok"


def test_what_the_server_says_at_once_comes_through_a_proxy_too(world: Workshop) -> None:
    greeting = b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-OpenSSH_9.6\r\n"
    with ProxyThread(greeting) as proxy:
        world.proxy(proxy.url)
        findings = run(lambda: examined({"server_url": "ws://room.test"}))
    assert names(findings) == ["not-http"]


def test_a_clock_that_is_right_is_fine(world: Workshop) -> None:
    async def main() -> list[Finding]:
        async with says(dated("403 Forbidden"), PRESENCE_API_KEY=KEY)(world) as given:
            return await examined(given)

    findings = run(main)
    assert outcomes(findings)["clock"] == "ok"
    assert names(findings) == ["wrong-api-key"]


def test_a_check_up_that_is_given_up_leaves_nothing(world: Workshop) -> None:
    async def main() -> None:
        async with SETUPS["mute-server"](world) as given:
            checking = asyncio.create_task(examined({**given, "timeout": 30}))
            await asyncio.sleep(0.2)
            checking.cancel()
            await asyncio.wait([checking])

    run(main)


@pytest.mark.parametrize("last", [CheckupStep.TCP, CheckupStep.TLS, CheckupStep.JOIN])
def test_one_who_has_seen_enough_leaves_nothing(last: CheckupStep, world: Workshop) -> None:
    async def main() -> None:
        async with HubServer() as server:
            flags = {"server_url": server.url}
            async with aclosing(Checkup(lambda: load_settings(None, {}, flags), 5.0).findings()) as findings:
                async for finding in findings:
                    if finding.step is last:
                        break

    run(main)


# ---------------------------------------------------------------------------------------------- the command


def lines_of(result: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.long
def test_the_command_ends_with_the_status_of_the_fault_and_shows_no_secret(tmp_path: Path) -> None:
    secret, token = "sb_secret_PLANTED_0123456789", jwt(sub="planted", exp=1)
    env = {"PRESENCE_API_KEY": secret, "PRESENCE_ACCESS_TOKEN": token, "HOME": str(tmp_path)}
    with HubThread(HubConfig(api_keys={KEY})) as hub:
        url = f"{hub.url}/realtime/v1?hidden={secret}"
        for more in ((), ("--json",)):
            result = presence("doctor", "--server-url", url, *more, **env)
            assert result.returncode == 4
            assert result.stderr == ""
            assert secret not in result.stdout
            assert token not in result.stdout
            assert "\x1b" not in result.stdout
            if more:
                last = lines_of(result)[-1]
                assert (last["step"], last["status"], last["fault"]) == ("api key", "failed", "token-expired")
            else:
                assert "failed   api key" in result.stdout
                assert "→ Get a new token" in result.stdout.splitlines()[-1]
        fine = presence("doctor", "--server-url", hub.url, HOME=str(tmp_path), PRESENCE_API_KEY=KEY)
        assert (fine.returncode, fine.stdout.splitlines()[-1], fine.stderr) == (0, "All is well.", "")


@pytest.mark.long
@pytest.mark.parametrize(
    ("content", "status", "fault"),
    [
        ("", 2, "wrong-settings"),
        ('server_url = "abc"\nenabled = false\napi_key = "k"', 3, "presence-off"),
        ('enabled = false\naccess_token_command = "false"', 3, "presence-off"),  # it asks for nothing else
        ("server_url = 1\njitter = 2", 2, "wrong-settings"),
    ],
)
def test_settings_that_do_not_do(tmp_path: Path, content: str, status: int, fault: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(f"[presence]\n{content}\n")
    file.chmod(0o644)
    result = presence("doctor", "--json", "--config", str(file), HOME=str(tmp_path))
    assert result.returncode == status
    (only,) = lines_of(result)
    assert (only["step"], only["fault"]) == ("config", fault)
    assert "Traceback" not in result.stderr
    assert ("other users can read it" in result.stderr) == ("api_key" in content or "token" in content)


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e308", "1e-7", "0", "-1"])
def test_a_timeout_that_is_none(seconds: str) -> None:
    result = in_process("doctor", "--timeout", seconds)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--timeout" in result.stderr


@pytest.mark.long
def test_debug_says_what_goes_over_the_wire(tmp_path: Path) -> None:
    with HubThread(HubConfig()) as hub:
        result = presence("doctor", "--debug", "--server-url", hub.url, HOME=str(tmp_path))
    assert result.returncode == 0
    assert '"phx_join"' in result.stderr
    assert "phx_join" not in result.stdout


def test_ctrl_c_ends_it_quietly(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"ws://127.0.0.1:{mute.getsockname()[1]}"
        with running("doctor", "--server-url", url, "--identity-file", str(tmp_path / "id.json")) as process:
            read_until(process, "TLS")
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=10)
            assert (process.returncode, errors) == (130, "")


def test_ctrl_c_does_not_wait_for_a_token(tmp_path: Path) -> None:
    started, file = tmp_path / "started", tmp_path / "c.toml"
    code = f"import pathlib, time; pathlib.Path({str(started)!r}).touch(); time.sleep(4)"
    command = json.dumps([sys.executable, "-c", code])
    file.write_text(f"""[presence]
server_url = "ws://room.test"
identity_file = "id.json"
access_token_command = {command}
""")
    file.chmod(0o600)
    with running("doctor", "--config", str(file)) as process:
        while not started.exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        output, errors = process.communicate(timeout=10)
        assert time.monotonic() - began < 3
        assert (process.returncode, output, errors) == (130, "", "")


def test_what_a_server_says_cannot_drive_the_terminal() -> None:
    diagnosis = diagnose(CheckupStep.JOIN, Facts(refusal="\x1b[2Jgone\n"))
    text = as_text(Finding(CheckupStep.JOIN, 0.0015, diagnosis=diagnosis)).plain
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2
