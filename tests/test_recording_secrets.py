"""No secret reaches a recording, wherever it stands and however it is written; and the replay is the same."""

from __future__ import annotations

import base64
import json
import re
import time
import zlib
from random import Random
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_client import KEY as NONCE
from hub_client import World, masked, supabase_join
from presence_proto import ConnId, HubConfig, Identity, PresenceConfig, RealtimeConfig
from presence_proto.config import auth_token_subprotocol
from presence_proto.recording import show_recording
from presence_proto.recording.redaction import (
    MAX_NUMBERED,
    MAX_SOUGHT,
    MAX_SOUGHT_LENGTH,
    VOCABULARY,
    Secrets,
)
from presence_proto.serializer import UserBroadcast
from presence_proto.testing import ScriptedServer
from presence_proto.websocket.frames import server_frame
from recordings import Recording, drain

KEY = "sk-live/Zürich+7 %41"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
SECOND = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJzZWNvbmQifQ.ZWluZXI"
THIRD = "third-token-of-the-day"
HEADER = "hunter2-in-a-header"
COOKIE = "c00kie-value"
PARAM = "p@ram & more"
URL = "in-the-url=1"
PASSWORD = 'pass"word\\of/ours'
ALL = [KEY, TOKEN, SECOND, THIRD, HEADER, COOKIE, PARAM, URL, PASSWORD]


