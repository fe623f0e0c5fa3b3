"""A linter for prose: the docstrings and comments of the sources, and the pages.

    python docs/prose.py

Prints every place that breaks a rule of `RULES`, and exits with status 1 if there is one. The rules are those
that a pattern can check: words and turns of phrase that made readers read a sentence twice.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
SOURCES = ("src", "docs", "benchmarks")
PAGES = ("README.md", "docs/**/*.md")

RULES = {
    r"\b(?<!there )(is|are|was|were) none\b": 'say what it is not: "is not …"',
    r"\b(?<!there )(is|was) no (?!longer|more|less|other)(?=[a-z])": '"is not a …", or "there is no …"',
    r"\bof (now|today|ours|theirs|yesterday)\b": "an adjective or a possessive: current, our",
    r"\bso (many|much) (of|for|at)\b": "the number, or its name",
    r"\b(who|what) (it|he|she) is\b(?! for)": "the noun",
    r"\b(gives|give|gave|given) up\b": "abort, or stop",
    r"\b(fast )?lanes?\b": "frame reader",
    r"\bearlier lif|\bnew life\b|\b(two|several|all) lives\b": "join",
    r"\b(says|said|say|saying) goodbye\b": "disconnect, or close",
    r"\bis heard of\b|\bare heard of\b|\bhears? of\b": "receive, or report",
    r"\bin vain\b|\bto no avail\b|\bwherefore\b|\bwhereof\b": "plain words",
    r"\b(?-i:([a-z]+) \1)\b(?<!that that)": "the same word twice",
}
"""Pattern -> what to write instead."""


def docstrings_and_comments(path: Path) -> Iterator[tuple[int, str]]:
    """The line numbers and texts of a source file's prose, without examples and quoted names."""
    text = path.read_text("utf-8")
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            for number, paragraph in paragraphs(node.value.value):
                yield node.lineno + number, paragraph
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("#: ")


def paragraphs(docstring: str) -> Iterator[tuple[int, str]]:
    """The paragraphs of a docstring and the lines where they begin. Indented examples are left out."""
    lines = docstring.splitlines()
    margin = min((len(line) - len(line.lstrip()) for line in lines[1:] if line.strip()), default=0)
    start, found = 0, []
    for number, line in enumerate([*lines, ""]):
        body = line.strip() if number == 0 else line[margin:]
        if body and not body.startswith("    "):
            start, found = (start, found) if found else (number, [])
            found.append(body)
        elif found:
            yield start, " ".join(found)
            found = []


def prose_of_page(path: Path) -> Iterator[tuple[int, str]]:
    """The line numbers and texts of a page, without its code."""
    for token in MarkdownIt().enable("table").parse(path.read_text("utf-8")):
        if token.type == "inline" and token.map is not None:
            parts = [
                "`…`" if child.type == "code_inline" else child.content or " "
                for child in token.children or ()
            ]
            yield token.map[0] + 1, "".join(parts)


def faults(text: str) -> Iterator[str]:
    """What is wrong with a text. Quoted names and code are passed over."""
    plain = re.sub(r"`[^`]*`|\"[^\"]*\"|“[^”]*”", "`…`", text)
    for pattern, instead in RULES.items():
        for match in re.finditer(pattern, plain, re.IGNORECASE):
            yield f'"{match[0]}": {instead}'


def main() -> int:
    """The exit status: 1 when something is wrong."""
    found = []
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            found += [(path, *one) for one in docstrings_and_comments(path)]
    for pattern in PAGES:
        for path in sorted(ROOT.glob(pattern)):
            found += [(path, *one) for one in prose_of_page(path)]
    wrong = [(path, line, fault) for path, line, text in found for fault in faults(text)]
    for path, line, fault in wrong:
        print(f"{path.relative_to(ROOT)}:{line}: {fault}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
