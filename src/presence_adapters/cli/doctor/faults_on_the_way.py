"""The faults from the settings to a stream to the server: a table, in the order that `diagnosis` says."""

from __future__ import annotations

from presence_adapters.cli.doctor.facts import CheckupStep, Facts
from presence_adapters.cli.doctor.fault import OTHER_NETWORK, Fault, always, status, tls

_FIX_PROXY = (
    "Correct the setting proxy, or HTTPS_PROXY in the environment. If none is needed: NO_PROXY={host}."
)


def _clock_spoils_tls(facts: Facts) -> bool:
    return facts.tls_trouble in ("expired", "not yet valid") and facts.clock_is_off


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
        # 400 is what a web server says that is no proxy.
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
]
