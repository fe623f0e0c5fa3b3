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

from presence_proto.secrets import MIN_SECRET, is_secret_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
