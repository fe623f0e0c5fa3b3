"""The check-up: a series of steps from the settings to a heartbeat. Every grave fault ends the check-up."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve, frozen
from rich.console import Console
from rich.text import Text

from presence_adapters.asyncio import in_daemon_thread
from presence_adapters.cli.doctor import probes
from presence_adapters.cli.doctor.facts import CheckupStep, Facts, claims_of
from presence_adapters.cli.doctor.faults import Diagnosis, diagnose
from presence_adapters.cli.doctor.trials import JarvisTrial, PhoenixTrial, StepError, Trial
from presence_adapters.cli.exits import Exit
from presence_adapters.cli.output import print_json, printable
from presence_adapters.settings.identity_file import IdentityError
from presence_adapters.settings.layers import SettingsError
from presence_adapters.tls_and_proxies import client_context, find_proxy, look_up, open_tunnel, os_error_words
from presence_proto import ConfigError, ConnId, OpenTransport, ProxyError
from presence_proto.websocket import ProxyTunnel

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from presence_adapters.settings.layers import Settings
    from presence_proto import Identity, PresenceConfig
    from presence_proto.websocket import Proxy


HEARTBEAT = 0.25
"""Heartbeat interval of the check-up, in seconds. A check-up with the normal interval would take too long."""

PATIENCE = 10
"""Ratio of the core's own timeouts to the time limit of a step. The limit of the step must expire first."""

_UNKNOWN = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
"""The `getaddrinfo` errors for a host name that does not exist."""


@frozen
class Finding:
    """Result of a step. `seconds`: the duration of the step, or `None` for a skipped step.

    `text`: the result, or the reason why the step was skipped; empty if the step found a fault. `diagnosis`:
    the fault that the step found, or `None`.
    """

    step: CheckupStep
    seconds: float | None
    text: str = ""
    diagnosis: Diagnosis | None = None


@frozen
class NotNeeded:
    """Result of a skipped step. `why`: the reason, as a text for users."""

    why: str


