"""Secrets, and what stands for them in a recording.

A stand-in has the shape of its secret: as many bytes, and the same kinds of characters in the same places. So
it can take the secret's place inside of frames, JSON, percent-encoding and headers, and all that a core does
with the secret (escape it, find it in a server's words) it does with the stand-in.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TELLING = 6
"""Bytes. What is shorter is hidden where it stands as a secret, and not looked for in what is said: its text
may stand anywhere."""

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


def _stand_in(secret: bytes, number: int) -> bytes:
    """Each character becomes the first of its kind, but for a number that tells one secret from another."""
    characters = []
    for match in reversed(list(_CHARACTER.finditer(secret))):
        alphabet = _ALPHABETS.get(str(match.lastgroup))
        if alphabet is None:
            characters.append(match[0])
        else:
            number, digit = divmod(number, len(alphabet))
            characters.append(alphabet[digit])
    return b"".join(reversed(characters))


def _coded_forms(secret: bytes, stand_in: bytes) -> Iterator[tuple[bytes, bytes]]:
    """What hex, and base64 whatever stands before it, make of the secret, and of its stand-in."""
    yield secret.hex().encode(), stand_in.hex().encode()
    yield secret.hex().upper().encode(), stand_in.hex().upper().encode()
    url_safe = bytes.maketrans(b"+/", b"-_")
    for shift in range(3):
        inner = slice(-(-8 * shift // 6), 8 * (shift + len(secret)) // 6)
        form, other = (b64encode(bytes(shift) + text)[inner] for text in (secret, stand_in))
        yield form, other
        yield form.translate(url_safe), other.translate(url_safe)


# ---------------------------------------------------------------------------------------------- escapes

# One byte or one escape. JSON may be the body of an HTTP answer: the line between two chunks of it stands for
# nothing.
_JSON = re.compile(
    rb"\\u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\[\"\\/bfnrt]"
    rb"|\r\n[0-9A-Fa-f]+[^\r\n]{0,80}\r\n|.",
    re.DOTALL,
)
_QUERY = re.compile(rb"%[0-9A-Fa-f]{2}|.", re.DOTALL)
_MARKS = {_JSON: (b"\\", b"\r\n"), _QUERY: (b"%", b"+")}  # without these there is nothing escaped
_BACKSLASHED = dict(zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True))
_LEVELS = 3
"""How often a text may be escaped, such as JSON in JSON, and secrets are still found."""


class _Escaped:
    """A text taken apart: each unit as it is written, and what it stands for."""

    def __init__(self, data: bytes, syntax: re.Pattern[bytes]) -> None:
        self._units = syntax.findall(data)
        self._pieces = [
            b" " if syntax is _QUERY and unit == b"+" else _unescaped(unit) for unit in self._units
        ]
        self.plain = b"".join(self._pieces)

    def rewritten(self, plain: bytes) -> bytes:
        """Another text of the same shape, written in the same way."""
        written, at = [], 0
        for unit, piece in zip(self._units, self._pieces, strict=True):
            other = plain[at : at + len(piece)]
            written.append(unit if other == piece else _escaped_like(unit, other))
            at += len(piece)
        return b"".join(written)


def _unescaped(unit: bytes) -> bytes:
    if len(unit) == 1:
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
    if len(unit) == 1:
        return plain
    if unit[:1] == b"%":
        written = b"%%%02X" % plain[0]
        return written if unit == unit.upper() else written.lower()
    assert unit[:2] == b"\\u"
    digits = plain.decode("utf-8", "surrogatepass").encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{digits[at : at + 4]}" for at in range(0, len(digits), 4)).encode()


# ---------------------------------------------------------------------------------------------- secrets

_NAME = (
    r"(?:(?:access|auth|id|refresh)[_-]?)?token|(?:x-)?api[_-]?key|authorization|password|secret|jwt|cookie"
)
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_NAMED = re.compile(rb'("(?:' + _NAME.encode() + rb')"\s*:\s*")((?:[^"\\]|\\.)*)', re.IGNORECASE | re.DOTALL)


class Secrets:
    """The secrets that are known so far. They are learned where they stand as such, by `hide`."""

    def __init__(self) -> None:
        self._stand_ins: dict[bytes, bytes] = {}
        self._forms: dict[bytes, bytes] = {}  # what to look for, longest first: secrets, also coded
        self._ours: set[bytes] = set()  # stand-ins

    # ---------------------------------------------------------------- where a secret stands as such

    def hide(self, secret: str) -> str:
        """The stand-in of this secret, which is known from now on."""
        return _text(self._hide(_bytes(secret)))

    def hide_in_query(self, value: bytes) -> bytes:
        """The same for a value in a query, as it is written there."""
        escaped = _Escaped(value, _QUERY)
        return escaped.rewritten(self._hide(escaped.plain))

    def hide_in_json(self, value: bytes) -> bytes:
        """The same for a string in JSON, as it is written there, without the quotes."""
        escaped = _Escaped(value, _JSON)
        return escaped.rewritten(self._hide(escaped.plain))

    def hide_words(self, words: bytes) -> bytes:
        """The same for each word of a header's value, and for its parts, such as a cookie has.

        Words of the protocols stay, such as `Bearer`.
        """
        for part in re.split(rb"[\s;,=\"]+", words):
            self._hide(part)
        return re.sub(
            rb"\S+", lambda word: word[0] if word[0].lower() in _WORDS else self._hide(word[0]), words
        )

    def _hide(self, secret: bytes) -> bytes:
        if secret in self._ours:
            return secret
        stand_in = self._stand_ins.get(secret)
        if stand_in is None:
            stand_in = self._stand_ins[secret] = _stand_in(secret, len(self._stand_ins))
            self._ours.add(stand_in)
            if len(secret) >= TELLING and secret not in VOCABULARY.encode():
                forms = {**dict(_coded_forms(secret, stand_in)), **self._forms, secret: stand_in}
                self._forms = dict(sorted(forms.items(), key=lambda form: -len(form[0])))
        return stand_in

    # ---------------------------------------------------------------- where secrets may stand

    def redact(self, data: bytes) -> bytes:
        """`data` with each known secret replaced: as it is, escaped, in base64 or hex. The length stays."""
        if len(data) < TELLING or not self._forms:
            return data
        return _at_all_levels(data, self._replace)

    def redact_text(self, text: str) -> str:
        """The same for text."""
        return _text(self.redact(_bytes(text)))

    def redact_json(self, data: bytes) -> bytes:
        """The same for a message, in which what is named like a secret is one."""
        try:
            self._learn(json.loads(data))
        except (ValueError, RecursionError):
            pass  # not JSON, or cut off
        return self.redact(_NAMED.sub(lambda named: named[1] + self.hide_in_json(named[2]), data))

    def redact_clipped(self, text: str) -> str:
        """The same for text that a core may have clipped."""
        return _text(self.redact_end(self.redact(_bytes(text))))

    def redact_end(self, data: bytes) -> bytes:
        """`data`, which is cut off, without the beginning of a secret at its end."""

        return _at_all_levels(data, self._replace_beginning)

    def _replace(self, data: bytes) -> bytes:
        for form, stand_in in self._forms.items():
            if form in data:
                data = data.replace(form, stand_in)
        return data

    def _replace_beginning(self, data: bytes) -> bytes:
        cut = 0
        for form, stand_in in self._forms.items():
            for length in range(min(len(form) - 1, len(data)), max(cut, 3), -1):
                if data.endswith(form[:length]):
                    cut, data = length, data[:-length] + stand_in[:length]
                    break
        return data

    def _learn(self, value: Any) -> None:
        """Names may be escaped, too, so that only a parser sees them."""
        if isinstance(value, dict):
            for name, item in value.items():
                if isinstance(item, str) and is_secret_name(name):
                    self.hide(item)
                self._learn(item)
        elif isinstance(value, list):
            for item in value:
                self._learn(item)


def is_secret_name(name: str) -> bool:
    """Whether what has this name in JSON is a secret."""
    return _SECRET_NAME.fullmatch(name) is not None


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
