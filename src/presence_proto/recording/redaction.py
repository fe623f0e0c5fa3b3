"""Secrets, and what stands for them in a recording.

A stand-in has the shape of its secret: as many bytes, and the same kinds of characters in the same places. So
it can take the secret's place inside of frames, JSON, percent-encoding and headers, and all that a core does
with the secret (escape it, find it in a server's words) it does with the stand-in.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote_to_bytes

from presence_proto.config import auth_token, auth_token_subprotocol
from presence_proto.recording.frames import BodyPiece, FramePiece, HeadPiece, Inflater, Scanner
from presence_proto.secrets import BEARER_PREFIX, MIN_SECRET, header_pieces, is_secret_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from presence_proto.recording.frames import Piece


T = TypeVar("T")

MAX_SOUGHT = 64
"""Secrets that are looked for in messages: the latest. So the cost of a message does not grow."""

MAX_SOUGHT_LENGTH = 64 * 1024
"""Bytes. A longer secret is hidden where it stands as one, and not looked for."""

MAX_CODED_LENGTH = 4096
"""Bytes. A longer secret is not looked for in base64 and hex."""

_WINDOW = 8  # bytes; no form of a secret is shorter
_BLOCK = 4  # bytes, of an unsigned int: where a window begins, one begins within it, and ends within it

MAX_NUMBERED = 16_384
"""Secrets that keep their stand-in: the latest. Of the others nothing is remembered."""

VOCABULARY = (
    "HTTP/1.1 Switching Protocols Upgrade upgrade websocket Bearer Basic permessage-deflate phx_join "
    "phx_leave phx_reply phx_close phx_error heartbeat phoenix realtime: presence_state presence_diff joins "
    "leaves metas phx_ref phx_ref_prev status response reason topic event payload join_ref ref config "
    "broadcast presence enabled postgres_changes private access_token system extension channel message "
    "user_id display_name activity online_at timestamp content reply_to target_user_id version metadata "
    "connect disconnect welcome your_id users user_online user_offline activity_changed activity_update "
    "game_invite invite_sent sent_to chat_message online_count online in_game in_skill do_not_disturb "
    "track untrack unmatched"
)
"""The words of the protocols. A secret that stands in them is hidden only where it stands as a secret."""

_WORDS = frozenset(VOCABULARY.lower().encode().split())

# ---------------------------------------------------------------------------------------------- stand-ins

_CHARACTER = re.compile(
    rb"(?P<word>[A-Za-z0-9_.~-])|(?P<two>[\xc2-\xdf][\x80-\xbf])|(?P<three>[\xe0-\xef][\x80-\xbf]{2})"
    rb"|(?P<four>[\xf0-\xf4][\x80-\xbf]{3})"
    # What is escaped in a way of its own stays.
    rb"|(?P<kept>[\x00-\x20\"/\\\x7f-\xff])|(?P<mark>.)",
    re.DOTALL,
)
_ALPHABETS = {
    "word": [bytes((code,)) for code in b"~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"],
    "mark": [b"@", b"!", b"$", b"*"],
    "two": [chr(0x3B1 + n).encode() for n in range(24)],
    "three": [chr(0x4E00 + n).encode() for n in range(64)],
    "four": [chr(0x1F600 + n).encode() for n in range(64)],
}


def _first_of_kind(code: int) -> int:
    match = _CHARACTER.fullmatch(bytes((code,)))
    assert match is not None
    return _ALPHABETS.get(str(match.lastgroup), [bytes((code,))])[0][0]


_FIRST_OF_KIND = bytes(map(_first_of_kind, range(256)))
"""For `bytes.translate`, of ASCII."""

_TAIL = 64
"""Characters at the end of a secret that tell its number. Those before them are the first of their kind."""


def _stand_in(secret: bytes, number: int) -> bytes:
    """Each character becomes the first of its kind, but for a number that tells one secret from another."""
    head, tail = _halves(secret)
    written = []
    for match in reversed(list(_CHARACTER.finditer(tail))):
        character, kind = match[0], str(match.lastgroup)
        alphabet = _ALPHABETS.get(kind)
        if alphabet is None:
            written.append(character)
        else:
            number, digit = divmod(number, len(alphabet))
            written.append(alphabet[digit])
    return head + b"".join(reversed(written))


def _halves(secret: bytes) -> tuple[bytes, bytes]:
    """All but the last characters of a secret, hidden already; and the last ones as they are."""
    if secret.isascii():
        return secret[:-_TAIL].translate(_FIRST_OF_KIND), secret[-_TAIL:]
    try:
        text = _text(secret)
    except UnicodeDecodeError:  # from the query of a URL, which is short
        return b"", secret
    return _bytes(text[:-_TAIL].translate(_FirstOfKind())), _bytes(text[-_TAIL:])


class _FirstOfKind(dict[int, str]):
    """For `str.translate`: the characters of one text, each looked at once."""

    def __missing__(self, code: int) -> str:
        match = _CHARACTER.fullmatch(_bytes(chr(code)))
        assert match is not None
        alphabet = _ALPHABETS.get(str(match.lastgroup))
        self[code] = first = chr(code) if alphabet is None else alphabet[0].decode()
        return first


def _coded_forms(secret: bytes, stand_in: bytes) -> Iterator[tuple[bytes, bytes]]:
    """What hex, and base64 whatever stands before it, make of the secret, and of its stand-in."""
    yield secret.hex().encode(), stand_in.hex().encode()
    yield secret.hex().upper().encode(), stand_in.hex().upper().encode()
    url_safe = bytes.maketrans(b"+/", b"-_")
    for shift in range(3):
        inner = slice(-(-8 * shift // 6), 8 * (shift + len(secret)) // 6)
        form, other = (b64encode(bytes(shift) + text)[inner] for text in (secret, stand_in))
        yield form.translate(url_safe), other.translate(url_safe)
        yield form, other  # last: where both alphabets give the same form, a replay has this one
    # By itself it ends with a character that depends on what follows, or on nothing.
    form, other = (b64encode(text).rstrip(b"=") for text in (secret, stand_in))
    yield form.translate(url_safe), other.translate(url_safe)
    yield form, other


# ---------------------------------------------------------------------------------------------- escapes

# One escape, or bytes without any. JSON may be the body of an HTTP answer: the line between two chunks of
# it stands for nothing.
_JSON = re.compile(
    rb"\\u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\[\"\\/bfnrt]"
    rb"|\r\n[0-9A-Fa-f]+[^\r\n]{0,80}\r\n|[^%+\\\r]+|.",
    re.DOTALL,
)
_QUERY = re.compile(rb"%[0-9A-Fa-f]{2}|[^%+\\\r]+|.", re.DOTALL)
_MARKS = {_JSON: (b"\\", b"\r\n"), _QUERY: (b"%", b"+")}  # without these there is nothing escaped
_BACKSLASHED = dict(zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True))
_LEVELS = 3
"""How often a text may be escaped, such as JSON in JSON, and secrets are still found."""


class _Escaped:
    """A text taken apart: each unit as it is written, and what it stands for."""

    def __init__(self, data: bytes, syntax: re.Pattern[bytes]) -> None:
        self._units = syntax.findall(data)
        self._pieces = list(map(_Pieces(syntax).__getitem__, self._units))
        self.plain = b"".join(self._pieces)

    def rewritten(self, plain: bytes) -> bytes:
        """Another text of the same shape, written in the same way."""
        written, at = [], 0
        alike: dict[tuple[bytes, bytes], bytes] = {}
        for unit, piece in zip(self._units, self._pieces, strict=True):
            other = plain[at : at + len(piece)]
            if other != piece:
                unit = alike.get((unit, other)) or alike.setdefault((unit, other), _escaped_like(unit, other))
            written.append(unit)
            at += len(piece)
        return b"".join(written)


class _Pieces(dict[bytes, bytes]):
    """What the units of one text stand for, each looked at once: there may be a million of them."""

    def __init__(self, syntax: re.Pattern[bytes]) -> None:
        super().__init__({b"+": b" "} if syntax is _QUERY else {})

    def __missing__(self, unit: bytes) -> bytes:
        self[unit] = piece = _unescaped(unit)
        return piece


def _is_plain(unit: bytes) -> bool:
    return len(unit) == 1 or unit[:1] not in (b"%", b"\\", b"\r")


def _unescaped(unit: bytes) -> bytes:
    if _is_plain(unit):
        return unit
    if unit[:1] == b"%":
        return bytes((int(unit[1:], 16),))
    if unit[:2] == b"\\u":
        return (
            bytes.fromhex(unit.replace(b"\\u", b"").decode())
            .decode("utf-16-be", "surrogatepass")
            .encode("utf-8", "surrogatepass")
        )
    return bytes((_BACKSLASHED[unit[1]],)) if unit[:1] == b"\\" else b""


def _escaped_like(unit: bytes, plain: bytes) -> bytes:
    """`plain` written the way that `unit` is. What a stand-in keeps is not asked for."""
    if _is_plain(unit):
        return plain
    if unit[:1] == b"%":
        written = b"%%%02X" % plain[0]
        return written if unit == unit.upper() else written.lower()
    assert unit[:2] == b"\\u"
    digits = plain.decode("utf-8", "surrogatepass").encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{digits[at : at + 4]}" for at in range(0, len(digits), 4)).encode()


# ---------------------------------------------------------------------------------------------- secrets

_FIELD = re.compile(rb'("([^"\\]{1,64})"\s*:\s*")((?:[^"\\]++|\\.)*+)', re.DOTALL)  # a string, and its name


class _Forms:
    """What to look for on behalf of one secret: itself, and its coded forms unless it is long."""

    __slots__ = ("blocks", "stand_ins")

    def __init__(self, secret: bytes, stand_in: bytes) -> None:
        coded = _coded_forms(secret, stand_in) if len(secret) <= MAX_CODED_LENGTH else ()
        self.stand_ins = {**dict(coded), secret: stand_in}
        self.blocks = {  # of their windows, wherever these begin
            memoryview(form[at : at + _BLOCK]).cast("I")[0] for form in self.stand_ins for at in range(_BLOCK)
        }


class Secrets:
    """The secrets that are known so far. They are learned where they stand as such, by `hide`.

    Memory and time are bounded: `MAX_SOUGHT` secrets are looked for, besides those of `keep`.
    """

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}  # by the hash of a secret; the latest last
        self._ours: dict[bytes, None] = {}  # hashes of stand-ins; the latest last
        self._count = 0  # of all that were numbered
        self._sought: dict[bytes, _Forms] = {}  # by secret; the latest last
        self._kept: dict[bytes, _Forms] = {}  # those that are looked for as long as we live
        self._blocks: set[int] | None = None  # of all; None: to be put together
        self._sorted: dict[bytes, bytes] | None = None  # all forms, the longest first; likewise

    def keep(self) -> None:
        """Look for the secrets that are known now as long as this lives: those of the settings."""
        self._kept |= self._sought
        self._sought.clear()

    # ---------------------------------------------------------------- where a secret stands as such

    def hide(self, secret: str, *, seek: bool = True) -> str:
        """The stand-in of this secret. With `seek` the secret is also looked for from now on."""
        return _text(self.hide_bytes(_bytes(secret), seek=seek))

    def hide_in_query(self, value: bytes, *, seek: bool = True) -> bytes:
        """The same for a value in a query, as it is written there."""
        escaped = _Escaped(value, _QUERY)
        return escaped.rewritten(self.hide_bytes(escaped.plain, seek=seek))

    def hide_in_json(self, value: bytes) -> bytes:
        """The same for a string in JSON, as it is written there, without the quotes."""
        escaped = _Escaped(value, _JSON)
        return escaped.rewritten(self.hide_bytes(escaped.plain))

    def hide_words(self, words: bytes) -> bytes:
        """Hide each word of a header's value in its place only: it may be a secret, and may be none.

        Words of the protocols stay, such as `Bearer`.
        """
        return re.sub(
            rb"\S+",
            lambda word: word[0] if word[0].lower() in _WORDS else self.hide_bytes(word[0], seek=False),
            words,
        )

    def hide_bytes(self, secret: bytes, *, seek: bool = True) -> bytes:
        """The same as `hide` for bytes."""
        known = _hash(secret)
        if known in self._ours:
            return secret
        stand_in = _stand_in(secret, self._number(known))
        _remember(self._ours, _hash(stand_in), None)
        if seek and MIN_SECRET <= len(secret) <= MAX_SOUGHT_LENGTH and secret not in VOCABULARY.encode():
            self._seek(secret, stand_in)
        return stand_in

    def _number(self, known: bytes) -> int:
        number = self._numbers.pop(known, None)
        if number is None:
            self._count += 1  # 0 is no number: in base64 its stand-in would hold itself, shifted
            number = self._count
        _remember(self._numbers, known, number)
        return number

    def _seek(self, secret: bytes, stand_in: bytes) -> None:
        if secret in self._kept:
            return
        forms = self._sought.pop(secret, None)
        if forms is not None:
            self._sought[secret] = forms
            return
        self._sought[secret] = _Forms(secret, stand_in)
        if len(self._sought) > MAX_SOUGHT:
            del self._sought[next(iter(self._sought))]
        self._blocks = self._sorted = None

    def _sorted_forms(self) -> dict[bytes, bytes]:
        if self._sorted is None:
            known = self._kept | self._sought
            found: dict[bytes, bytes] = {}
            for forms in known.values():
                found |= forms.stand_ins
            # A secret that is also the coded form of another one is itself.
            found |= {secret: forms.stand_ins[secret] for secret, forms in known.items()}
            self._sorted = dict(sorted(found.items(), key=lambda form: -len(form[0])))
        return self._sorted

    # ---------------------------------------------------------------- where secrets may stand

    def redact(self, data: bytes) -> bytes:
        """`data` with each known secret replaced: as it is, escaped, in base64 or hex. The length stays."""
        if len(data) < MIN_SECRET or not (self._kept or self._sought):
            return data
        return _at_all_levels(data, self._replace)

    def redact_text(self, text: str) -> str:
        """The same for text."""
        return _text(self.redact(_bytes(text)))

    def redact_json(self, data: bytes) -> bytes:
        """The same for a message, in which what is named like a secret is one, with all that is in it."""
        try:
            self._learn(json.loads(data), is_secret=False)
        except (ValueError, RecursionError):
            pass  # not JSON, or cut off
        return self.redact(_FIELD.sub(self._hide_field, data))

    def redact_clipped(self, text: str) -> str:
        """The same for text that a core may have clipped."""
        return _text(self.redact_end(self.redact(_bytes(text))))

    def redact_end(self, data: bytes) -> bytes:
        """`data`, which is cut off, without the beginning of a secret at its end."""

        return _at_all_levels(data, self._replace_beginning)

    def _replace(self, data: bytes) -> bytes:
        # Nearly always there is none. A look at each block says so, or one at each place, however many forms
        # there are.
        if not self._may_hold(data):
            return data
        forms = self._sorted_forms()
        places = range(len(data) - _WINDOW + 1)
        there = {form[:_WINDOW] for form in forms}.intersection(data[at : at + _WINDOW] for at in places)
        for form, stand_in in forms.items() if there else ():
            if form[:_WINDOW] in there:
                data = data.replace(form, stand_in)
        return data

    def _may_hold(self, data: bytes) -> bool:
        """Whether a form may be in there. A form has a window, and a window holds a whole block of `data`."""
        if self._blocks is None:
            self._blocks = set().union(*(forms.blocks for forms in (self._kept | self._sought).values()))
        blocks = memoryview(data)[: len(data) // _BLOCK * _BLOCK].cast("I")  # 50 times faster than each place
        return not self._blocks.isdisjoint(blocks)

    def _replace_beginning(self, data: bytes) -> bytes:
        end, cut = len(data), 3  # bytes: fewer may end any text
        for form, stand_in in self._sorted_forms().items():
            at = data.find(form[:4], max(0, end - len(form) + 1))
            while 0 <= at < end - cut:
                if form.startswith(data[at:]):
                    cut, data = end - at, data[:at] + stand_in[: end - at]
                    break
                at = data.find(form[:4], at + 1)
        return data

    def _hide_field(self, field: re.Match[bytes]) -> bytes:
        if is_secret_name(field[2].decode("utf-8", "replace")):
            return field[1] + self.hide_in_json(field[3])
        return field[0]

    def _learn(self, value: Any, *, is_secret: bool) -> None:
        """Names may be escaped, too, so that only a parser sees them."""
        if isinstance(value, str) and is_secret:
            self.hide(value)
        elif isinstance(value, dict):
            for name, item in value.items():
                self._learn(item, is_secret=is_secret or is_secret_name(name))
        elif isinstance(value, list):
            for item in value:
                self._learn(item, is_secret=is_secret)


def _hash(secret: bytes) -> bytes:
    return blake2b(secret, digest_size=16).digest()


def _remember(known: dict[bytes, T], secret: bytes, value: T) -> None:
    known[secret] = value
    if len(known) > MAX_NUMBERED:
        del known[next(iter(known))]


def _at_all_levels(data: bytes, change: Callable[[bytes], bytes], levels: int = _LEVELS) -> bytes:
    """`change`, which keeps the shape, for `data` and for what is escaped in it."""
    data = change(data)
    for syntax, marks in _MARKS.items() if levels else ():
        if any(mark in data for mark in marks):
            escaped = _Escaped(data, syntax)
            plain = _at_all_levels(escaped.plain, change, levels - 1)
            data = data if plain == escaped.plain else escaped.rewritten(plain)
    return data


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


# ------------------------------------------------------------------------------------------------------- http
# The heads of upgrade requests and answers, without what is secret in them.


# Whatever other headers hold is taken for a secret.
HARMLESS = frozenset(
    {
        *(b"host", b"upgrade", b"connection", b"origin", b"user-agent", b"server", b"date", b"vary", b"via"),
        *(
            b"sec-websocket-key",
            b"sec-websocket-accept",
            b"sec-websocket-version",
            b"sec-websocket-extensions",
        ),
        *(b"content-type", b"content-length", b"content-encoding", b"transfer-encoding", b"retry-after"),
        *(b"accept", b"accept-encoding", b"accept-language", b"allow", b"cache-control", b"pragma", b"age"),
    }
)
SUBPROTOCOLS = b"sec-websocket-protocol"
_BEARER = BEARER_PREFIX.encode()
_LONG = 20
"""Bytes. A longer subprotocol is more likely a token."""

_LINE = re.compile(rb"([^:\s]+)(:[ \t]*)(.*)", re.DOTALL)


def redact_head(head: bytes, secrets: Secrets) -> bytes:
    """A start line and headers, of the same length."""
    first, *lines = head.split(b"\n")
    method, space, target = first.partition(b" ")
    redacted = [first if method.startswith(b"HTTP/") else method + space + redact_url(target, secrets)]
    name = b""
    for line in lines:
        match = _LINE.match(line)
        if match is None or line[:1] in b" \t":  # goes on with the header before it
            redacted.append(redact_header(name, line, secrets))
        else:
            name = match[1].lower()
            redacted.append(match[1] + match[2] + redact_header(name, match[3], secrets))
    return secrets.redact(b"\n".join(redacted))


def redact_header(name: bytes, value: bytes, secrets: Secrets) -> bytes:
    """The value of a header; `name` in lower case."""
    if name == SUBPROTOCOLS:
        return re.sub(rb"[^,\s]+", lambda one: redact_subprotocol(one[0], secrets), value)
    if name in HARMLESS:
        return value
    if not is_secret_name(name.decode("latin-1")):
        return secrets.hide_words(value)
    match = re.fullmatch(rb"(\s*)(.*?)(\s*)", value, re.DOTALL)  # a line ends with "\r"
    assert match is not None
    pieces = [
        (piece.encode("latin-1"), is_secret)
        for piece, is_secret in header_pieces(name.decode("latin-1"), match[2].decode("latin-1"))
    ]
    hidden = b"".join(secrets.hide_bytes(piece) if is_secret else piece for piece, is_secret in pieces)
    return match[1] + hidden + match[3]


def redact_subprotocol(subprotocol: bytes, secrets: Secrets) -> bytes:
    """One subprotocol; some clients hide a token in it."""
    encoded = auth_token((subprotocol.decode("latin-1"),))
    if encoded and auth_token_subprotocol(encoded).encode() == subprotocol:
        # The token is known by itself, and a replay encodes its stand-in.
        return auth_token_subprotocol(secrets.hide(encoded)).encode()
    if subprotocol.startswith(_BEARER):
        scheme, dot, token = subprotocol.rpartition(b".")
        return scheme + dot + secrets.hide_bytes(token)
    return secrets.hide_words(subprotocol) if len(subprotocol) > _LONG else subprotocol


def redact_url(url: bytes, secrets: Secrets) -> bytes:
    """A URL or a request's target, and what may follow it in its line: all values of its query but `vsn`.

    Those that are not named like a secret are hidden in their place only.
    """
    address, question_mark, rest = url.partition(b"?")
    query = re.match(rb"\S*", rest)
    assert query is not None
    params = []
    for param in query[0].split(b"&"):
        name, equals, value = param.partition(b"=") if b"=" in param else (b"", b"", param)
        if name != b"vsn":
            # What has no name may be anything.
            is_secret = not equals or is_secret_name(unquote_to_bytes(name).decode("utf-8", "replace"))
            value = secrets.hide_in_query(value, seek=is_secret)
        params.append(name + equals + value)
    return address + question_mark + b"&".join(params) + rest[query.end() :]


# ---------------------------------------------------------------------------------------------------- inbound
# What comes in on one connection, without secrets, byte for byte as long as it was.
#
# A secret may be cut by chunks and by fragments, so bytes are ready to be written when the message is
# complete that they belong to.


class CannotRedactError(Exception):
    """These bytes hold a secret, or may, in a way in which it cannot be replaced. The text says why."""


class Inbound:
    """Takes the bytes of one connection. `ready` counts those that `take` can give back now.

    `limit`: how many bytes a message may have. After `CannotRedactError` it is of no more use.
    """

    def __init__(self, secrets: Secrets, limit: int) -> None:
        self._secrets = secrets
        self._scanner = Scanner()
        self._inflater = Inflater(limit)
        self._held: list[Piece | bytes] = []  # of a message that is not complete; bytes are redacted already
        self._ready = bytearray()

    @property
    def ready(self) -> int:
        """How many bytes can be taken."""
        return len(self._ready)

    def take(self, count: int) -> bytes:
        """The next of the bytes that are ready."""
        taken = bytes(self._ready[:count])
        del self._ready[:count]
        return taken

    def feed(self, data: bytes) -> None:
        """Take bytes in. Raises `CannotRedactError`."""
        for piece in self._scanner.feed(data):
            match piece:
                case HeadPiece():
                    self._held.append(redact_head(piece.raw, self._secrets))
                    self._release()
                case BodyPiece():
                    self._held.append(piece)
                case FramePiece() if piece.is_control:
                    self._held.append(piece.with_payload(self._secrets.redact(piece.payload)))
                    if len(self._held) == 1:
                        self._release()
                case _:
                    self._held.append(piece)
                    if piece.fin:
                        self._release()

    def finish(self) -> None:
        """No more will be read of this connection. Raises `CannotRedactError`."""
        rest = self._scanner.take_rest()
        if isinstance(rest, HeadPiece):
            self._held.append(self._secrets.redact_end(redact_head(rest.raw, self._secrets)))
        else:
            self._held.append(rest)
        self._release(cut=True)

    def _release(self, *, cut: bool = False) -> None:
        """Make ready what is held: a message, or the beginning of one that was `cut` off."""
        parts = [piece.payload if isinstance(piece, FramePiece) else piece.raw for piece in self._message()]
        payload = b"".join(parts)
        redacted = self._redacted(payload, cut)
        for piece in self._held:
            if isinstance(piece, bytes):
                self._ready += piece
                continue
            size = len(piece.payload) if isinstance(piece, FramePiece) else len(piece.raw)
            part, redacted = redacted[:size], redacted[size:]
            self._ready += piece.with_payload(part) if isinstance(piece, FramePiece) else part
        self._held.clear()

    def _message(self) -> list[Piece]:
        return [piece for piece in self._held if not isinstance(piece, bytes)]

    def _redacted(self, payload: bytes, cut: bool) -> bytes:
        first = next(iter(self._message()), None)
        if not (isinstance(first, FramePiece) and first.raw and first.compressed):
            return self._without_secrets(payload, cut)
        inflated = self._inflater.inflate(payload, whole=not cut)
        if inflated is None:
            raise CannotRedactError("a compressed message is too large to look for secrets in it")
        if self._without_secrets(inflated, cut) != inflated:
            raise CannotRedactError("a compressed message holds a secret")
        return self._without_secrets(payload, cut)  # it may be compressed by its own word only

    def _without_secrets(self, payload: bytes, cut: bool) -> bytes:
        redacted = self._secrets.redact_json(payload)
        return self._secrets.redact_end(redacted) if cut else redacted
