"""Secrets, and the stand-ins that replace the secrets in a recording.

A stand-in has the shape of its secret: the same number of bytes, and the same kinds of characters in the same
places. Therefore, a stand-in fits into frames, JSON, percent-encoding and headers. A core handles a stand-in
exactly like the secret, for example when the core escapes the value or finds the value in a server's text.
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
"""Maximum number of secrets searched for in a message, to bound the search cost. The newest are kept."""

MAX_SOUGHT_LENGTH = 64 * 1024  # bytes; longer secrets are not searched for in later data

MAX_CODED_LENGTH = 4096  # bytes; longer secrets are not searched for in base64 and hex

_WINDOW = 8  # bytes; the minimum length of each form of a secret
_BLOCK = 4  # bytes, an unsigned int; a window at any offset contains at least one whole aligned block

MAX_NUMBERED = 16_384
"""Maximum number of remembered stand-ins, the newest ones. A forgotten secret gets a new stand-in."""

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
"""The words of the protocols. A secret that occurs in this text is not searched for in later data."""

_WORDS = frozenset(VOCABULARY.lower().encode().split())

# ---------------------------------------------------------------------------------------------- stand-ins

_CHARACTER = re.compile(
    rb"(?P<word>[A-Za-z0-9_.~-])|(?P<two>[\xc2-\xdf][\x80-\xbf])|(?P<three>[\xe0-\xef][\x80-\xbf]{2})"
    rb"|(?P<four>[\xf0-\xf4][\x80-\xbf]{3})"
    # Characters that have their own escape sequences are not replaced.
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
"""Table for `bytes.translate` of ASCII text: each character becomes the first of its alphabet."""

_TAIL = 64
"""Maximum number of characters at the end of a stand-in that encode the stand-in's number."""


def _stand_in(secret: bytes, number: int) -> bytes:
    """Return the stand-in of a secret.

    The last characters of the stand-in are digits of `number`, which is unique per secret.
    """
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
    """Return the stand-in for a secret without its last characters, and these last characters unchanged."""
    if secret.isascii():
        return secret[:-_TAIL].translate(_FIRST_OF_KIND), secret[-_TAIL:]
    try:
        text = _text(secret)
    except UnicodeDecodeError:  # only a URL's query can contain such bytes, and a query is short
        return b"", secret
    return _bytes(text[:-_TAIL].translate(_FirstOfKind())), _bytes(text[-_TAIL:])


class _FirstOfKind(dict[int, str]):
    """Table for `str.translate`, which computes the entry of each different character once."""

    def __missing__(self, code: int) -> str:
        match = _CHARACTER.fullmatch(_bytes(chr(code)))
        assert match is not None
        alphabet = _ALPHABETS.get(str(match.lastgroup))
        self[code] = first = chr(code) if alphabet is None else alphabet[0].decode()
        return first


