"""The parts of `presence doctor` that need no network: facts, faults, what is read from bytes, the page."""

from __future__ import annotations

import re
import ssl
import time
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest

from adapters.broken_setups import jwt
from presence_adapters.cli.doctor.facts import CheckupStep, Claims, Facts, HttpAnswer, claims_of, in_units
from presence_adapters.cli.doctor.faults import FAULTS, Fault, always, diagnose
from presence_adapters.cli.doctor.probes import parsed_head, why_no_tls


def deep_jwt() -> str:
    claims = b'{"exp":' + 100_000 * b"[" + 100_000 * b"]" + b"}"
    return f"{jwt().partition('.')[0]}.{urlsafe_b64encode(claims).decode().rstrip('=')}.c"


PAGE = Path(__file__).parents[2] / "docs" / "howto" / "diagnose.md"


# ---------------------------------------------------------------------------------------------- the tables


def test_every_step_has_faults_in_the_order_of_the_steps_and_the_last_one_fits_always() -> None:
    order = list(CheckupStep)
    assert [fault.step for fault in FAULTS] == sorted((fault.step for fault in FAULTS), key=order.index)
    for step in CheckupStep:
        *special, last = [fault for fault in FAULTS if fault.step is step]
        assert last.fits is always
        assert always not in [fault.fits for fault in special]
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_what_a_fault_says_is_whole_sentences(fault: Fault) -> None:
    for text in (fault.cause, fault.remedy):
        assert text.endswith(".")
        assert text[0].isupper() or text[0] == "{"
    assert not any(name in fault.remedy for name in ("{detail}", "{refusal}"))  # others' words are no advice


@pytest.mark.parametrize(
    ("step", "facts", "name"),
    [
        (CheckupStep.HANDSHAKE, {"answer": HttpAnswer(302, redirect="login.hotel.test")}, "portal"),
        (CheckupStep.HANDSHAKE, {"answer": HttpAnswer(302, redirect="room.test")}, "no-websocket"),
        (
            CheckupStep.HANDSHAKE,
            {"answer": HttpAnswer(302, redirect="login.hotel.test"), "tls": True},
            "redirect",
        ),
        (CheckupStep.HANDSHAKE, {"answer": HttpAnswer(301, True, "room.test", True)}, "redirect-to-tls"),
        (
            CheckupStep.HANDSHAKE,
            {"answer": HttpAnswer(301, True, "abc.supabase.co", True), "host": "abc.supabase.co"},
            "redirect-to-tls",
        ),
        (
            CheckupStep.HANDSHAKE,
            {"answer": HttpAnswer(301, False, "room.test", True), "tls": True},
            "no-websocket",
        ),
        (CheckupStep.HANDSHAKE, {"answer": HttpAnswer(402)}, "no-websocket"),
        (CheckupStep.HANDSHAKE, {"answer": HttpAnswer(402), "host": "abc.supabase.co"}, "project-restricted"),
        (CheckupStep.HANDSHAKE, {"answer": HttpAnswer(511)}, "portal"),
        (CheckupStep.HANDSHAKE, {"answer": HttpAnswer(403, is_html=True)}, "no-websocket"),
        (
            CheckupStep.HANDSHAKE,
            {"answer": HttpAnswer(403, is_html=True), "host": "abc.supabase.co"},
            "portal",
        ),
        (
            CheckupStep.HANDSHAKE,
            {"answer": HttpAnswer(521, is_html=True), "host": "abc.supabase.co"},
            "unavailable",
        ),
        (CheckupStep.HANDSHAKE, {"answer": HttpAnswer(404)}, "wrong-path"),
        (CheckupStep.HANDSHAKE, {"answer": HttpAnswer(404), "protocol": "jarvis"}, "wrong-protocol-phoenix"),
        (CheckupStep.HANDSHAKE, {"answer": HttpAnswer(400), "speaks_tls": True}, "tls-wanted"),
        (CheckupStep.HANDSHAKE, {"silent": True}, "mute-server"),
        (CheckupStep.TLS, {"tls_trouble": "expired", "clock_ahead": 59.0}, "certificate-expired"),
        (CheckupStep.TLS, {"tls_trouble": "expired", "clock_ahead": 61.0}, "clock-off-tls"),
        (CheckupStep.TLS, {"tls_trouble": "self-signed", "clock_ahead": 9999.0}, "self-signed"),
        (CheckupStep.PROXY, {"proxy_refusal": "forbidden"}, "proxy-refuses"),
        (CheckupStep.PROXY, {"proxy_refusal": "unreachable"}, "proxy-no-way"),  # SOCKS
        (CheckupStep.HANDSHAKE, {"answer": HttpAnswer(404, error="Tenant not found")}, "no-such-tenant"),
        (CheckupStep.HANDSHAKE, {"answer": HttpAnswer(403, error="Tenant not found")}, "no-websocket"),
        (CheckupStep.TCP, {"proxy": "p:1", "refused": True}, "proxy-down"),
        (
            CheckupStep.API_KEY,
            {"has_key": True, "token": Claims(expires=99.0), "now": 100.0},
            "token-expired",
        ),
        # By the server's clock it has not.
        (
            CheckupStep.API_KEY,
            {"has_key": True, "token": Claims(expires=99.0), "now": 100.0, "clock_ahead": 50.0},
            "wrong-api-key",
        ),
        (CheckupStep.API_KEY, {"has_key": True, "token": Claims(starts=200.0), "now": 100.0}, "token-early"),
        (
            CheckupStep.API_KEY,
            {"has_key": True, "token": Claims(starts=150.0), "now": 100.0},
            "wrong-api-key",
        ),
        (CheckupStep.JOIN, {"refusal": "no", "token": Claims(expires=1.0), "now": 2.0}, "token-expired-join"),
        (CheckupStep.JOIN, {"refusal": "JwtSignatureError: Failed to validate JWT signature"}, "no-rights"),
        (CheckupStep.JOIN, {"refusal": "too many channels joined"}, "rate-limited-join"),
        (CheckupStep.JOIN, {"refusal": "your trial has expired"}, "join-refused"),
        (CheckupStep.JOIN, {"refusal": "JWT expired"}, "token-expired-join"),
        (
            CheckupStep.JOIN,
            {"refusal": "JWT expired", "key": Claims(expires=1.0), "now": 2.0},
            "api-key-expired-join",
        ),
        (CheckupStep.JOIN, {"refusal": "this account is disabled"}, "join-refused"),
        (CheckupStep.JOIN, {"unreadable": True, "protocol": "jarvis"}, "wrong-protocol"),
        (CheckupStep.JOIN, {"ended": True, "protocol": "phoenix"}, "lost-in-join"),
    ],
)
def test_the_special_fault_goes_before_the_general_one(
    step: CheckupStep, facts: dict[str, Any], name: str
) -> None:
    assert diagnose(step, Facts(**{"host": "room.test", **facts})).fault.name == name


