"""Diagnosis of a failed step: a table of faults, and a function from the facts to a cause and a remedy.

The diagnosis is the first fault of the step whose condition fits the facts. Therefore, specific faults
precede general faults, and the last fault of each step always fits.
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

OTHER_NETWORK = (
    "Try from another network. If it works there, a firewall or proxy of this network is the cause."
)


@frozen
class Fault:
    """A possible fault. `name`: a stable id for scripts. `cause` and `remedy`: templates of texts for users.

    `diagnose` fills in the placeholders in braces. `fits`: whether the facts show this fault. `grave`:
    whether the fault ends the check-up. Faults that are not grave are warnings.
    """

    name: str
    step: CheckupStep
    cause: str
    remedy: str
    fits: Condition
    grave: bool = True


def always(facts: Facts) -> bool:
    """Return `True`. The last fault of each step has this condition."""
    return True


def tls(trouble: TlsTrouble) -> Condition:
    """Return a condition that holds if TLS failed with the given kind of trouble."""
    return lambda facts: facts.tls_trouble == trouble


def status(*statuses: int) -> Condition:
    """Return a condition that holds if the HTTP response has one of the given statuses."""
    return lambda facts: facts.answer is not None and facts.answer.status in statuses


# ----------------------------------------------------------------------------------------------------- faults
# The table of all faults, step by step. The order matters: see the docstring of this module.


_FIX_PROXY = (
    "Correct the setting proxy, or HTTPS_PROXY in the environment. "
    "To connect without a proxy, set NO_PROXY={host}."
)


def _clock_spoils_tls(facts: Facts) -> bool:
    return facts.tls_trouble in ("expired", "not yet valid") and facts.clock_is_off


_TOKEN_EXPIRED = "The access token has expired."
_NEW_TOKEN = "Get a new token: sign in again, or set access_token_command, which runs before each use."
_TOKEN_EARLY = "The access token is not valid yet."
_CLOCKS = "Compare the clocks of this machine, of the server, and of the machine that issued the token."
_WAIT = "Wait a minute and try again. If it happens again, use fewer clients or raise the server's limits."


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
        "Correct each problem and try again. The text names the place and the valid values.",
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
        "A Supabase project requires an API key, but none is set.",
        "Set PRESENCE_API_KEY or api_key to the project's key: dashboard, Project Settings, API Keys.",
        lambda facts: not facts.has_key,
    ),
    Fault(
        "wrong-project",
        CheckupStep.CONFIG,
        "The API key belongs to the Supabase project {key_ref}, but server_url names {ref}.",
        "Take both from the same project: dashboard, Project Settings.",
        always,
    ),
    # -- DNS
    Fault(
        "no-such-proxy",
        CheckupStep.DNS,
        "DNS does not know the host name of the proxy {proxy}.",
        _FIX_PROXY,
        lambda facts: facts.unknown_name and facts.proxy is not None,
    ),
    Fault(
        "no-such-project",
        CheckupStep.DNS,
        "There is no Supabase project {ref}: DNS does not know the host name {host}.",
        "Compare server_url with the project ref in the dashboard. A deleted project has no host name.",
        lambda facts: facts.unknown_name and facts.project is not None,
    ),
    Fault(
        "no-such-host",
        CheckupStep.DNS,
        "DNS does not know the host name {host}.",
        "Check the spelling of server_url. A name of an internal network requires that network, or its VPN.",
        lambda facts: facts.unknown_name,
    ),
    Fault(
        "no-name-server",
        CheckupStep.DNS,
        "The look-up of the host name {host} failed: {detail}.",
        "Check that this machine is online, and check its DNS settings.",
        always,
    ),
    # -- TCP
    Fault(
        "proxy-down",
        CheckupStep.TCP,
        "Cannot connect to the proxy {proxy}: {detail}.",
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
        "Cannot connect to {where}: {detail}.",
        "Check that this machine is online, and check its routes and VPN.",
        always,
    ),
    # -- proxy
    Fault(
        "proxy-login",
        CheckupStep.PROXY,
        "The proxy {proxy} requires a user name and password, or rejected the given ones: {detail}.",
        "Write them into the proxy's URL: PRESENCE_PROXY=http://USER:PASSWORD@HOST:PORT, or HTTPS_PROXY.",
        lambda facts: facts.proxy_refusal == "login",
    ),
    Fault(
        "proxy-no-way",
        CheckupStep.PROXY,
        "The proxy {proxy} cannot reach {where}: {detail}.",
        "Check the spelling of server_url. If it is right, the proxy's network is the cause.",
        lambda facts: facts.proxy_refusal == "unreachable",
    ),
    Fault(
        "proxy-refuses",
        CheckupStep.PROXY,
        "The proxy {proxy} refuses a tunnel to {where}: {detail}.",
        "Ask its administrator to allow {where}. To connect without a proxy, set NO_PROXY={host}.",
        lambda facts: facts.proxy_refusal == "forbidden",
    ),
    Fault(
        "proxy-silent",
        CheckupStep.PROXY,
        "The proxy {proxy} accepts connections, but does not answer within {timeout} s.",
        "Ask its administrator. To connect without a proxy, set NO_PROXY={host}.",
        lambda facts: facts.silent,
    ),
    Fault(
        "tunnel-speaks-first",
        CheckupStep.PROXY,
        "The server behind the proxy {proxy} sent data before the client did. A TLS server never does that.",
        "Correct the port in server_url. If it is right, ask the proxy's administrator.",
        lambda facts: facts.tunnel_is_open,
    ),
    Fault(
        "no-proxy",
        CheckupStep.PROXY,
        "The server at {proxy} is not a proxy of the kind in its URL (http:// or socks5://).",
        _FIX_PROXY,
        always,
    ),
    # -- TLS
    Fault(
        "clock-off-tls",
        CheckupStep.TLS,
        "Compared with the server, the clock of this machine is {clock}, so the certificate of {where} is "
        "rejected: {detail}.",
        "Set the clock, preferably by NTP.",
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
        "The certificate of {where} is self-signed, so it does not prove the server's identity.",
        "If the certificate is yours, set tls_ca to its file. If not, another server has answered.",
        tls("self-signed"),
    ),
    Fault(
        "unknown-issuer",
        CheckupStep.TLS,
        "The certificate of {where} is from an authority that this machine does not trust.",
        "Set tls_ca to the authority's certificate. A company proxy that decrypts TLS has its own authority.",
        tls("unknown issuer"),
    ),
    Fault(
        "other-host",
        CheckupStep.TLS,
        "The certificate of {where} is for another host.",
        "In server_url, use the name that the certificate is for, or get a certificate for {host}.",
        tls("other host"),
    ),
    Fault(
        "bad-certificate",
        CheckupStep.TLS,
        "The certificate of {where} is not acceptable: {detail}.",
        "Replace it on the server. Certificates made by hand often lack extensions that are required today.",
        tls("bad certificate"),
    ),
    Fault(
        "no-tls",
        CheckupStep.TLS,
        "{where} does not speak TLS.",
        "If the server does not use TLS, write ws:// instead of wss://. Otherwise correct the port.",
        tls("no TLS"),
    ),
    Fault(
        "tls-closed",
        CheckupStep.TLS,
        "{where} closed the connection during the TLS handshake.",
        f"The server, or a device on the way, rejects this connection. {OTHER_NETWORK}",
        tls("closed"),
    ),
    Fault(
        "tls-silent",
        CheckupStep.TLS,
        "{where} accepts connections, but does not answer the TLS handshake within {timeout} s.",
        f"Check that it speaks TLS on this port. {OTHER_NETWORK}",
        tls("silent"),
    ),
    Fault(
        "tls-failed",
        CheckupStep.TLS,
        "The TLS handshake with {where} failed: {detail}.",
        "Check the host name, and which TLS versions and ciphers the server supports.",
        always,
    ),
    # -- handshake
    Fault(
        "tls-wanted",
        CheckupStep.HANDSHAKE,
        "{where} expects TLS, but server_url begins with ws:// (plain text).",
        "Write wss:// instead of ws:// in server_url.",
        lambda facts: facts.speaks_tls,
    ),
    Fault(
        "redirect-to-tls",
        CheckupStep.HANDSHAKE,
        "{where} does not accept plain text: it redirects to TLS (HTTP {status}).",
        "Write wss:// instead of ws:// in server_url. TLS uses another port: correct it, or leave it out.",
        lambda facts: facts.sends_to_tls,
    ),
    Fault(
        "redirect",
        CheckupStep.HANDSHAKE,
        "{where} redirects to another host, {redirect} (HTTP {status}).",
        "If that is the right host, put it into server_url. Otherwise correct the path.",
        # The certificate proves that the server itself redirects, not a captive portal.
        lambda facts: facts.tls and facts.sends_elsewhere,
    ),
    Fault(
        "hidden-proxy",
        CheckupStep.HANDSHAKE,
        "A proxy in front of {where} requires a user name and password (HTTP 407).",
        "Set HTTPS_PROXY with a user name and password, or ask the administrator of this network.",
        status(407),
    ),
    Fault(
        "portal",
        CheckupStep.HANDSHAKE,
        "Another server answered in place of {where}, with a web page (HTTP {status}).",
        "Open any page in a browser and log in to the network, or bypass the proxy.",
        _is_portal,
    ),
    Fault(
        "wrong-protocol-phoenix",
        CheckupStep.HANDSHAKE,
        "{where} does not serve the Jarvis JSON protocol at {path} (HTTP 404).",
        'If it is a Phoenix or Supabase server, set protocol = "phoenix". Otherwise correct the path.',
        lambda facts: facts.protocol == "jarvis" and status(404)(facts),
    ),
    Fault(
        "no-such-tenant",
        CheckupStep.HANDSHAKE,
        "{where} is a Supabase Realtime server, but does not know this project (HTTP 404: {error}).",
        "Correct the project ref in server_url. A paused or deleted project is unknown, too: check "
        "the Supabase dashboard. A self-hosted server uses the first label of the host as the project name.",
        lambda facts: (
            status(404)(facts) and "tenant not found" in (facts.answer or HttpAnswer(0)).error.lower()
        ),
    ),
    Fault(
        "wrong-path",
        CheckupStep.HANDSHAKE,
        "{where} is a web server, but has nothing at {path} (HTTP 404).",
        "Correct the path in server_url: /realtime/v1 for Supabase, usually /socket for Phoenix and for a "
        "Realtime server without Supabase's gateway.",
        status(404),
    ),
    Fault(
        "rate-limited",
        CheckupStep.HANDSHAKE,
        "{where} does not accept more connections at the moment (HTTP 429).",
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
        "The project at {where} is restricted: it is over its quota, or a bill is unpaid (HTTP 402).",
        "Check the usage and billing of the organization in the Supabase dashboard.",
        lambda facts: facts.project is not None and status(402)(facts),
    ),
    Fault(
        "unavailable",
        CheckupStep.HANDSHAKE,
        "{where} answers, but reports a server error (HTTP {status}).",
        "Try again later. If the server is yours, check its log.",
        _is_unavailable,
    ),
    Fault(
        "no-websocket",
        CheckupStep.HANDSHAKE,
        "{where} answers as a web server, not as a WebSocket server (HTTP {status}).",
        "Correct the host, port or path in server_url. A proxy on the way may not support WebSockets.",
        lambda facts: facts.answer is not None and facts.answer.status != 101,
    ),
    Fault(
        "broken-upgrade",
        CheckupStep.HANDSHAKE,
        "{where} accepted the WebSocket upgrade, but its response is invalid: {detail}.",
        "Check that this is the server's own address. A proxy on the way may have changed the response.",
        status(101),
    ),
    Fault(
        "not-http",
        CheckupStep.HANDSHAKE,
        "The server at {where} does not speak HTTP.",
        "Correct the port in server_url.",
        lambda facts: not facts.speaks_http,
    ),
    Fault(
        "wants-certificate",
        CheckupStep.HANDSHAKE,
        "{where} requires a client certificate, but this command does not send one.",
        "Use another address. A program can pass its client an ssl_context with a certificate.",
        tls("wants certificate"),
    ),
    Fault(
        "hung-up",
        CheckupStep.HANDSHAKE,
        "{where} closed the connection without an answer.",
        f"Check that a Realtime server listens on this port. {OTHER_NETWORK}",
        lambda facts: facts.ended,
    ),
    Fault(
        "mute-server",
        CheckupStep.HANDSHAKE,
        "{where} accepts connections, but does not answer within {timeout} s.",
        "Check whether the server hangs or is overloaded, and whether it speaks HTTP on this port.",
        always,
    ),
    # -- clock
    Fault(
        "clock-off",
        CheckupStep.CLOCK,
        "Compared with the server, the clock of this machine is {clock}.",
        "Set the clock, preferably by NTP: it decides whether certificates and tokens are valid.",
        always,
        grave=False,
    ),
    # -- api key
    Fault(
        "api-key-expired",
        CheckupStep.API_KEY,
        "The API key has expired (HTTP {status}).",
        "Copy the project's current key from the dashboard.",
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
        "{where} requires an API key, but none is set (HTTP {status}).",
        "Set PRESENCE_API_KEY or api_key. A Phoenix server may require other params or headers.",
        lambda facts: not facts.has_key,
    ),
    Fault(
        "wrong-api-key",
        CheckupStep.API_KEY,
        "{where} does not accept the API key (HTTP {status}).",
        "Copy the complete key of this project from the dashboard, without spaces.",
        always,
    ),
    # -- join
    Fault(
        "api-key-expired-join",
        CheckupStep.JOIN,
        "The server refused the join: the API key has expired.",
        "Copy the project's current key from the dashboard.",
        lambda facts: facts.says("expired") and facts.has_expired(facts.key),
    ),
    Fault(
        "token-expired-join",
        CheckupStep.JOIN,
        "The server refused the join: the access token has expired.",
        _NEW_TOKEN,
        _is_expired,
    ),
    Fault(
        "token-early-join",
        CheckupStep.JOIN,
        "The server refused the join: the access token is not valid yet.",
        _CLOCKS,
        lambda facts: facts.refusal is not None and facts.is_early(facts.token),
    ),
    Fault(
        "rate-limited-join",
        CheckupStep.JOIN,
        "The server limits joins or connections: {refusal}.",
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
        "The server allows only private channels: {refusal}.",
        "Allow public access: dashboard, Realtime, Settings.",
        lambda facts: facts.says("privateonly", "only allows private"),
    ),
    Fault(
        "no-rights",
        CheckupStep.JOIN,
        "You are not allowed to join the channel {channel}: {refusal}.",
        "Set the access token of a user with this right, or change the server's rules for this channel.",
        lambda facts: facts.says(
            "unauthorized", "permission", "forbidden", "not allowed", "private", "jwt", "token"
        ),
    ),
    Fault(
        "no-such-channel",
        CheckupStep.JOIN,
        "The server does not have the channel {channel}: {refusal}.",
        "Correct the setting channel. A plain Phoenix server must define a channel for realtime:*.",
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
        "{where} does not speak the Phoenix protocol.",
        'For a Jarvis server, set protocol = "jarvis". For a very old Phoenix server, set vsn = "1.0.0".',
        lambda facts: facts.unreadable and facts.protocol == "phoenix",
    ),
    Fault(
        "wrong-protocol",
        CheckupStep.JOIN,
        "{where} does not speak the Jarvis JSON protocol: {detail}.",
        'For a Phoenix or Supabase server, set protocol = "phoenix". For a Jarvis server, look at its log.',
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
        "Check whether the server hangs or is overloaded, and whether it serves Phoenix channels.",
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
        "The channel was closed before the list of online users arrived: {detail}.",
        "Look at the server's log for the reason.",
        lambda facts: facts.ended,
    ),
    Fault(
        "presence-disabled",
        CheckupStep.PRESENCE,
        "The server accepted the join, but did not send the list of online users within {timeout} s. "
        "Presence seems to be disabled on the server.",
        "Enable presence in the dashboard, under Realtime. A Phoenix channel must push presence_state.",
        always,
    ),
    # -- heartbeat
    Fault(
        "lost-in-heartbeat",
        CheckupStep.HEARTBEAT,
        "The connection or the channel was lost before the heartbeat reply arrived: {detail}.",
        f"Look at the server's log for the reason. {OTHER_NETWORK}",
        lambda facts: facts.ended,
    ),
    Fault(
        "heartbeat-unanswered",
        CheckupStep.HEARTBEAT,
        "The server did not answer a heartbeat within {timeout} s.",
        "Check whether the server hangs or is overloaded. A proxy may delay small messages.",
        always,
    ),
]


# -------------------------------------------------------------------------------------------------- diagnosis


@frozen
class Diagnosis:
    """A fault of a check-up, with the texts of its cause and remedy."""

    fault: Fault
    cause: str
    remedy: str


def diagnose(step: CheckupStep, facts: Facts) -> Diagnosis:
    """Return the diagnosis of a failed step: the first fault of this step that fits the facts."""
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
    """Remove the final period of an error text, because the templates add a period."""
    return words.rstrip(" .")
