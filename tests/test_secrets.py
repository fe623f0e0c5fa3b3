"""What is a secret, and where it is hidden: where people look, and nowhere else."""

from __future__ import annotations

import json
import time
from base64 import b64encode, urlsafe_b64encode
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis_rig import JarvisRig
from presence_proto import (
    ChannelDown,
    ChannelMessage,
    CommandFailed,
    JoinFailed,
    PushReplied,
    RealtimeConfig,
    SocketDisconnected,
    TrackFailed,
)
from presence_proto.config import auth_token_subprotocol
from presence_proto.secrets import (
    MAX_CODED,
    MAX_TEXT,
    MAX_TOKENS,
    MIN_SECRET,
    Credentials,
    header_pieces,
    header_secrets,
    hide,
    hide_subprotocols,
    is_secret_name,
    subprotocol_secrets,
)
from presence_rig import PresenceRig
from rig import Rig, realtime

ROOM = "room:a"
SECRET = "s3cr3t+/=credential"

# ---------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name",
    [
        *("token", "access_token", "accessToken", "user_token", "apptoken", "id-token", "X-Auth-Token"),
        *("apikey", "api_key", "X-Api-Key", "x-access-key", "Ocp-Apim-Subscription-Key", "service_key"),
        *("Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "auth", "jwt", "Credentials"),
        *("password", "passwd", "pwd", "db_password", "client_secret", "clientSecret", "signature", "sig"),
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "key",
            "presence_key",
            "user_id",
            "reason",
            "server",
            "vsn",
            "platform",
            "token_type",
            "author",
        ),
        *("Host", "User-Agent", "Origin", "Accept-Language", "X-Client-Info", "cookies_enabled", "signed"),
    ],
)
def test_names_of_anything_else(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("name", "value", "secrets"),
    [
        ("Authorization", "Bearer abc.def", ["abc.def"]),
        ("authorization", "abc.def", ["abc.def"]),
        ("Authorization", "Token  a b", ["a b"]),
        ("Authorization", "Basic YW5uOmh1bnRlcjI=", ["YW5uOmh1bnRlcjI="]),
        ("Authorization", 'Digest user="ann", nc="66"', ["ann", "66"]),
        ("Cookie", "sid=a=bc; theme=dark;", ["a=bc", "dark"]),
        ("Cookie", "abc", ["abc"]),
        ("X-Api-Key", "ab=cd", ["ab=cd"]),
        ("X-Auth-Token", "Bearer ab", ["ab"]),
        ("User-Agent", "Bearer abc", []),
        ("X-Client-Info", "supabase-py/2", []),
    ],
)
def test_the_secrets_in_a_header(name: str, value: str, secrets: list[str]) -> None:
    assert header_secrets(name, value) == secrets
    assert "".join(piece for piece, _ in header_pieces(name, value)) == value


def test_the_secrets_in_a_subprotocol() -> None:
    assert subprotocol_secrets("phoenix") == []
    assert subprotocol_secrets(auth_token_subprotocol("a-token")) == ["YS10b2tlbg"]
    assert subprotocol_secrets("base64url.bearer.authorization.k8s.io.a-token") == ["a-token"]
    names = ("phoenix", auth_token_subprotocol(SECRET))
    assert hide_subprotocols(names) == "('phoenix', 'base64url.bearer.phx.…')"
    assert hide_subprotocols(["base64url.bearer.phx.x"]) == "…"  # what is refused is not shown, either


# ---------------------------------------------------------------------------------------------- texts


def test_a_secret_is_hidden_in_each_of_its_forms() -> None:
    credentials = Credentials([SECRET])
    data = SECRET.encode()
    for form in (
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        quote_plus(SECRET).lower(),
        json.dumps(SECRET)[1:-1],
        b64encode(data).rstrip(b"=").decode(),
        urlsafe_b64encode(data).rstrip(b"=").decode(),
    ):
        assert credentials.hide(f"<{form}>") == "<…>"
    assert hide("a \\u00fcber-secret, a über-secret", ["über-secret"]) == "a …, a …"
    assert hide("\ud800-lonely-half", ["\ud800-lonely-half"]) == "…"


def test_short_secrets_are_ordinary_words() -> None:
    short, long = "x" * (MIN_SECRET - 1), "y" * MIN_SECRET
    assert hide(f"{short} {long} any", [short, long, "any", ""]) == f"{short} … any"
    assert hide("too many connected users", ["any"]) == "too many connected users"
    assert hide("nothing", []) == "nothing"


def test_a_secret_that_holds_another_is_hidden_whole() -> None:
    assert hide("[abcdefgh-more] [abcdefgh]", ["abcdefgh", "abcdefgh-more"]) == "[…] […]"


