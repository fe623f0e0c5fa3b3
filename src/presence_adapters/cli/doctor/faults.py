"""Diagnosis of a failed step: a pure function from the facts to a cause and a remedy, and its fault table.

The first fault of the step whose condition fits is the diagnosis. So the specific faults of a step come
first, and its last fault always fits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from attrs import frozen

from presence_adapters.cli.doctor.facts import CheckupStep, Facts, HttpAnswer

if TYPE_CHECKING:
    from presence_adapters.cli.doctor.facts import TlsTrouble


# ------------------------------------------------------------------------------------------------------ fault
# The type of a fault, and conditions that several faults share.


Condition: TypeAlias = Callable[[Facts], bool]

OTHER_NETWORK = "Try from another network. If it works there, a firewall or proxy of this one is in the way."


@frozen
class Fault:
    """A possible fault. `name`: a stable id for scripts. `cause` and `remedy`: templates of texts for users.

    `diagnose` fills in the placeholders in braces. `fits`: whether the facts show this fault. `grave`: the
    fault ends the check-up; other faults are warnings.
    """

    name: str
    step: CheckupStep
    cause: str
    remedy: str
    fits: Condition
    grave: bool = True


def always(facts: Facts) -> bool:
    """Return `True`: the condition of the last fault of each step."""
    return True


def tls(trouble: TlsTrouble) -> Condition:
    """Return the condition that TLS failed with this trouble."""
    return lambda facts: facts.tls_trouble == trouble


def status(*statuses: int) -> Condition:
    """Return the condition that the HTTP response has one of these statuses."""
    return lambda facts: facts.answer is not None and facts.answer.status in statuses


# ----------------------------------------------------------------------------------------------------- faults
# The table of all faults, step by step. The order matters: see the top of the module.


_FIX_PROXY = (
    "Correct the setting proxy, or HTTPS_PROXY in the environment. If none is needed: NO_PROXY={host}."
)


def _clock_spoils_tls(facts: Facts) -> bool:
    return facts.tls_trouble in ("expired", "not yet valid") and facts.clock_is_off


_TOKEN_EXPIRED = "The access token has expired."
_NEW_TOKEN = "Get a new one: sign in again, or set access_token_command, which is asked before each use."
_TOKEN_EARLY = "The access token is from the future: it is not valid yet."
_CLOCKS = "Compare the clocks of this machine, of the server, and of the machine that issued the token."
_WAIT = "Wait a minute and try again. If it comes back: fewer clients, or higher limits on the server."


def _is_portal(facts: Facts) -> bool:
    """Whether a captive portal or a proxy has answered. Supabase replies in JSON and never redirects."""
    answer = facts.answer
    if answer is None:
        return False
    page = facts.project is not None and answer.is_html and answer.status < 500
    return answer.status == 511 or facts.sends_elsewhere or page


def _is_unavailable(facts: Facts) -> bool:
    return facts.answer is not None and facts.answer.status >= 500


def _is_expired(facts: Facts) -> bool:
    says_so = facts.says("expired") and facts.says("token", "jwt")
    return says_so or (facts.refusal is not None and facts.has_expired(facts.token))


def _rate_limited(facts: Facts) -> bool:
    return facts.says("ratelimit", "rate limit", "too many")


FAULTS = [
    # -- config
    Fault(
        "wrong-settings",
        CheckupStep.CONFIG,
        "{problems}.",
        "Correct it and try again. Each problem says where it is and what would be right.",
        lambda facts: bool(facts.problems),
    ),
    Fault(
        "presence-off",
        CheckupStep.CONFIG,
        "Presence is switched off: enabled is false in {setting}.",
        "Set enabled = true.",
        lambda facts: facts.disabled_by is not None,
    ),
    Fault(
        "no-api-key",
        CheckupStep.CONFIG,
        "A Supabase project demands an api key, and none is set.",
        "Set PRESENCE_API_KEY or api_key to the project's key: dashboard, Project Settings, API Keys.",
        lambda facts: not facts.has_key,
    ),
    Fault(
        "wrong-project",
        CheckupStep.CONFIG,
        "The api key is of the Supabase project {key_ref}, but server_url names {ref}.",
        "Take both from the same project: dashboard, Project Settings.",
        always,
    ),
    # -- DNS
    Fault(
        "no-such-proxy",
        CheckupStep.DNS,
        "Nobody knows the host of the proxy {proxy}.",
        _FIX_PROXY,
        lambda facts: facts.unknown_name and facts.proxy is not None,
    ),
    Fault(
        "no-such-project",
        CheckupStep.DNS,
        "There is no Supabase project {ref}: nobody knows the host {host}.",
        "Compare server_url with the project ref in the dashboard. A project that was deleted has no host.",
        lambda facts: facts.unknown_name and facts.project is not None,
    ),
    Fault(
        "no-such-host",
        CheckupStep.DNS,
        "There is no host {host}.",
        "Look for a slip in server_url. A name of an internal network needs that network, or its VPN.",
        lambda facts: facts.unknown_name,
    ),
    Fault(
        "no-name-server",
        CheckupStep.DNS,
        "The name server does not help with {host}: {detail}.",
        "Check that this machine is online, and its DNS settings.",
        always,
    ),
    # -- TCP
    Fault(
        "proxy-down",
        CheckupStep.TCP,
        "No connection to the proxy {proxy}: {detail}.",
        _FIX_PROXY,
        lambda facts: facts.proxy is not None,
    ),
    Fault(
        "refused-port",
        CheckupStep.TCP,
        "Nothing listens on {where}: the connection was refused.",
        "Start the server, or correct the port in server_url.",
        lambda facts: facts.refused,
    ),
    Fault(
        "no-answer",
        CheckupStep.TCP,
        "{where} does not answer within {timeout} s.",
        f"Check the address and the port. {OTHER_NETWORK}",
        lambda facts: facts.silent,
    ),
    Fault(
        "no-route",
        CheckupStep.TCP,
        "No connection to {where}: {detail}.",
        "Check that this machine is online, and its routes and VPN.",
        always,
    ),
    # -- proxy
    Fault(
        "proxy-login",
        CheckupStep.PROXY,
        "The proxy {proxy} wants a user name and password, or others than it was given: {detail}.",
        "Write them into its URL: PRESENCE_PROXY=http://USER:PASSWORD@HOST:PORT, or HTTPS_PROXY.",
        lambda facts: facts.proxy_refusal == "login",
    ),
    Fault(
        "proxy-no-way",
        CheckupStep.PROXY,
        "The proxy {proxy} cannot reach {where}: {detail}.",
        "Look for a slip in server_url. If it is right, the proxy's network is at fault.",
        lambda facts: facts.proxy_refusal == "unreachable",
    ),
    Fault(
        "proxy-refuses",
        CheckupStep.PROXY,
        "The proxy {proxy} does not let us through to {where}: {detail}.",
        "Ask who runs it to allow connections to {where}. If there is a way without it: NO_PROXY={host}.",
        # A web server that is not a proxy refuses CONNECT with 400: that is the fault `no-proxy`.
        lambda facts: facts.proxy_refusal == "forbidden" and not status(400)(facts),
    ),
    Fault(
        "proxy-silent",
        CheckupStep.PROXY,
        "The proxy {proxy} accepts connections, but does not answer within {timeout} s.",
        "Ask who runs it. If there is a way without it: NO_PROXY={host}.",
        lambda facts: facts.silent,
    ),
    Fault(
        "tunnel-speaks-first",
        CheckupStep.PROXY,
        "Behind the proxy {proxy} something speaks before it is spoken to, which no TLS server does.",
        "Correct the port in server_url. If it is right, ask who runs the proxy.",
        lambda facts: facts.tunnel_is_open,
    ),
    Fault(
        "no-proxy",
        CheckupStep.PROXY,
        "What listens on {proxy} is not a proxy of the kind that its URL names (http:// or socks5://).",
        _FIX_PROXY,
        always,
    ),
    # -- TLS
    Fault(
        "clock-off-tls",
        CheckupStep.TLS,
        "The clock of this machine is {clock} by the server's: the certificate of {where} looks {detail}.",
        "Set the clock, best by NTP.",
        _clock_spoils_tls,
    ),
    Fault(
        "certificate-expired",
        CheckupStep.TLS,
        "The certificate of {where} has expired.",
        "Renew it on the server. If it is valid, the clock of this machine is wrong.",
        tls("expired"),
    ),
    Fault(
        "certificate-early",
        CheckupStep.TLS,
        "The certificate of {where} is not valid yet.",
        "Wait, or replace it on the server. If it is valid, the clock of this machine is wrong.",
        tls("not yet valid"),
    ),
    Fault(
        "self-signed",
        CheckupStep.TLS,
        "The certificate of {where} is self-signed, so nothing says who is there.",
        "If it is yours, set tls_ca to the file with it. If not, somebody else has answered.",
        tls("self-signed"),
    ),
    Fault(
        "unknown-issuer",
        CheckupStep.TLS,
        "The certificate of {where} is from an authority that this machine does not trust.",
        "Set tls_ca to the certificate of that authority. A company's proxy that reads TLS has one, too.",
        tls("unknown issuer"),
    ),
    Fault(
        "other-host",
        CheckupStep.TLS,
        "The certificate of {where} is for another host.",
        "Use the name in server_url that the certificate is for, or get one for {host}.",
        tls("other host"),
    ),
    Fault(
        "bad-certificate",
        CheckupStep.TLS,
        "The certificate of {where} is none that can be accepted: {detail}.",
        "Replace it on the server. Certificates made by hand often lack what is asked of them today.",
        tls("bad certificate"),
    ),
    Fault(
        "no-tls",
        CheckupStep.TLS,
        "{where} does not speak TLS.",
        "If the server speaks plain text there, write ws:// instead of wss://; otherwise correct the port.",
        tls("no TLS"),
    ),
    Fault(
        "tls-closed",
        CheckupStep.TLS,
        "{where} closed the connection while TLS was set up.",
        f"The server, or something in between, does not want this connection. {OTHER_NETWORK}",
        tls("closed"),
    ),
    Fault(
        "tls-silent",
        CheckupStep.TLS,
        "{where} accepts connections, but does not answer in TLS within {timeout} s.",
        f"Check that it speaks TLS on this port. {OTHER_NETWORK}",
        tls("silent"),
    ),
    Fault(
        "tls-failed",
        CheckupStep.TLS,
        "TLS with {where} failed: {detail}.",
        "Check the host name, and what versions and ciphers of TLS the server has.",
        always,
    ),
    # -- handshake
    Fault(
        "tls-wanted",
        CheckupStep.HANDSHAKE,
        "{where} speaks TLS, and was spoken to in plain text.",
        "Write wss:// instead of ws:// in server_url.",
        lambda facts: facts.speaks_tls,
    ),
    Fault(
        "redirect-to-tls",
        CheckupStep.HANDSHAKE,
        "{where} takes no plain text: it sends us on to TLS (HTTP {status}).",
        "Write wss:// instead of ws:// in server_url. Its port is another one: mostly it can be left out.",
        lambda facts: facts.sends_to_tls,
    ),
    Fault(
        "redirect",
        CheckupStep.HANDSHAKE,
        "{where} sends us to another host, {redirect} (HTTP {status}).",
        "If that is the server's right name, put it into server_url; otherwise correct the path.",
        # The certificate proves that the server itself redirects, not a captive portal.
        lambda facts: facts.tls and facts.sends_elsewhere,
    ),
    Fault(
        "hidden-proxy",
        CheckupStep.HANDSHAKE,
        "A proxy in front of {where} wants to know who you are (HTTP 407).",
        "Set HTTPS_PROXY with a user name and password, or ask whose network this is.",
        status(407),
    ),
    Fault(
        "portal",
        CheckupStep.HANDSHAKE,
        "Something else answers in place of {where}, with a web page (HTTP {status}).",
        "Open any page in a browser and log in to the network, or get past the proxy.",
        _is_portal,
    ),
    Fault(
        "wrong-protocol-phoenix",
        CheckupStep.HANDSHAKE,
        "{where} has nothing at {path} (HTTP 404) for the Jarvis JSON protocol.",
        'If it is a Phoenix or Supabase server, set protocol = "phoenix"; otherwise correct the path.',
        lambda facts: facts.protocol == "jarvis" and status(404)(facts),
    ),
    Fault(
        "no-such-tenant",
        CheckupStep.HANDSHAKE,
        "{where} is a Supabase Realtime server, but has no project of that name (HTTP 404: {error}).",
        "Correct the project ref in server_url. A project that is paused or deleted is unknown, too: look at "
        "the Supabase dashboard. A server of your own takes the first label of the host for the project.",
        lambda facts: (
            status(404)(facts) and "tenant not found" in (facts.answer or HttpAnswer(0)).error.lower()
        ),
    ),
    Fault(
        "wrong-path",
        CheckupStep.HANDSHAKE,
        "There is a web server at {where}, but nothing at {path} (HTTP 404).",
        "Correct the path in server_url: /realtime/v1 for Supabase, mostly /socket for Phoenix, and for a "
        "Realtime server without Supabase's gateway.",
        status(404),
    ),
    Fault(
        "rate-limited",
        CheckupStep.HANDSHAKE,
        "{where} takes no more connections now (HTTP 429).",
        _WAIT,
        status(429),
    ),
    Fault(
        "project-paused",
        CheckupStep.HANDSHAKE,
        "The project at {where} is paused (HTTP 540).",
        "Restore it in the Supabase dashboard.",
        status(540),
    ),
    Fault(
        "project-restricted",
        CheckupStep.HANDSHAKE,
        "The project at {where} is restricted: over its quota, or a bill is not paid (HTTP 402).",
        "Look at usage and billing of the organization in the Supabase dashboard.",
        lambda facts: facts.project is not None and status(402)(facts),
    ),
    Fault(
        "unavailable",
        CheckupStep.HANDSHAKE,
        "{where} is there, but the server behind it is not well (HTTP {status}).",
        "Try again later. If it is yours, look at its log.",
        _is_unavailable,
    ),
    Fault(
        "no-websocket",
        CheckupStep.HANDSHAKE,
        "{where} answers as a web server does, not as a WebSocket server (HTTP {status}).",
        "Correct host, port and path in server_url. A proxy in between may know no WebSockets.",
        lambda facts: facts.answer is not None and facts.answer.status != 101,
    ),
    Fault(
        "broken-upgrade",
        CheckupStep.HANDSHAKE,
        "{where} agreed to a WebSocket, but not as the standard wants it: {detail}.",
        "Check that this is the server's own address. A proxy in between may have changed the answer.",
        status(101),
    ),
    Fault(
        "not-http",
        CheckupStep.HANDSHAKE,
        "What listens on {where} does not speak HTTP.",
        "Correct the port in server_url.",
        lambda facts: not facts.speaks_http,
    ),
    Fault(
        "wants-certificate",
        CheckupStep.HANDSHAKE,
        "{where} wants a certificate of whoever connects, and this command has none.",
        "Use an address without that. A program can give its client an ssl_context with a certificate.",
        lambda facts: "certificate is required" in facts.detail,
    ),
    Fault(
        "hung-up",
        CheckupStep.HANDSHAKE,
        "{where} hung up without an answer.",
        f"Check that a Realtime server listens on this port. {OTHER_NETWORK}",
        lambda facts: facts.ended,
    ),
    Fault(
        "mute-server",
        CheckupStep.HANDSHAKE,
        "{where} accepts connections, but does not answer within {timeout} s.",
        "Look whether the server hangs, or is overloaded. Check that it speaks HTTP on this port.",
        always,
    ),
    # -- clock
    Fault(
        "clock-off",
        CheckupStep.CLOCK,
        "The clock of this machine is {clock} by the server's.",
        "Set the clock, best by NTP: certificates and tokens are judged by it.",
        always,
        grave=False,
    ),
    # -- api key
    Fault(
        "api-key-expired",
        CheckupStep.API_KEY,
        "The api key has expired (HTTP {status}).",
        "Take the project's key of today from the dashboard.",
        lambda facts: facts.has_expired(facts.key),
    ),
    Fault(
        "token-expired",
        CheckupStep.API_KEY,
        _TOKEN_EXPIRED,
        _NEW_TOKEN,
        lambda facts: facts.has_expired(facts.token),
    ),
    Fault(
        "token-early", CheckupStep.API_KEY, _TOKEN_EARLY, _CLOCKS, lambda facts: facts.is_early(facts.token)
    ),
    Fault(
        "api-key-missing",
        CheckupStep.API_KEY,
        "{where} lets nobody in without an api key, and none is set (HTTP {status}).",
        "Set PRESENCE_API_KEY or api_key. A Phoenix server may want other params or headers.",
        lambda facts: not facts.has_key,
    ),
    Fault(
        "wrong-api-key",
        CheckupStep.API_KEY,
        "{where} does not accept the api key (HTTP {status}).",
        "Take the key of this very project from the dashboard, whole and without spaces.",
        always,
    ),
    # -- join
    Fault(
        "api-key-expired-join",
        CheckupStep.JOIN,
        "The server refused the join: the api key has expired.",
        "Take the project's key of today from the dashboard.",
        lambda facts: facts.says("expired") and facts.has_expired(facts.key),
    ),
    Fault(
        "token-expired-join",
        CheckupStep.JOIN,
        f"The server refused the join: {_TOKEN_EXPIRED}",
        _NEW_TOKEN,
        _is_expired,
    ),
    Fault(
        "token-early-join",
        CheckupStep.JOIN,
        f"The server refused the join: {_TOKEN_EARLY}",
        _CLOCKS,
        lambda facts: facts.refusal is not None and facts.is_early(facts.token),
    ),
    Fault(
        "rate-limited-join",
        CheckupStep.JOIN,
        "The server limits the rate of joins, or of connections: {refusal}.",
        _WAIT,
        _rate_limited,
    ),
    Fault(
        "realtime-disabled",
        CheckupStep.JOIN,
        "Realtime is disabled on the server: {refusal}.",
        "Enable the Realtime service: dashboard, Realtime, Settings.",
        lambda facts: facts.says("realtimedisabled", "realtime disabled", "realtime is disabled"),
    ),
    Fault(
        "private-only",
        CheckupStep.JOIN,
        "The server has private channels only: {refusal}.",
        "Allow public access: dashboard, Realtime, Settings.",
        lambda facts: facts.says("privateonly", "only allows private"),
    ),
    Fault(
        "no-rights",
        CheckupStep.JOIN,
        "You have no right to the channel {channel}: {refusal}.",
        "Set the access token of a user who has, or change the server's rules for this channel.",
        lambda facts: facts.says(
            "unauthorized", "permission", "forbidden", "not allowed", "private", "jwt", "token"
        ),
    ),
    Fault(
        "no-such-channel",
        CheckupStep.JOIN,
        "The server knows no channel {channel}: {refusal}.",
        "Correct the setting channel. A plain Phoenix server must have channels for realtime:*.",
        lambda facts: facts.says("unmatched topic"),
    ),
    Fault(
        "join-refused",
        CheckupStep.JOIN,
        "The server refused the join: {refusal}.",
        "Look at the server's log for the reason.",
        lambda facts: facts.refusal is not None,
    ),
    Fault(
        "wrong-protocol-jarvis",
        CheckupStep.JOIN,
        "What {where} says is not Phoenix.",
        'If it is a Jarvis server, set protocol = "jarvis". If it is a very old Phoenix, set vsn = "1.0.0".',
        lambda facts: facts.unreadable and facts.protocol == "phoenix",
    ),
    Fault(
        "wrong-protocol",
        CheckupStep.JOIN,
        "There is no talking to {where} in the Jarvis JSON protocol: {detail}.",
        'If it is a Phoenix or Supabase server, set protocol = "phoenix". If it is Jarvis, look at its log.',
        lambda facts: facts.protocol == "jarvis" and (facts.ended or facts.unreadable),
    ),
    Fault(
        "lost-in-join",
        CheckupStep.JOIN,
        "The connection was lost during the join: {detail}.",
        "Look at the server's log for the reason.",
        lambda facts: facts.ended,
    ),
    Fault(
        "join-unanswered",
        CheckupStep.JOIN,
        "The server did not answer the join of {channel} within {timeout} s.",
        "Look whether the server hangs or is overloaded. Check that it is one for Phoenix channels.",
        always,
    ),
    # -- presence
    Fault(
        "rate-limited-presence",
        CheckupStep.PRESENCE,
        "The server closed the channel because of a rate limit: {refusal}.",
        _WAIT,
        _rate_limited,
    ),
    Fault(
        "lost-in-presence",
        CheckupStep.PRESENCE,
        "The channel was closed before it said who is online: {detail}.",
        "Look at the server's log for the reason.",
        lambda facts: facts.ended,
    ),
    Fault(
        "presence-disabled",
        CheckupStep.PRESENCE,
        "We are in the channel, but the server does not say within {timeout} s who is online: presence seems "
        "to be disabled on it.",
        "Enable presence in the dashboard, under Realtime. A Phoenix channel must push presence_state.",
        always,
    ),
    # -- heartbeat
    Fault(
        "lost-in-heartbeat",
        CheckupStep.HEARTBEAT,
        "We lost the connection or the channel before a heartbeat came back: {detail}.",
        f"Look at the server's log for the reason. {OTHER_NETWORK}",
        lambda facts: facts.ended,
    ),
    Fault(
        "heartbeat-unanswered",
        CheckupStep.HEARTBEAT,
        "The server does not answer heartbeats within {timeout} s.",
        "Look whether the server hangs or is overloaded. A proxy may hold back what is small.",
        always,
    ),
]


# -------------------------------------------------------------------------------------------------- diagnosis


@frozen
class Diagnosis:
    """A fault, with its cause and remedy filled in for this case."""

    fault: Fault
    cause: str
    remedy: str


def diagnose(step: CheckupStep, facts: Facts) -> Diagnosis:
    """Return the diagnosis of a failed step: the first of its faults that fits."""
    fault = next(fault for fault in FAULTS if fault.step is step and fault.fits(facts))
    words = _words(facts)
    return Diagnosis(fault, fault.cause.format_map(words), fault.remedy.format_map(words))


def _words(facts: Facts) -> dict[str, str]:
    return {
        "where": facts.where,
        "host": facts.host,
        "path": facts.path,
        "proxy": facts.proxy or "",
        "channel": facts.channel,
        "timeout": f"{facts.timeout:g}",
        "ref": facts.project or "",
        "key_ref": facts.key.project or "",
        "problems": _without_stop("; ".join(facts.problems)),
        "setting": facts.disabled_by or "",
        "clock": facts.clock_words,
        "status": str(facts.answer.status) if facts.answer else "",
        "redirect": (facts.answer.redirect if facts.answer else None) or "",
        "error": facts.answer.error if facts.answer else "",
        "detail": _without_stop(facts.detail),
        "refusal": _without_stop(facts.refusal or ""),
    }


def _without_stop(words: str) -> str:
    """Strip the final period of an error text, because the templates add their own."""
    return words.rstrip(" .")
