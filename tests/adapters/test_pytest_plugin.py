"""The plugin of pytest: the fixture, its marker, what it costs, and that it leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import trio

import presence_adapters.trio
from presence_proto import Identity, PresenceConfig

if TYPE_CHECKING:
    from presence_adapters.server import HubThread

ROOM = "realtime:jarvis-presence"

# ------------------------------------------------------------------------------------ the fixture


def test_each_test_has_a_hub_of_its_own(presence_hub: HubThread) -> None:
    assert presence_hub.url == f"ws://127.0.0.1:{presence_hub.port}/realtime/v1"
    assert presence_hub.socket_url == f"ws://127.0.0.1:{presence_hub.port}/socket"
    assert presence_hub.jarvis_url.startswith(f"ws://127.0.0.1:{presence_hub.port}/")
    assert len(presence_hub.api_key) > 16
    assert (presence_hub.connections, presence_hub.online(ROOM)) == ([], {})
    assert len([one for one in threading.enumerate() if one.name == "presence-hub"]) == 1


def test_it_serves_tests_on_trio(presence_hub: HubThread) -> None:
    async def main() -> None:
        config = PresenceConfig(server_url=presence_hub.url, api_key=presence_hub.api_key)
        async with presence_adapters.trio.PresenceClient(Identity("alice", "Alice"), config):
            await trio.to_thread.run_sync(presence_hub.wait_online, ROOM)

    trio.run(main)


@pytest.mark.presence_hub(presence_window=0.25, api_keys=["mine"])
class TestTheMarker:
    def test_it_sets_options(self, presence_hub: HubThread) -> None:
        config = presence_hub.run(lambda server: server.hub._config)
        assert (config.presence_window, config.presence_limit, presence_hub.api_key) == (0.25, None, "mine")

    @pytest.mark.presence_hub(presence_window=0.5, presence_limit=5)
    def test_the_closest_one_wins(self, presence_hub: HubThread) -> None:
        config = presence_hub.run(lambda server: server.hub._config)
        assert (config.presence_window, config.presence_limit, presence_hub.api_key) == (0.5, 5, "mine")


@pytest.mark.parametrize(
    ("marker", "says"),
    [
        (
            "presence_windw=1",
            "*the marker presence_hub: HubConfig has no option 'presence_windw', only protocol, *",
        ),
        ("presence_window=-1", "*the marker presence_hub: presence_window must be 0 or at least*"),
        ("1", "*the marker presence_hub takes only keyword arguments: options of HubConfig*"),
    ],
)
def test_a_wrong_marker_is_one_clear_error(pytester: pytest.Pytester, marker: str, says: str) -> None:
    pytester.makepyfile(
        f"import pytest\n@pytest.mark.presence_hub({marker})\ndef test(presence_hub):\n    assert False"
    )
    result = pytester.runpytest_inprocess("--strict-markers")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([says])
    assert "Traceback" not in result.stdout.str()


def test_marker_and_fixture_are_documented(pytester: pytest.Pytester) -> None:
    assert "@pytest.mark.presence_hub(**options)" in pytester.runpytest_inprocess("--markers").stdout.str()
    listed = pytester.runpytest_inprocess("--fixtures").stdout.str()
    assert "presence_hub" in listed
    assert "on a free port of 127.0.0.1, with fault switches" in listed


# ------------------------------------------------------------------------------------ what it costs


def test_who_does_not_use_it_pays_nothing() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import presence_adapters.pytest_plugin;"
        "print(sorted(set(sys.modules) - before))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "['presence_adapters', 'presence_adapters.pytest_plugin']\n"


# ------------------------------------------------------------------------------------ nothing is left behind

WATCH = """
import socket, threading

ports = []

def pytest_unconfigure(config):
    open_ports = 0
    for port in ports:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            open_ports += 1
        except OSError:
            pass
    print("hubs:", len(ports), "open:", open_ports, "threads:", threading.active_count())
"""


def run_watched(pytester: pytest.Pytester, test: str) -> str:
    """What a run of pytest of its own says in which this is the test."""
    pytester.makeconftest(WATCH)
    pytester.makepyfile(test)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error", timeout=30)
    assert "Traceback" not in result.stderr.str()
    return result.stdout.str()


@pytest.mark.long
def test_a_test_that_fails_leaves_nothing_behind(pytester: pytest.Pytester) -> None:
    said = run_watched(
        pytester,
        """
        import conftest, socket

        def test_fails(presence_hub):
            conftest.ports.append(presence_hub.port)
            presence_hub.freeze()
            global client
            client = socket.create_connection(("127.0.0.1", presence_hub.port))
            raise AssertionError

        def test_stops_it(presence_hub):
            client.close()
            conftest.ports.append(presence_hub.port)
            presence_hub.stop()
        """,
    )
    assert "1 failed, 1 passed" in said
    assert "hubs: 2 open: 0 threads: 1" in said


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_ctrl_c_in_a_test_that_hangs_leaves_nothing_behind(pytester: pytest.Pytester) -> None:
    said = run_watched(
        pytester,
        f"""
        import conftest, os, threading

        def test_hangs(presence_hub):
            conftest.ports.append(presence_hub.port)
            threading.Timer(0.2, os.kill, [os.getpid(), {int(signal.SIGINT)}]).start()
            presence_hub.wait_online("realtime:nobody", timeout=60)
        """,
    )
    assert "KeyboardInterrupt" in said
    assert "hubs: 1 open: 0 threads: 1" in said