def test_the_words_are_filled_in() -> None:
    facts = Facts(
        host="room.test",
        port=443,
        tls_trouble="not yet valid",
        clock_ahead=-7200.0,
        detail="it is not valid yet",
    )
    assert diagnose(CheckupStep.TLS, facts).cause == (
        "Compared with the server, the clock of this machine is 2 hours behind, "
        "so the certificate of room.test:443 is rejected: it is not valid yet."
    )
    braces = Facts(refusal="{host} {0}")
    assert diagnose(CheckupStep.JOIN, braces).cause == "The server refused the join: {host} {0}."
    sentence = Facts(refusal="It is full moon. ")
    assert diagnose(CheckupStep.JOIN, sentence).cause == "The server refused the join: It is full moon."


def test_an_ipv6_address_is_told_from_its_port() -> None:
    facts = Facts(host="::1", port=4000, refused=True)
    assert (
        diagnose(CheckupStep.TCP, facts).cause == "Nothing listens on [::1]:4000: the connection was refused."
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 seconds"),
        (1, "1 second"),
        (-59, "59 seconds"),
        (60, "1 minute"),
        (7300, "2 hours"),
        (-1e6, "12 days"),
    ],
)
def test_a_time_in_its_largest_unit(seconds: float, words: str) -> None:
    assert in_units(seconds) == words


# ---------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize(
    ("token", "claims"),
    [
        (None, Claims()),
        ("sb_publishable_abc", Claims()),
        ("a.b.c", Claims()),
        ("a.bm8.c", Claims()),  # the payload is no JSON
        ("a.MTI.c", Claims()),  # or no object
        (jwt(), Claims()),
        (jwt(exp=12, iat=3, nbf=4, ref="abc"), Claims(12.0, 4.0, "abc")),
        (jwt(exp="12", iat=True, ref=5), Claims()),
        (jwt(iat=3), Claims(None, 3.0, None)),
        (jwt(exp=10**400, iat=float("inf"), nbf=float("nan")), Claims()),
        (deep_jwt(), Claims()),
        ("\ud800.e30.e30", Claims()),
        ("é.e30.e30", Claims()),
    ],
)
def test_claims(token: str | None, claims: Claims) -> None:
    assert claims_of(token) == claims