class Checkup:
    """One check-up. `findings()` runs the steps. `timeout`: the time limit of a step, in seconds."""

    def __init__(self, load: Callable[[], Settings], timeout: float) -> None:
        self.facts = Facts(timeout=timeout, now=time.time())
        self._load = load
        self._timeout = timeout
        self._identity: Identity
        self._config: PresenceConfig
        self._context: ssl.SSLContext | None = None
        self._proxy: Proxy | None = None
        self._addresses: list[Any] = []
        self._sock: socket.socket | None = None
        self._peer: tuple[str, int]  # address and port of the open connection
        self._early_data = b""  # bytes from the server that arrived with the proxy's reply
        self._stream: probes.Stream | None = None
        self._trial: Trial[Any] | None = None

    async def findings(self) -> AsyncGenerator[Finding]:
        """Run the steps, and yield the finding of each step. Stop after the first grave fault."""
        steps: dict[CheckupStep, Callable[[], Awaitable[str | float | NotNeeded]]] = {
            CheckupStep.CONFIG: self._check_config,
            CheckupStep.DNS: self._check_name,
            CheckupStep.TCP: self._check_port,
            CheckupStep.PROXY: self._check_proxy,
            CheckupStep.TLS: self._check_tls,
            CheckupStep.HANDSHAKE: self._check_handshake,
            CheckupStep.CLOCK: self._check_clock,
            CheckupStep.API_KEY: self._check_key,
            CheckupStep.JOIN: self._check_join,
            CheckupStep.PRESENCE: self._check_presence,
            CheckupStep.HEARTBEAT: self._check_heartbeat,
        }
        try:
            for step, check in steps.items():
                start = time.monotonic()
                try:
                    found = await check()
                except StepError as failed:
                    self.facts = evolve(self.facts, **failed.facts)
                    diagnosis = diagnose(step, self.facts)
                    yield Finding(step, time.monotonic() - start, diagnosis=diagnosis)
                    if diagnosis.fault.grave:
                        return
                else:
                    yield _finding(step, found, time.monotonic() - start)
        finally:
            await self._close()

    async def _close(self) -> None:
        if self._trial is not None:
            await self._trial.talk.close()
        elif self._stream is not None:
            self._stream[1].transport.abort()
        elif self._sock is not None:
            self._sock.close()

    # ---------------------------------------------------------------- the settings

    async def _check_config(self) -> str:
        try:
            settings = self._load()
            if not settings.enabled:
                raise StepError(disabled_by=str(settings.source_of("enabled")))
            config = settings.config
            self._identity = settings.identity()
            self._context = settings.ssl_context()
            token = await in_daemon_thread("doctor", settings.access_token)
            self._proxy = find_proxy(settings.proxy, config)
        except SettingsError as exc:
            raise StepError(problems=exc.problems) from None
        except (ConfigError, IdentityError) as exc:
            raise StepError(problems=(str(exc),)) from None
        patience = PATIENCE * self._timeout
        self._config = config = evolve(
            config,
            access_token=token,
            asks_for_token=False,  # `token` is already fetched
            heartbeat_interval=HEARTBEAT,
            heartbeat_timeout=patience,
            connect_timeout=patience,
            join_timeout=patience,
            state_timeout=patience,
        )
        address = config.address(token)
        self.facts = evolve(
            self.facts,
            host=address.host.lower(),  # the URL may have the project ref in capitals
            port=address.port,
            tls=address.tls,
            path=address.target.partition("?")[0],
            protocol="jarvis" if config.speaks_jarvis else "phoenix",
            channel=config.channel,
            proxy=None if self._proxy is None else str(self._proxy),
            has_key=config.api_key is not None,
            key=claims_of(config.api_key),
            token=claims_of(token),
        )
        facts = self.facts
        if facts.needs_another_key:
            raise StepError()
        scheme = "wss" if facts.tls else "ws"
        protocol = "Jarvis JSON" if config.speaks_jarvis else "Phoenix"
        source = settings.source_of("server_url")
        return f"{protocol} at {scheme}://{address.authority}{facts.path}, from {source}"

    # ---------------------------------------------------------------- the network path

    async def _check_name(self) -> str:
        next_hop = self._proxy or self.facts
        host, port = next_hop.host, next_hop.port
        try:
            async with asyncio.timeout(self._timeout):
                found = await in_daemon_thread("doctor", lambda: look_up(host, port))
        except TimeoutError:
            raise StepError(silent=True, detail=f"no answer within {self._timeout:g} s") from None
        except socket.gaierror as exc:
            unknown = exc.errno in _UNKNOWN
            raise StepError(unknown_name=unknown, detail=os_error_words(exc)) from None
        self._addresses = found
        names = list(dict.fromkeys(str(address[0]) for *_, address in found))
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return f"{host} is {names[0]}{more}"

    async def _check_port(self) -> str:
        try:
            self._sock, failed = await probes.connect(self._addresses, self._timeout)
        except TimeoutError:
            raise StepError(silent=True, detail=f"no answer within {self._timeout:g} s") from None
        except OSError as exc:
            words = os_error_words(exc)
            raise StepError(refused=isinstance(exc, ConnectionRefusedError), detail=words) from None
        address, port = self._peer = self._sock.getpeername()[:2]
        but = f", but not to {' and '.join(failed)}" if failed else ""
        return f"connected to {f'[{address}]' if ':' in address else address}:{port}{but}"

    async def _check_proxy(self) -> str | NotNeeded:
        facts, sock, loop = self.facts, self._sock, asyncio.get_running_loop()
        if self._proxy is None:
            return NotNeeded("no proxy is used")
        assert sock is not None
        tunnel = ProxyTunnel(self._proxy, OpenTransport(ConnId(1), facts.host, facts.port, facts.tls))
        try:
            async with asyncio.timeout(self._timeout):
                await open_tunnel(
                    tunnel, lambda data: loop.sock_sendall(sock, data), lambda: loop.sock_recv(sock, 65536)
                )
        except TimeoutError:
            raise StepError(silent=True) from None
        except ProxyError as exc:
            raise StepError(
                proxy_refusal=exc.refusal, tunnel_is_open=tunnel.is_open, detail=exc.detail
            ) from None
        except OSError:
            raise StepError() from None
        self._early_data = tunnel.early_data
        return f"a tunnel to {facts.host}:{facts.port}"

    async def _check_tls(self) -> str | NotNeeded:
        facts, sock = self.facts, self._sock
        context = client_context(self._context) if facts.tls else None
        self._sock = None  # `open_connection` owns the socket now, even if the call fails
        try:
            async with asyncio.timeout(self._timeout):
                self._stream = await asyncio.open_connection(
                    sock=sock,
                    ssl=context,
                    server_hostname=facts.host if facts.tls else None,
                    # One second more than the step's limit, so that `asyncio.timeout` expires first.
                    ssl_handshake_timeout=self._timeout + 1 if facts.tls else None,
                )
        except OSError as exc:
            trouble, words = probes.why_no_tls(exc)
            ahead = await self._clock_ahead() if trouble in ("expired", "not yet valid") else None
            raise StepError(tls_trouble=trouble, detail=words, clock_ahead=ahead) from None
        if self._early_data:
            self._stream[0].feed_data(self._early_data)
        if not facts.tls:
            return NotNeeded("the URL begins with ws://")
        tls = self._stream[1].get_extra_info("ssl_object")
        until = (tls.getpeercert() or {}).get("notAfter")
        return f"{tls.version()}" + (f", the certificate is valid until {until}" if until else "")

    async def _clock_ahead(self) -> float | None:
        if self._proxy is not None:
            return None
        server = await probes.server_time(self.facts.host, *self._peer, self._timeout)
        return None if server is None else time.time() - server

    # ---------------------------------------------------------------- the WebSocket

    async def _check_handshake(self) -> str:
        facts = self.facts
        assert self._stream is not None
        make = JarvisTrial if facts.protocol == "jarvis" else PhoenixTrial
        self._trial = make(self._identity, self._config, self._stream, self._timeout)
        try:
            answer = await self._trial.open()
        except StepError as failed:
            if not failed.facts["silent"]:
                failed.facts["speaks_tls"] |= await self._speaks_tls()
            raise
        ahead = None if answer.date is None else time.time() - answer.date
        self.facts = evolve(facts, answer=answer, clock_ahead=ahead)
        if answer.status == 101:
            return "a WebSocket"
        if answer.status in (401, 403) and not answer.is_html:
            return f"a WebSocket server that answers HTTP {answer.status}"
        raise StepError(speaks_tls=await self._speaks_tls())

    async def _speaks_tls(self) -> bool:
        direct = self._proxy is None
        if not direct or self.facts.tls:
            return False
        return await probes.speaks_tls(self.facts.host, *self._peer, self._timeout)

    async def _check_clock(self) -> str | NotNeeded:
        if self.facts.clock_ahead is None:
            return NotNeeded("the server does not send its time")
        if self.facts.clock_is_off:
            raise StepError()
        return "the same as the server's"

    async def _check_key(self) -> str | NotNeeded:
        assert self.facts.answer is not None
        if self.facts.answer.status != 101:
            raise StepError()
        return "accepted" if self.facts.has_key else NotNeeded("none is set, and the server requires none")

    async def _check_join(self) -> str:
        assert self._trial is not None
        return await self._trial.join()

    async def _check_presence(self) -> str:
        assert self._trial is not None
        return await self._trial.presence()

    async def _check_heartbeat(self) -> float:
        assert self._trial is not None
        return await self._trial.heartbeat()