def _coded_forms(secret: bytes, stand_in: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the hex and base64 forms of `secret`, each with the same form of `stand_in`.

    The base64 forms cover all three alignments of the secret in a longer text.
    """
    yield secret.hex().encode(), stand_in.hex().encode()
    yield secret.hex().upper().encode(), stand_in.hex().upper().encode()
    url_safe = bytes.maketrans(b"+/", b"-_")
    for shift in range(3):
        inner = slice(-(-8 * shift // 6), 8 * (shift + len(secret)) // 6)
        form, other = (b64encode(bytes(shift) + text)[inner] for text in (secret, stand_in))
        yield form.translate(url_safe), other.translate(url_safe)
        yield form, other  # last, so this pair wins in a `dict` when both base64 alphabets give the same form
    # For a secret encoded alone, the last base64 character depends on the secret only.
    form, other = (b64encode(text).rstrip(b"=") for text in (secret, stand_in))
    yield form.translate(url_safe), other.translate(url_safe)
    yield form, other


# ---------------------------------------------------------------------------------------------- escapes

# A match is one escape sequence, or bytes without escape sequences. JSON may be the body of an HTTP response,
# so the line between two chunks (chunked transfer encoding) also matches. Such a line decodes to nothing.
_JSON = re.compile(
    rb"\\u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\[\"\\/bfnrt]"
    rb"|\r\n[0-9A-Fa-f]+[^\r\n]{0,80}\r\n|[^%+\\\r]+|.",
    re.DOTALL,
)
_QUERY = re.compile(rb"%[0-9A-Fa-f]{2}|[^%+\\\r]+|.", re.DOTALL)
_MARKS = {_JSON: (b"\\", b"\r\n"), _QUERY: (b"%", b"+")}  # a text without these marks has no escapes
_BACKSLASHED = dict(zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True))
_LEVELS = 3
"""Maximum number of nested escape levels, such as JSON in JSON, in which secrets are found."""


class _Escaped:
    """An escaped text, split into escape sequences and plain pieces, and its unescaped form `plain`."""

    def __init__(self, data: bytes, syntax: re.Pattern[bytes]) -> None:
        self._units = syntax.findall(data)
        self._pieces = list(map(_Pieces(syntax).__getitem__, self._units))
        self.plain = b"".join(self._pieces)

    def rewritten(self, plain: bytes) -> bytes:
        """Return `plain`, which has the shape of `self.plain`, with the escapes of this text."""
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
    """The unescaped form of each unit (escape sequence or plain piece), computed once per different unit.

    The cache saves time, because a text may have a million units.
    """

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
    """Escape `plain` in the same way as `unit`.

    `unit` is never a backslash escape of one letter, because stand-ins keep such characters.
    """
    if _is_plain(unit):
        return plain
    if unit[:1] == b"%":
        written = b"%%%02X" % plain[0]
        return written if unit == unit.upper() else written.lower()
    assert unit[:2] == b"\\u"
    digits = plain.decode("utf-8", "surrogatepass").encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{digits[at : at + 4]}" for at in range(0, len(digits), 4)).encode()


# ---------------------------------------------------------------------------------------------- secrets

_FIELD = re.compile(rb'("([^"\\]{1,64})"\s*:\s*")((?:[^"\\]++|\\.)*+)', re.DOTALL)  # name and value


class _Forms:
    """The forms of one secret that are searched for in data.

    The forms are the secret itself and, if the secret is not too long, its hex and base64 forms.
    """

    __slots__ = ("blocks", "stand_ins")

    def __init__(self, secret: bytes, stand_in: bytes) -> None:
        coded = _coded_forms(secret, stand_in) if len(secret) <= MAX_CODED_LENGTH else ()
        self.stand_ins = {**dict(coded), secret: stand_in}
        self.blocks = {  # the first blocks of the forms at each of the possible alignments
            memoryview(form[at : at + _BLOCK]).cast("I")[0] for form in self.stand_ins for at in range(_BLOCK)
        }


class Secrets:
    """The secrets known so far. The methods `hide…` replace secrets in place and add these secrets.

    Memory and time are bounded: at most `MAX_SOUGHT` secrets are searched for, plus the secrets that `keep`
    keeps.
    """

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}  # by hash of the secret, newest last
        self._ours: dict[bytes, None] = {}  # hashes of stand-ins, newest last
        self._count = 0  # the number of secrets that have received a number
        self._sought: dict[bytes, _Forms] = {}  # by secret, newest last
        self._kept: dict[bytes, _Forms] = {}  # secrets that are searched for during the whole recording
        self._blocks: set[int] | None = None  # the blocks of all forms; `None`: must be rebuilt
        self._sorted: dict[bytes, bytes] | None = None  # all forms, longest first; `None`: must be rebuilt

    def keep(self) -> None:
        """Search for all secrets known now, which come from the config, during the whole recording."""
        self._kept |= self._sought
        self._sought.clear()

    # ---------------------------------------------------------------- hide a known secret in place

    def hide(self, secret: str, *, seek: bool = True) -> str:
        """Return the stand-in of a secret. With `seek`, the secret is also searched for in later data."""
        return _text(self.hide_bytes(_bytes(secret), seek=seek))

    def hide_in_query(self, value: bytes, *, seek: bool = True) -> bytes:
        """Return the stand-in of a percent-encoded query value. `seek` has the same meaning as in `hide`."""
        escaped = _Escaped(value, _QUERY)
        return escaped.rewritten(self.hide_bytes(escaped.plain, seek=seek))

    def hide_in_json(self, value: bytes) -> bytes:
        """Return the stand-in of an escaped JSON string without its quotes.

        The string is also searched for in later data.
        """
        escaped = _Escaped(value, _JSON)
        return escaped.rewritten(self.hide_bytes(escaped.plain))

    def hide_words(self, words: bytes) -> bytes:
        """Replace each word of a header's value, except words of the protocols, such as `Bearer`.

        The replaced words are not searched for in later data, because a word may not be a secret.
        """
        return re.sub(
            rb"\S+",
            lambda word: word[0] if word[0].lower() in _WORDS else self.hide_bytes(word[0], seek=False),
            words,
        )

    def hide_bytes(self, secret: bytes, *, seek: bool = True) -> bytes:
        """Return the stand-in of a secret given as bytes. `seek` has the same meaning as in `hide`."""
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
            self._count += 1  # do not use 0: its stand-in would contain a shifted copy of itself in base64
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
            # A secret that equals the hex or base64 form of another secret keeps its own stand-in.
            found |= {secret: forms.stand_ins[secret] for secret, forms in known.items()}
            self._sorted = dict(sorted(found.items(), key=lambda form: -len(form[0])))
        return self._sorted

    # ---------------------------------------------------------------- find and hide secrets in a text

    def redact(self, data: bytes) -> bytes:
        """Return `data` with each known secret replaced, whether plain, escaped, in base64 or in hex.

        The length stays the same.
        """
        if len(data) < MIN_SECRET or not (self._kept or self._sought):
            return data
        return _at_all_levels(data, self._replace)

    def redact_text(self, text: str) -> str:
        """Return `text` with each known secret replaced, like `redact`."""
        return _text(self.redact(_bytes(text)))

    def redact_json(self, data: bytes) -> bytes:
        """Redact a JSON message. All strings inside fields with a secret's name are secrets."""
        try:
            self._learn(json.loads(data), is_secret=False)
        except (ValueError, RecursionError):
            pass  # not JSON, or incomplete
        return self.redact(_FIELD.sub(self._hide_field, data))

    def redact_clipped(self, text: str) -> str:
        """Redact a text that may end in the middle of a secret, because a core may have shortened it."""
        return _text(self.redact_end(self.redact(_bytes(text))))

    def redact_end(self, data: bytes) -> bytes:
        """Return `data`, which was cut off, with a known secret's beginning replaced at the end of `data`."""

        return _at_all_levels(data, self._replace_beginning)

    def _replace(self, data: bytes) -> bytes:
        # Data rarely contains a secret. Therefore, check first the blocks, then the windows at each position.
        # The cost of these checks does not depend on the number of forms.
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
        """Whether `data` may contain a form of a secret.

        Each form starts with a window, and a window contains an aligned block.
        """
        if self._blocks is None:
            self._blocks = set().union(*(forms.blocks for forms in (self._kept | self._sought).values()))
        # Compare only aligned blocks, which is 50 times faster than windows at every offset.
        blocks = memoryview(data)[: len(data) // _BLOCK * _BLOCK].cast("I")
        return not self._blocks.isdisjoint(blocks)

    def _replace_beginning(self, data: bytes) -> bytes:
        end, cut = len(data), 3  # bytes; shorter matches at the end occur by chance
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
        """Add the secrets in a parsed JSON message. Only a parser recognizes names that contain escapes."""
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
    """Apply `change`, which keeps the shape of a text, to `data` and to the escaped texts in `data`."""
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
# Redaction of HTTP heads, which are upgrade requests and their responses.


# Headers whose values are kept. The values of all other headers are treated as secret.
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
_LONG = 20  # bytes; a longer subprotocol is probably a token

_LINE = re.compile(rb"([^:\s]+)(:[ \t]*)(.*)", re.DOTALL)


def redact_head(head: bytes, secrets: Secrets) -> bytes:
    """Redact an HTTP start line and the headers. The length stays the same."""
    first, *lines = head.split(b"\n")
    method, space, target = first.partition(b" ")
    redacted = [first if method.startswith(b"HTTP/") else method + space + redact_url(target, secrets)]
    name = b""
    for line in lines:
        match = _LINE.match(line)
        if match is None or line[:1] in b" \t":  # continues the previous header
            redacted.append(redact_header(name, line, secrets))
        else:
            name = match[1].lower()
            redacted.append(match[1] + match[2] + redact_header(name, match[3], secrets))
    return secrets.redact(b"\n".join(redacted))


def redact_header(name: bytes, value: bytes, secrets: Secrets) -> bytes:
    """Redact the value of an HTTP header. `name` must be in lower case."""
    if name == SUBPROTOCOLS:
        return re.sub(rb"[^,\s]+", lambda one: redact_subprotocol(one[0], secrets), value)
    if name in HARMLESS:
        return value
    if not is_secret_name(name.decode("latin-1")):
        return secrets.hide_words(value)
    match = re.fullmatch(rb"(\s*)(.*?)(\s*)", value, re.DOTALL)  # the line still ends with "\r"
    assert match is not None
    pieces = [
        (piece.encode("latin-1"), is_secret)
        for piece, is_secret in header_pieces(name.decode("latin-1"), match[2].decode("latin-1"))
    ]
    hidden = b"".join(secrets.hide_bytes(piece) if is_secret else piece for piece, is_secret in pieces)
    return match[1] + hidden + match[3]


def redact_subprotocol(subprotocol: bytes, secrets: Secrets) -> bytes:
    """Redact one WebSocket subprotocol, because some clients send a token as a subprotocol."""
    encoded = auth_token((subprotocol.decode("latin-1"),))
    if encoded and auth_token_subprotocol(encoded).encode() == subprotocol:
        # Replace the decoded token, and encode its stand-in, because a replay encodes the stand-in, too.
        return auth_token_subprotocol(secrets.hide(encoded)).encode()
    if subprotocol.startswith(_BEARER):
        scheme, dot, token = subprotocol.rpartition(b".")
        return scheme + dot + secrets.hide_bytes(token)
    return secrets.hide_words(subprotocol) if len(subprotocol) > _LONG else subprotocol


def redact_url(url: bytes, secrets: Secrets) -> bytes:
    """Redact all query values except `vsn` in a URL, or in a request line after the method.

    Only values that have no name or a secret's name are searched for in later data.
    """
    address, question_mark, rest = url.partition(b"?")
    query = re.match(rb"\S*", rest)
    assert query is not None
    params = []
    for param in query[0].split(b"&"):
        name, equals, value = param.partition(b"=") if b"=" in param else (b"", b"", param)
        if name != b"vsn":
            # A value without a name may be a secret.
            is_secret = not equals or is_secret_name(unquote_to_bytes(name).decode("utf-8", "replace"))
            value = secrets.hide_in_query(value, seek=is_secret)
        params.append(name + equals + value)
    return address + question_mark + b"&".join(params) + rest[query.end() :]


# ---------------------------------------------------------------------------------------------------- inbound
# The received bytes of one connection without secrets. Redaction does not change the number of bytes.
#
# Chunks and fragments may split a secret. Therefore, bytes are ready for writing only when their message is
# complete.


class CannotRedactError(Exception):
    """The bytes contain or may contain a secret that cannot be replaced. The error text gives the reason."""


class Inbound:
    """A redactor for the received bytes of one connection.

    `limit` is the maximum size of a message in bytes. After `CannotRedactError` the object must not be used.
    """

    def __init__(self, secrets: Secrets, limit: int) -> None:
        self._secrets = secrets
        self._scanner = Scanner()
        self._inflater = Inflater(limit)
        self._held: list[Piece | bytes] = []  # parts of an incomplete message; `bytes` are redacted already
        self._ready = bytearray()

    @property
    def ready(self) -> int:
        """Number of bytes that `take` can return now."""
        return len(self._ready)

    def take(self, count: int) -> bytes:
        """Remove and return the next `count` bytes of the ready bytes."""
        taken = bytes(self._ready[:count])
        del self._ready[:count]
        return taken

    def feed(self, data: bytes) -> None:
        """Add received bytes. Raises `CannotRedactError` for a secret that cannot be replaced."""
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
        """Redact the remaining bytes at the end of the connection. Raises `CannotRedactError` like `feed`."""
        rest = self._scanner.take_rest()
        if isinstance(rest, HeadPiece):
            self._held.append(self._secrets.redact_end(redact_head(rest.raw, self._secrets)))
        else:
            self._held.append(rest)
        self._release(cut=True)

    def _release(self, *, cut: bool = False) -> None:
        """Redact the held parts of a message and make the redacted bytes ready.

        The held parts are a complete message or, if `cut` is true, the beginning of a message.
        """
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
        return self._without_secrets(payload, cut)  # the "compressed" bit of the frame may be wrong

    def _without_secrets(self, payload: bytes, cut: bool) -> bytes:
        redacted = self._secrets.redact_json(payload)
        return self._secrets.redact_end(redacted) if cut else redacted