DATE = "Date: Thu, 01 Jan 1970 00:01:40 GMT"


def test_a_date_without_a_zone_is_one_of_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    data = f"HTTP/1.1 403 No\r\n{DATE}\r\n\r\n".replace("GMT", "-0000").encode()
    tzset = getattr(time, "tzset", lambda: None)  # there is none on Windows
    monkeypatch.setenv("TZ", "JST-9")
    tzset()
    try:
        assert parsed_head(data) == HttpAnswer(403, date=100.0)
    finally:
        monkeypatch.undo()
        tzset()


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"", None),
        (b"SSH-2.0-OpenSSH\r\n", None),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\n\r\n", HttpAnswer(200)),
        (b"HTTP/1.0 502\r\n", HttpAnswer(502)),  # not all has come
        (f"HTTP/1.1 403 No\r\n{DATE}\r\n\r\n".encode(), HttpAnswer(403, date=100.0)),
        (b"HTTP/1.1 403 No\r\nDate: today\r\n\r\n", HttpAnswer(403)),
        (b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n", HttpAnswer(103)),
        (b"HTTP/1.1 100 Go on\r\n\r\n" * 3000 + b"HTTP/1.1 403 No\r\n\r\n", HttpAnswer(403)),
        (b"HTTP/1.1 101 Yes\r\n\r\nHTTP/1.1 403 No\r\n\r\n", HttpAnswer(101)),
        (b"HTTP/1.1 200 OK\r\nContent-Type: TEXT/HTML\r\n\r\n", HttpAnswer(200, True)),
        (b"HTTP/1.1 200 OK\r\n\r\n\n <html>", HttpAnswer(200, True)),
        (
            b"HTTP/1.1 302 Go\r\nLocation: https://a.test/?key=x\r\n\r\n",
            HttpAnswer(302, False, "a.test", True),
        ),
        (b"HTTP/1.1 302 Go\r\nLocation: /login\r\n\r\n", HttpAnswer(302)),
        (b"HTTP/1.1 302 Go\r\nLocation: http://[x\r\n\r\n", HttpAnswer(302)),
        (b"HTTP/1.1 302 Go\r\nno header at all\r\n\xff: \xff\r\n\r\n", HttpAnswer(302)),
    ],
)
def test_the_head_of_an_http_answer(data: bytes, answer: HttpAnswer | None) -> None:
    assert parsed_head(data) == answer


def verification(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "…")
    error.verify_code, error.verify_message = code, "in its words"
    return error


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        *[(verification(code), "unknown issuer") for code in (2, 19, 20, 21)],
        (verification(18), "self-signed"),
        (verification(62), "other host"),
        (verification(26), "bad certificate"),
        (ssl.SSLEOFError(8, "EOF"), "closed"),
        (ConnectionResetError(), "closed"),
        (TimeoutError(), "silent"),
        (ssl.SSLError("?"), "other"),
    ],
)
def test_why_there_is_no_tls(error: OSError, trouble: str) -> None:
    assert why_no_tls(error)[0] == trouble


# ---------------------------------------------------------------------------------------------- the page

SHOWN = {
    "where": "HOST:PORT",
    "host": "HOST",
    "path": "PATH",
    "channel": "CHANNEL",
    "timeout": "10",
    "ref": "REF",
    "key_ref": "OTHER",
    "problems": "WHERE: WHAT",
    "setting": "WHERE",
    "proxy": "PROXY",
    "clock": "3 hours behind",
    "status": "STATUS",
    "redirect": "OTHER.HOST",
    "detail": "…",
    "error": "…",
    "refusal": "…",
}
"""What stands in the page for what is filled in."""


def row(fault: Fault) -> str:
    cause, remedy = (text.format_map(SHOWN) for text in (fault.cause, fault.remedy))
    return f"| `{fault.name}` | {cause} | {remedy} |"


@pytest.mark.parametrize("step", list(CheckupStep))
def test_the_page_has_every_fault_in_its_words(step: CheckupStep) -> None:
    section = (
        PAGE.read_text("utf-8").partition(f"\n### {step[0].upper()}{step[1:]}\n")[2].partition("\n##")[0]
    )
    told = [line for line in section.splitlines() if line.startswith("| `")]
    assert told == [row(fault) for fault in FAULTS if fault.step is step]


def test_the_page_has_no_fault_that_is_none() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert rows == [fault.name for fault in FAULTS]