@pytest.mark.parametrize("unit", ["x", "ü%"])
@pytest.mark.parametrize("text", ["not allowed", "the token {} is not allowed", "of {} a part"])
def test_a_token_as_long_as_a_message_is_hidden_at_once(text: str, unit: str) -> None:
    """Clients choose the tokens that a hub's rule refuses, and the hub waits meanwhile."""
    token = unit * (1_000_000 // len(unit))
    began = time.process_time()
    for form in (token, json.dumps(token)[1:-1]):
        assert hide(text.format(form), [token]) == text.format("…")
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "length", [MAX_CODED - 1, MAX_CODED, MAX_CODED + 1, 4 * MAX_CODED, 4 * MAX_CODED + 1]
)
def test_a_long_secret_is_hidden_as_it_is_and_in_json(length: int) -> None:
    secret = 'ü"' * length
    for one in (secret[:length], secret[1 : length + 1]):
        for form in (one, json.dumps(one)[1:-1], json.dumps(one, ensure_ascii=False)[1:-1]):
            assert hide(f"a {form} b {form}", [one]) == "a … b …"


def test_a_quote_ends_with_no_part_of_a_secret() -> None:
    credentials = Credentials(["s3cr3t-credential"])
    text = credentials.quote("x" * (MAX_TEXT - 5) + "s3cr3t-credential")
    assert text == "x" * (MAX_TEXT - 5) + "…"
    assert len(credentials.quote("x" * 1000)) == MAX_TEXT


def test_the_newest_tokens_are_hidden() -> None:
    credentials = Credentials(["the-fixed-one"])
    tokens = [f"token-number-{number:03}" for number in range(MAX_TOKENS + 1)]
    credentials.add(None)
    for token in tokens:
        credentials.add(token)
        assert credentials.hide(f"{token} the-fixed-one") == "… …"
    assert credentials.hide(tokens[0]) == tokens[0]
    assert credentials.hide(tokens[1]) == "…"
    credentials.add(tokens[1])  # it is new again
    credentials.add("and-one-more")
    assert credentials.hide(" ".join(tokens[1:3])) == f"… {tokens[2]}"


@given(st.text(), st.lists(st.text(max_size=MIN_SECRET - 1)))
def test_whatever_is_too_short_changes_no_text(text: str, secrets: list[str]) -> None:
    assert hide(text, secrets) == text


@given(st.text(min_size=MIN_SECRET), st.text(alphabet="<> ", max_size=5), st.text(alphabet="<> ", max_size=5))
def test_whatever_is_long_enough_is_hidden(secret: str, before: str, after: str) -> None:
    assert secret not in hide(before + secret + after, [secret])


# ---------------------------------------------------------------------------------------------- clients

WORDS = st.sampled_from(
    ["reason", "server", "any", "alice-123", "android", "unmatched", "unmatched topic", "error", "response"]
)
"""Values of parameters and headers that are not secret and that a server may say, too."""

CREDENTIALS = {
    "the api key": "key-s3cr3t-of-api",
    "the access token": "token-s3cr3t-of-ann",
    "a parameter": "param-s3cr3t-of-url",
    "the URL": "query-s3cr3t-of-url",
    "a header": "header-s3cr3t-bearer",
    "a cookie": "cookie-s3cr3t-value",
    "a subprotocol": "subprotocol-s3cr3t",
    "a later token": "later-s3cr3t-token",
}


def settings(words: list[str]) -> dict[str, Any]:
    """Settings with a credential in each place, and with ordinary words in all others."""
    word = dict(enumerate(words))
    return {
        "server_url": f"ws://host.test/socket?session_token={CREDENTIALS['the URL']}&a={word.get(0, 'x')}",
        "api_key": CREDENTIALS["the api key"],
        "access_token": CREDENTIALS["the access token"],
        "params": {"signature": CREDENTIALS["a parameter"], "user_id": word.get(1, "x")},
        "headers": {
            "Authorization": f"Bearer {CREDENTIALS['a header']}",
            "Cookie": f"sid={CREDENTIALS['a cookie']}",
            "X-Said": " ".join(words) or "x",
        },
        "subprotocols": ("phoenix", auth_token_subprotocol(CREDENTIALS["a subprotocol"])),
    }


def hidden(text: str) -> str:
    for secret in CREDENTIALS.values():
        text = text.replace(secret, "…")
    return text


@st.composite
def said(draw: st.DrawFn) -> str:
    """What a server says: ordinary words, and credentials of ours."""
    return " ".join(draw(st.lists(WORDS | st.sampled_from([*CREDENTIALS.values()]), min_size=1, max_size=4)))


def assert_no_secret(*shown: object) -> None:
    for one in shown:
        for text in (repr(one), str(one)):
            assert "s3cr3t" not in text, text


def online(words: list[str]) -> Rig:
    rig = realtime(**settings(words))
    rig.connect()
    rig.do(rig.client.set_access_token, CREDENTIALS["a later token"])
    rig.join(ROOM, {})
    rig.take()
    return rig