def forms(secret: str) -> set[bytes]:
    """The ways to write a secret down."""
    data = secret.encode()
    found = {data, quote(secret).encode(), quote_plus(secret).encode(), quote(secret, safe="").encode()}
    found |= {json.dumps(secret)[1:-1].encode(), json.dumps(secret, ensure_ascii=False)[1:-1].encode()}
    found |= {"".join(f"\\u{ord(char):04x}" for char in secret).encode(), data.hex().encode()}
    found |= {"".join(f"%{byte:02x}" for byte in data).encode()}
    for shift in range(3):
        inner = slice(-(-8 * shift // 6), 8 * (shift + len(data)) // 6)
        form = base64.b64encode(bytes(shift) + data)[inner]
        found |= {form, form.translate(bytes.maketrans(b"+/", b"-_"))}
    whole = base64.b64encode(data).rstrip(b"=")
    return found | {whole, whole.translate(bytes.maketrans(b"+/", b"-_"))}


def written(recording: Recording) -> bytes:
    """All that can be read in a recording: the file, what its JSON says, its bytes, one after the other for
    each connection, without masks, and inflated.
    """
    text = recording.text.encode()
    streams: dict[Any, bytes] = {}
    for entry in recording.entries("data"):
        streams[entry["conn"]] = streams.get(entry["conn"], b"") + base64.b64decode(entry["data"])
    decoded = "\n".join(json.dumps(entry, ensure_ascii=False) for entry in recording.entries())
    shown = "\n".join(show_recording(recording.lines))
    found = re.findall(rb'"([A-Za-z0-9+/]{8,}={0,2})"', text)
    blobs = [base64.b64decode(blob) for blob in found if len(blob) % 4 == 0]
    return b"\n".join(
        [
            text,
            decoded.encode("utf-8", "surrogatepass"),
            shown.encode("utf-8", "surrogateescape"),
            *streams.values(),
            *blobs,
        ]
    )


def assert_clean(recording: Recording, *secrets: str) -> None:
    said = written(recording)
    for secret in secrets:
        for form in forms(secret):
            assert form not in said, (secret, form)


# ------------------------------------------------------------------------------------ clients

SETTINGS: dict[str, Any] = {
    "server_url": f"ws://host.test/socket?apptoken={quote_plus(URL)}&mode=x&vsn=2.0.0&{quote(THIRD)}",
    "api_key": KEY,
    "params": {"extra_secret": PARAM, "empty": ""},
    "headers": {
        "Authorization": f"Bearer {HEADER}",
        "Cookie": f"sid={COOKIE}; theme=dark",
        "User-Agent": "app/1.0",
    },
    "subprotocols": [
        "phoenix",
        f"base64url.bearer.phx.{base64.urlsafe_b64encode(TOKEN.encode()).decode().rstrip('=')}",
        "x" * 30,
    ],
}


def quoting(secret: str) -> str:
    """Words of a server that quotes a secret in every way."""
    return " ".join(sorted({form.decode("latin-1") for form in forms(secret)}))


class Recorded(ScriptedServer):
    """A recorded client with secrets everywhere, and a server that quotes them."""

    def __init__(self, kind: str = "realtime", *, deflate: bool = False, **settings: Any) -> None:
        self.recording = Recording()
        config = {**SETTINGS, "deflate": deflate, **settings}
        if kind == "realtime":
            client = self.recording.realtime(RealtimeConfig(**config, access_token=TOKEN), rng=Random(1))
        else:
            client = self.recording.presence(
                Identity("me", "Me", TOKEN), PresenceConfig(**config), rng=Random(1)
            )
        super().__init__(client, deflate=deflate)

    def check(self, *secrets: str, note: str | None = None) -> None:
        result = self.recording.replayed()
        assert result.same, result
        assert result.note == note
        assert_clean(self.recording, *secrets)


@pytest.mark.parametrize("kind", ["realtime", "presence"])
def test_a_token_in_a_subprotocol(kind: str) -> None:
    rig = Recorded(kind, token_in="subprotocol", subprotocols=["chat"])
    rig.connect()
    rig.do(rig.client.set_access_token, SECOND)
    rig.cut(f"it said {quoting(TOKEN)} and {quoting(SECOND)}")
    rig.advance(1.0)
    rig.open()
    rig.check(*ALL)
    assert rig.requests[-1].subprotocols == ("phoenix", auth_token_subprotocol(SECOND), "chat")


def test_secrets_of_a_realtime_client() -> None:
    rig = Recorded()
    client = rig.client
    rig.connect()
    rig.join("realtime:a", state={})
    rig.join("room:b", {"password": PASSWORD, "deep": [{"api_key": PASSWORD}], "user_id": "me"})
    rig.do(client.set_access_token, SECOND)
    rig.do(client.push, "room:b", "say", {"text": f"my token is {TOKEN}, and was {SECOND}: {quoting(KEY)}"})
    rig.do(client.push, "room:b", "say", TOKEN.encode())
    rig.do(client.track, "realtime:a", {"token": THIRD, "n": 1})
    for secret in ALL:
        for event in ("broadcast", "system", "hello", "phx_error"):
            payload = {
                "event": "e",
                "message": quoting(secret),
                "status": "error",
                "reason": secret,
                secret: [secret],
            }
            rig.say(None, None, "realtime:a", event, payload)
            rig.advance(0)
        rig.say(None, None, "realtime:a", "broadcast", UserBroadcast("e", secret.encode(), {"m": secret}))
        rig.say_text("[" + json.dumps(secret))  # malformed
        rig.ping(secret.encode()[:125])
    rig.do(client.set_access_token, None)
    rig.advance(40)
    rig.close(4000, f"bye {TOKEN}")
    rig.advance(2)
    rig.refuse(503, quoting(TOKEN).encode("latin-1"), (("Set-Cookie", f"new={THIRD}; Path=/"), ("x", TOKEN)))
    rig.advance(2)
    assert rig.conn is not None
    rig.cut(f"cannot connect with {TOKEN}")
    rig.check(*ALL)
    assert "app/1.0" in rig.recording.text, "what is harmless stays"
    assert "Bearer" in rig.recording.text


def test_secrets_of_a_presence_client() -> None:
    rig = Recorded("presence")
    client = rig.client
    rig.connect()
    rig.accept_join("realtime:jarvis-presence", {})
    rig.do(client.set_access_token, SECOND)
    rig.do(client.send_chat, "general", f"{TOKEN} {KEY}", timestamp=quoting(SECOND))
    rig.do(client.send_poke, TOKEN)
    rig.say(
        None,
        None,
        "realtime:jarvis-presence",
        "broadcast",
        {
            "event": "chat_message",
            "payload": {
                "user_id": "bo",
                "display_name": TOKEN,
                "channel": "general",
                "content": quoting(SECOND),
                "token": THIRD,
            },
        },
    )
    rig.refuse(401, json.dumps({"error": quoting(SECOND)}).encode()) if rig.server is None else rig.cut()
    rig.advance(1)
    rig.refuse(401, json.dumps({"error": quoting(SECOND)}).encode())
    rig.check(*ALL)


def test_secrets_on_the_jarvis_protocol() -> None:
    recording = Recording()
    config = PresenceConfig(server_url=f"ws://h:8790?api_key={quote(URL)}", access_token=TOKEN)
    client = recording.presence(Identity("me", "Me"), config, rng=Random(1))
    client.connect(now=1)
    drain(client)
    client.set_access_token(SECOND, now=1)
    client.transport_opened(ConnId(1), now=2)
    request = drain(client)[0].data
    assert SECOND.encode() in request
    client.receive_data(ConnId(1), b"HTTP/1.1 500 no\r\n\r\n" + quoting(SECOND).encode("latin-1"), now=3)
    client.transport_closed(ConnId(1), now=4)
    drain(client)
    assert recording.replayed().same
    assert_clean(recording, URL, TOKEN, SECOND)


REPLY = json.dumps(
    ["1", "1", "room:b", "phx_reply", {"status": "error", "response": {"reason": TOKEN}}]
).encode()


@pytest.mark.parametrize("cut", [None, 0, 1, 3])
def test_cut_at_each_byte(cut: int | None) -> None:
    """One byte at a time, or two pieces; and the fragments of one message, with a ping between them."""
    at = REPLY.index(TOKEN.encode()) + 9
    pieces = [
        server_frame(REPLY, text=True),
        bytes((0x01, at)) + REPLY[:at] + b"\x89\x01?" + bytes((0x80, len(REPLY) - at)) + REPLY[at:],
    ]
    for piece in pieces:
        rig = Recorded(headers={}, subprotocols=[])
        rig.connect()
        rig.do(rig.client.join, "room:b")
        sizes = [1] * len(piece) if cut is None else [len(piece) // 2 + cut, len(piece)]
        for size in sizes:
            rig.deliver(piece[:size])
            piece = piece[size:]
        assert [event for event in rig.events if type(event).__name__ == "JoinFailed"]
        rig.check(TOKEN, KEY)


def test_a_ping_that_quotes_a_secret() -> None:
    """Between two messages it is told at once, and between the fragments of one with them."""
    rig = Recorded(headers={}, subprotocols=[])
    rig.connect()
    rig.join("room:b", {})
    ping = bytes((0x89, len(KEY.encode()))) + KEY.encode()
    hello = json.dumps([None, None, "room:b", "hello", {}]).encode()
    rig.deliver(ping)
    rig.deliver(bytes((0x01, 9)) + hello[:9] + ping + bytes((0x80, len(hello) - 9)) + hello[9:] + ping)
    assert [type(event).__name__ for event in rig.take()][-1] == "ChannelMessage", rig.events
    rig.check(KEY)


@pytest.mark.long
def test_cut_off_at_each_byte() -> None:
    """The connection is lost in the middle of the secret: nor is the beginning of it there."""
    frame = server_frame(REPLY, text=True)
    for end in range(len(frame)):
        rig = Recorded(headers={}, subprotocols=[])
        rig.connect()
        rig.do(rig.client.join, "room:b")
        rig.deliver(frame[:end])
        rig.cut()
        rig.check(TOKEN)
        assert TOKEN[:12].encode() not in written(rig.recording)


@pytest.mark.long
def test_the_answer_to_the_upgrade_is_cut_off_at_each_byte() -> None:
    head = b"HTTP/1.1 401 no\r\nX-Said: " + TOKEN.encode() + b"\r\n\r\n"
    for end in range(1, len(head)):
        rig = Recorded(headers={}, subprotocols=[])
        rig.do(rig.client.connect)
        rig.open_transport()
        rig.deliver(head[:end])
        rig.cut()
        rig.check(TOKEN, KEY)
        said = written(rig.recording)
        assert head[: min(end, 10)] in said, "what is harmless is there, cut off where it was"
        assert TOKEN[:12].encode() not in said


def test_an_answer_in_chunks_of_http() -> None:
    rig = Recorded(headers={}, subprotocols=[])
    rig.do(rig.client.connect)
    rig.open_transport()
    half = len(TOKEN) // 2
    body = b'%x\r\n{"error":"%s\r\n%x\r\n%s"}\r\n0\r\n\r\n' % (
        10 + half,
        TOKEN[:half].encode(),
        len(TOKEN) - half + 2,
        TOKEN[half:].encode(),
    )
    rig.deliver(b"HTTP/1.1 401 no\r\ntransfer-encoding: chunked\r\n\r\n" + body)
    assert rig.take()[-1].reason == 'the server refused the connection: HTTP 401 {"error":"…"}'
    rig.check(TOKEN, KEY)
    assert TOKEN[:half].encode() not in written(rig.recording)


def deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]


@pytest.mark.parametrize("cut", [False, True])
def test_a_compressed_message_with_a_secret_ends_the_recording(cut: bool) -> None:
    rig = Recorded(deflate=True)
    rig.connect()
    rig.join("room:b", {})
    rig.say(None, None, "room:b", "hello", {"n": 1})
    before = len(rig.events)
    if cut:
        payload = deflated(json.dumps([None, None, "room:b", "hello", {"n": TOKEN}]).encode() * 2)[:-4]
        rig.deliver(bytes((0xC1, 126)) + (len(payload) + 50).to_bytes(2, "big") + payload)
        rig.cut()
    else:
        rig.say(None, None, "room:b", "hello", {"n": TOKEN})
    rig.advance(3)
    assert len(rig.events) > before
    rig.check(*ALL, note="a compressed message holds a secret")
    assert rig.recording.entries()[-1] == {"end": "a compressed message holds a secret"}
    assert '"hello"' in rig.recording.text


def test_a_compressed_message_that_is_too_large_or_broken() -> None:
    for payload, note in [
        (deflated(b" " * 5000), "a compressed message is too large to look for secrets in it"),
        (deflated(b"[]") + b"\xff\xff", None),
        (TOKEN.encode(), None),
    ]:
        rig = Recorded(deflate=True, max_message_size=2048)
        rig.connect()
        rig.deliver(bytes((0xC1, len(payload))) + payload)
        rig.check(*ALL, note=note)


# ------------------------------------------------------------------------------------ hubs


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_secrets_of_the_clients_of_a_hub(chunk: int, deflate: bool) -> None:
    recording = Recording()
    config = HubConfig(
        api_keys={KEY, THIRD},
        deflate=True,
        authorize=lambda topic, token: f"the token {token} is old" if token == SECOND else None,
    )
    world = World(config, rng=Random(2), hub_type=recording.hub)
    hub, real = world.hub, world.hub.receive_data

    def in_chunks(conn: ConnId, data: bytes, *, now: float) -> None:
        for at in range(0, len(data), chunk):
            real(conn, data[at : at + chunk], now=now)

    hub.receive_data = in_chunks  # type: ignore[method-assign]  # so that the world need not know
    headers = [("Authorization", f"Bearer {HEADER}"), ("Cookie", f"sid={COOKIE}"), ("x-api-key", THIRD)]
    target = f"/realtime/v1/websocket?vsn=2.0.0&token={quote_plus(URL)}&other_token={quote_plus(PARAM)}"
    client = world.connect(target, headers=headers, subprotocols=["phoenix", "base64url.bearer.phx." + TOKEN])
    other = world.connect(target + "&apikey=" + quote_plus(KEY), deflate=deflate)
    assert world.connect(target + "&apikey=wrong-key-it-is").refused is not None
    client.join("realtime:a", supabase_join("ann", access_token=TOKEN))
    client.say("1", "2", "realtime:a", "access_token", {"access_token": SECOND})
    client.join("realtime:a", supabase_join("ann", access_token=TOKEN), ref="3")
    client.say(
        "3", "4", "realtime:a", "broadcast", {"event": "e", "payload": {"chat": f"{TOKEN} {quoting(KEY)}"}}
    )
    client.text(
        json.dumps(["3", "5", "realtime:a", "broadcast", {"event": "f", "payload": PASSWORD}]).replace(
            '"f"', r'"f","p\u0061ssword":' + json.dumps(PASSWORD)
        )
    )
    client.binary(b"\x00\x01\x01\x0a\x01" + b"36realtime:ag" + b'{"token":"' + TOKEN.encode() + b'"}')
    other.join("realtime:a", supabase_join("bob", access_token=THIRD))
    world.receive(
        client.conn,
        masked(json.dumps(["3", "9", "realtime:a", "broadcast", {"token": TOKEN}]).encode())[:-20],
    )
    client.drop()
    other.close()
    result = recording.replayed()
    assert result.same, result
    assert result.note == ("a compressed message holds a secret" if deflate else None)
    assert_clean(recording, KEY, TOKEN, SECOND, THIRD, HEADER, COOKIE, URL, PARAM, "wrong-key-it-is")
    if not deflate:
        assert '"refused' not in recording.text
        assert [entry for entry in recording.entries("event") if entry["event"] == "JoinRefused"] == []
        assert NONCE.decode() in written(recording).decode("latin-1")


@pytest.mark.long
def test_the_request_of_a_client_of_a_hub_is_cut_off_at_each_byte() -> None:
    request = b"GET /socket/websocket?vsn=2.0.0&token=%s HTTP/1.1\r\nHost: h\r\nx-api-key: %s\r\n\r\n"
    request %= TOKEN.encode(), THIRD.encode()
    for end in range(1, len(request)):
        recording = Recording()
        hub = recording.hub(HubConfig(), rng=Random(2))
        hub.transport_opened(ConnId(7), now=0)
        hub.receive_data(ConnId(7), request[:end], now=1)
        drain(hub)
        hub.transport_closed(ConnId(7), now=2)
        drain(hub)
        result = recording.replayed()
        assert result.same, result
        assert_clean(recording, TOKEN, THIRD)
        said = written(recording)
        assert request[: min(end, 20)] in said
        assert TOKEN[:12].encode() not in said
        assert THIRD[:12].encode() not in said


# ------------------------------------------------------------------------------------ stand-ins

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=20)


@given(words, st.integers(0, 3), words)
def test_a_stand_in_has_the_shape_of_its_secret(secret: str, others: int, around: str) -> None:
    secrets = Secrets()
    for number in range(others):
        secrets.hide(f"{number}")
    stand_in = secrets.hide(secret)
    assert secrets.hide(secret) == secrets.hide(stand_in) == stand_in
    for write in (str, quote, quote_plus, json.dumps, lambda text: json.dumps(text, ensure_ascii=False)):
        assert len(write(stand_in).encode()) == len(write(secret).encode())
    assert secrets.hide_in_query(quote_plus(secret).encode()) == quote_plus(stand_in).encode()
    assert json.loads(b'"' + secrets.hide_in_json(json.dumps(secret)[1:-1].encode()) + b'"') == stand_in
    if (
        secret not in VOCABULARY
        and secret not in around
        and "\\" not in around + secret
        and "%" not in around + secret
    ):
        text = f"{around}|{secret}|{around}"
        assert secrets.redact_text(text).count(stand_in) >= 1


def test_a_secret_is_found_however_it_is_written() -> None:
    secrets = Secrets()
    stand_in = secrets.hide(KEY)
    assert secrets.redact_text(f"<{KEY}>") == f"<{stand_in}>"
    assert secrets.redact_text(quote_plus(KEY)) == quote_plus(stand_in)
    for number in range(5):
        text = json.dumps(KEY) if number % 2 else quote_plus(KEY)
        text = text.replace("%C3%BC", "%c3%bc")
        assert secrets.redact_text(text * number).count("live") == 0
    assert secrets.redact_text(json.dumps(json.dumps(KEY))) == json.dumps(json.dumps(stand_in))
    assert json.loads(secrets.redact(json.dumps([KEY, "x"]).encode())) == [stand_in, "x"]
    astral = secrets.hide("\U0001f680\U0001f681\U0001f682")
    assert json.loads(secrets.redact_text(json.dumps("\U0001f680\U0001f681\U0001f682"))) == astral
    assert "\U0001f681" not in astral


def test_different_secrets_have_different_stand_ins() -> None:
    secrets = Secrets()
    assert len({secrets.hide(f"token {number:03}") for number in range(500)}) == 500


def test_words_of_the_protocol_and_short_words_are_hidden_only_where_they_stand_as_secrets() -> None:
    secrets = Secrets()
    assert secrets.hide("presence_state") != "presence_state"
    assert secrets.hide("abc") != "abc"
    text = '[null,null,"t","presence_state",{"abc":"abc"}]'
    assert secrets.redact_text(text) == text


def test_a_secret_in_another() -> None:
    secrets = Secrets()
    short, long = secrets.hide("secret-1"), secrets.hide("secret-1-and-more")
    assert (
        secrets.redact_text("secret-1 secret-1-and-more %73ecret-1-and-more")
        == f"{short} {long} {long.replace('~', '%7E', 1)}"
    )


# ------------------------------------------------------------------------------------ bounds


def test_what_is_looked_for_is_bounded_and_the_latest_is_found() -> None:
    """Any client of a hub may send tokens, each with every message. The cost of a message stays the same."""
    secrets = Secrets()
    secrets.hide("the-key-of-the-settings")
    secrets.keep()
    tokens = [f"token-of-client-{number:06}" for number in range(20 * MAX_SOUGHT)]
    for token in tokens:
        secrets.hide(token)
    secrets.hide(tokens[-MAX_SOUGHT])  # it is the latest again
    secrets.hide("one-more-token")
    assert len(secrets._sorted_forms()) <= 16 * (MAX_SOUGHT + 1)
    gone, there = tokens[-MAX_SOUGHT + 1], tokens[-MAX_SOUGHT + 2 :] + tokens[-MAX_SOUGHT : -MAX_SOUGHT + 1]
    assert gone in secrets.redact_text(f"a {gone}")
    for token in [*there, "one-more-token", "the-key-of-the-settings"]:
        assert token not in secrets.redact_text(f"a {token} and {quote(token)}")
    assert gone not in secrets.redact_json(json.dumps({"token": gone, "reason": gone}).encode()).decode()


def test_a_stand_in_stays_the_same_while_it_is_numbered() -> None:
    secrets = Secrets()
    first = secrets.hide("the-first-token")
    others = {secrets.hide(f"token-{number:08}") for number in range(MAX_NUMBERED - 1)}
    assert len(others | {first}) == MAX_NUMBERED, "no two are the same"
    assert secrets.hide("the-first-token") == first
    assert secrets.hide(first) == first
    assert len(secrets._numbers) == MAX_NUMBERED
    for number in range(10):
        secrets.hide(f"another-{number:08}")
    assert len(secrets._numbers) == len(secrets._ours) == MAX_NUMBERED


def test_a_huge_token_is_hidden_in_its_place_and_costs_no_memory() -> None:
    secrets = Secrets()
    for length, is_sought in ((MAX_SOUGHT_LENGTH, True), (MAX_SOUGHT_LENGTH + 1, False), (1 << 20, False)):
        token = chr(ord("a") + length % 7) * (length - 9) + "/the-end!"
        payload = json.dumps({"access_token": token, "said": f"not with {token}"}).encode()
        redacted = secrets.redact_json(payload)
        assert len(redacted) == len(payload)
        assert json.loads(redacted)["access_token"][-20:] != token[-20:]
        assert (token in json.loads(redacted)["said"]) is not is_sought
    assert sum(map(len, secrets._sorted_forms())) <= 2 * MAX_SOUGHT_LENGTH


@pytest.mark.parametrize("text", ["tokenvalue", "über-alles" * 9, '\t " mark! ' * 9, "x" * 70 + "/" * 70])
def test_a_long_stand_in_tells_one_secret_from_another(text: str) -> None:
    secrets = Secrets()
    found = {secrets.hide(f"{text}{number:03}") for number in range(300)}
    assert len(found) == 300
    assert {len(stand_in.encode()) for stand_in in found} == {len(text.encode()) + 3}


@pytest.mark.long
def test_many_clients_with_tokens_of_their_own_replay_the_same() -> None:
    """More than are looked for at a time, and each comes twice."""
    recording = Recording()
    config = HubConfig(
        authorize=lambda topic, token: f"the token {token} is old" if "7" in str(token) else None
    )
    world = World(config, rng=Random(2), hub_type=recording.hub)
    tokens = [f"{number:03}-token-of-client" for number in range(MAX_SOUGHT + 20)]
    for token in tokens * 2:
        client = world.connect("/realtime/v1/websocket?vsn=2.0.0")
        client.join("realtime:a", supabase_join("ann", access_token=token))
        client.drop()
    assert recording.replayed().same
    assert_clean(recording, *tokens)


def test_what_stands_in_a_secret_is_one() -> None:
    """However it is nested, and whatever servers of old called it."""
    recording = Recording()
    world = World(HubConfig(), rng=Random(2), hub_type=recording.hub)
    client = world.connect("/realtime/v1/websocket?vsn=2.0.0")
    nested = {"access_token": {"value": [TOKEN, {"deep": SECOND}]}, "user_token": THIRD, "note": PASSWORD}
    client.join("realtime:a", {**supabase_join("ann"), **nested})
    assert recording.replayed().same
    assert_clean(recording, TOKEN, SECOND, THIRD)
    assert json.dumps(PASSWORD)[1:-1].encode() in written(recording), "what is no secret stays"


def test_parameters_and_headers_are_looked_for_if_their_names_say_so() -> None:
    """All are hidden in their place; what is not named like a secret stays a word in all other places."""
    recording = Recording()
    config = RealtimeConfig(
        server_url="ws://host.test/socket?platform=android&session_token=url-s3cr3t-token",
        params={"user_id": "alice-123"},
        headers={"X-Client": "reason-android"},
    )
    rig = ScriptedServer(recording.realtime(config, rng=Random(1)))
    rig.connect()
    rig.join("room:b", {})
    rig.say(None, None, "room:b", "hello", {"text": "android alice-123 reason-android url-s3cr3t-token"})
    result = recording.replayed()
    assert result.same, result
    assert_clean(recording, "url-s3cr3t-token")
    head = recording.lines[0]
    assert "alice-123" not in head
    assert "android" not in head
    assert b"android alice-123 reason-android ~" in written(recording)


def test_the_beginning_of_a_secret_at_the_end_is_found_after_one_that_goes_on_otherwise() -> None:
    secrets = Secrets()
    secrets.hide("abcdefgh-secret")
    assert secrets.redact_end(b"abcdxyz abcdefg") == b"abcdxyz ~~~~~~~"
    assert secrets.redact_end(b"abcdxyz abc") == b"abcdxyz abc", "so few may end any text"


@pytest.mark.parametrize(
    "secret", [b"\xff" + b"x" * 200, "ü\ud800€".encode("utf-8", "surrogatepass") * 100, b"\xed\xa0" * 100]
)
def test_a_long_secret_that_is_not_unicode(secret: bytes) -> None:
    secrets = Secrets()
    stand_in = secrets.hide_bytes(secret)
    assert len(stand_in) == len(secret)
    assert b"x" not in stand_in
    assert "ü".encode() not in stand_in
    assert secrets.redact(b"a " + secret + b" b") == b"a " + stand_in + b" b"


# ---------------------------------------------------------------------------------------------- what it costs


@pytest.mark.parametrize("secret", ["8letters", "token-of-a-client"])
def test_a_secret_is_found_at_each_place_and_with_each_end(secret: str) -> None:
    """Messages are looked at in blocks first: a secret may lie anywhere between them."""
    secrets = Secrets()
    stand_in = secrets.hide(secret)
    for before in range(10):
        for after in range(10):
            text = "." * before + secret + "," * after
            assert secrets.redact_text(text) == "." * before + stand_in + "," * after


@pytest.mark.parametrize("name", ["access_token", "text"])
@pytest.mark.parametrize(
    "unit", ["x", "ü", "\\u00fc", "\\u0041", "%41", "+", '\\"', "\\\\", "\\\\\\\\u0041", "a%25%"]
)
def test_hiding_is_linear_in_the_length_of_a_message(name: str, unit: str) -> None:
    """CPU seconds of one message with four times as many units: they would be sixteen times as many."""

    def seconds(count: int) -> float:
        message = f'{{"{name}":"{unit * count}"}}'.encode()
        taken = []
        for _ in range(3):
            secrets = Secrets()
            secrets.hide("another-token")
            began = time.process_time()
            secrets.redact_json(message)
            taken.append(time.process_time() - began)
        return min(taken)

    assert seconds(20_000) < 10 * seconds(5_000) + 0.01


@pytest.mark.parametrize("unit", ["\\u00fc", '\\"', "%41", "\\\\"])
def test_a_long_message_of_escapes_takes_no_seconds(unit: str) -> None:
    secrets = Secrets()
    secrets.hide("another-token")
    message = f'{{"access_token":"{unit * (200_000 // len(unit))}"}}'.encode()
    began = time.process_time()
    secrets.redact_json(message)
    assert time.process_time() - began < 1


def test_a_message_costs_the_same_after_many_tokens() -> None:
    """What is looked for is bounded, and so is the CPU for a message that holds none of it."""
    message = json.dumps({"text": "hello world " * 100}).encode()

    def seconds(secrets: Secrets) -> float:
        secrets.redact_json(message)
        began = time.process_time()
        for _ in range(50):
            secrets.redact_json(message)
        return time.process_time() - began

    few, many = Secrets(), Secrets()
    few.hide("the-first-token")
    for number in range(6000):
        many.hide(f"token-of-client-{number:06}")
    assert min(seconds(many) for _ in range(3)) < 5 * min(seconds(few) for _ in range(3)) + 0.01