def _finding(step: CheckupStep, found: str | float | NotNeeded, seconds: float) -> Finding:
    if isinstance(found, NotNeeded):
        return Finding(step, None, found.why)
    if isinstance(found, float):
        return Finding(step, found, "round trip")
    return Finding(step, seconds, found)


# ----------------------------------------------------------------------------------------------------- report
# The findings of a check-up, as text and as JSON.


_STYLES = {"ok": "green", "skipped": "bright_black", "warning": "yellow", "failed": "bold red"}
_REMEDY = " " * 31 + "→ "


async def examine(load: Callable[[], Settings], timeout: float, *, as_lines: bool) -> Exit:
    """Run a check-up, and print the finding of each step immediately. Return the exit status."""
    console = Console(highlight=False, soft_wrap=True)
    status = Exit.OK
    async with aclosing(Checkup(load, timeout).findings()) as findings:
        async for finding in findings:
            status = exit_status(finding)
            if as_lines:
                print_json(as_json(finding))
            else:
                console.print(as_text(finding))
    if status is Exit.OK and not as_lines:
        console.print("All is well.")
    return status


def outcome(finding: Finding) -> str:
    """Return the result of a step in one word: `ok`, `skipped`, `warning` or `failed`."""
    if finding.diagnosis is not None:
        return "failed" if finding.diagnosis.fault.grave else "warning"
    return "skipped" if finding.seconds is None else "ok"


def exit_status(finding: Finding) -> Exit:
    """Return the exit status of a check-up whose last finding is `finding`."""
    if outcome(finding) != "failed":
        return Exit.OK
    assert finding.diagnosis is not None
    if finding.step is CheckupStep.CONFIG:
        return Exit.DISABLED if finding.diagnosis.fault.name == "presence-off" else Exit.USAGE
    return Exit.FAILED if finding.step in (CheckupStep.PRESENCE, CheckupStep.HEARTBEAT) else Exit.UNREACHABLE


def as_json(finding: Finding) -> dict[str, Any]:
    """Return a finding as an object for `--json`."""
    found: dict[str, Any] = {"step": finding.step, "status": outcome(finding)}
    if finding.diagnosis is not None:
        diagnosis = finding.diagnosis
        found |= {"fault": diagnosis.fault.name, "cause": diagnosis.cause, "remedy": diagnosis.remedy}
    else:
        found["found"] = finding.text
    return found if finding.seconds is None else found | {"seconds": round(finding.seconds, 4)}


def as_text(finding: Finding) -> Text:
    """Return a finding as a line of text. If the finding is a fault, a second line has the remedy."""
    word = outcome(finding)
    took = "" if finding.seconds is None else f"{finding.seconds * 1000:.0f} ms"
    line = Text.assemble((f"{word:<8}", _STYLES[word]), f" {finding.step:<10} {took:>9}  ")
    if finding.diagnosis is None:
        return line.append(printable(finding.text))
    return line.append(
        f"{printable(finding.diagnosis.cause)}\n{_REMEDY}{printable(finding.diagnosis.remedy)}"
    )


def run(load: Callable[[], Settings], timeout: float, *, as_lines: bool) -> Exit:
    """Run `examine` in a new event loop. Ctrl-C gives `Exit.INTERRUPTED`."""

    def load_aloud() -> Settings:
        settings = load()
        for warning in settings.warnings:
            click.echo(f"Warning: {warning}", err=True)
        return settings

    try:
        return asyncio.run(examine(load_aloud, timeout, as_lines=as_lines))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