@given(st.lists(WORDS, max_size=3), said(), said(), st.sampled_from(["ok", "error", "any", "server"]))
def test_programs_read_what_the_server_sent_and_people_no_secret(
    words: list[str], text: str, more: str, status: str
) -> None:
    rig = online(words)
    client = rig.client
    response = {f"about {more}": [text, {"reason": more}], "reason": text}

    rig.do(client.push, ROOM, "ask", {})
    rig.reply(rig.last("ask"), status, response)
    [replied] = rig.take()
    assert replied == PushReplied(1, ROOM, status, response)
    if status != "ok":
        assert_no_secret(replied)

    rig.do(client.track, ROOM, {"a": 1})
    rig.reply(rig.last("track"), "error", response)
    [untracked] = rig.take()
    assert isinstance(untracked, TrackFailed)
    assert untracked.response == response

    rig.say(None, None, ROOM, "hello", response)
    assert rig.take() == [ChannelMessage(ROOM, "hello", response)]

    join_ref = rig.last("phx_join", ROOM).join_ref
    rig.say(join_ref, join_ref, ROOM, "phx_error", response)
    [down] = rig.take()
    assert isinstance(down, ChannelDown)
    assert down.reason == hidden(text)

    rig.advance(down.retry_in or 0.0)
    rig.reply(rig.last("phx_join"), "error", response)
    [failed] = rig.take()
    assert isinstance(failed, JoinFailed)
    assert (failed.reason, failed.response) == (hidden(text), response)

    rig.close(4000, text)
    [lost] = [event for event in rig.take() if isinstance(event, SocketDisconnected)]
    assert lost.reason == f"the server closed the connection with code 4000: {hidden(text)}"
    rig.advance(2.0)
    rig.refuse(503, more.encode())
    [refused] = [event for event in rig.take() if isinstance(event, SocketDisconnected)]
    assert refused.reason == f"the server refused the connection: HTTP 503 {hidden(more)}"
    assert_no_secret(untracked, down, failed, refused, client._config, *rig.opens, *rig.requests)


@given(said())
def test_a_program_reads_the_status_of_a_reply_as_it_was_sent(status: str) -> None:
    rig = online([])
    rig.do(rig.client.push, ROOM, "ask", {})
    rig.reply(rig.last("ask"), status, {})
    [replied] = rig.take()
    assert replied == PushReplied(1, ROOM, status, {})


@pytest.mark.parametrize(
    "word", ["reason", "unmatched", "topic", "unmatched topic", "error", "response", "status"]
)
@pytest.mark.parametrize("place", ["params", "headers", "api_key", "access_token"])
def test_the_protocol_is_interpreted_before_anything_is_hidden(place: str, word: str) -> None:
    """`unmatched topic` is how a server says that it has forgotten a channel."""
    value: Any = {"X": word} if place in ("params", "headers") else word
    rig = realtime(**{place: value})
    rig.connect()
    rig.join(ROOM, {})
    rig.do(rig.client.push, ROOM, "ask", {})
    rig.take()
    rig.reply(rig.last("ask"), "error", {"reason": "unmatched topic"})
    replied, down = rig.take()
    assert replied.response == {"reason": "unmatched topic"}
    assert (type(down), down.reason) == (ChannelDown, "the server has forgotten the channel")


def test_texts_keep_ordinary_words() -> None:
    rig = realtime(api_key="any", params={"who": "server"}, headers={"X-Who": "connection"})
    rig.connect()
    rig.close(1013, "Too many connected users")
    [lost] = [event for event in rig.take() if isinstance(event, SocketDisconnected)]
    assert lost.reason == "the server closed the connection with code 1013: Too many connected users"


def test_a_token_that_was_replaced_twice_stays_hidden() -> None:
    rig = realtime(access_token="s3cr3t-one")
    rig.connect()
    for token in ("s3cr3t-two", "s3cr3t-three"):
        rig.do(rig.client.set_access_token, token)
    rig.close(4000, "s3cr3t-one s3cr3t-two s3cr3t-three")
    assert rig.take()[-1].reason.endswith("code 4000: … … …")


def test_a_presence_client_and_a_jarvis_client_hide_in_texts_only() -> None:
    rig = PresenceRig(api_key="s3cr3t-key", params={"who": "reason", "name": "server"})
    rig.enter()
    command = rig.do(rig.client.send_poke, "bo")
    rig.acknowledge("error", "the server has a reason, s3cr3t-key")
    assert rig.take() == [
        CommandFailed(command, "send_poke", "the server said error: the server has a reason, …")
    ]
    jarvis = JarvisRig(access_token="s3cr3t-one", params={"who": "server"})
    jarvis.enter()
    jarvis.do(jarvis.client.set_access_token, "s3cr3t-two")
    [error] = jarvis.tell("error", message="the server says s3cr3t-one and s3cr3t-two")
    assert error.message == "the server says: the server says … and …"


def test_a_config_shows_no_subprotocol_that_carries_a_token() -> None:
    config = RealtimeConfig(server_url="ws://h", subprotocols=["phoenix", auth_token_subprotocol(SECRET)])
    assert "subprotocols=('phoenix', 'base64url.bearer.phx.…')" in repr(config)
    assert_no_secret(config, config.address("s3cr3t-token"))
