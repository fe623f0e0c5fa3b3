"""Every mutant of the lists still fits the sources, is a bug, and has tests near it that may find it."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from functools import cache
from types import CodeType
from typing import Any

import pytest

from mutants.mutant import LISTS, ROOT, Mutant, load
from mutants.run import nearest

MUTANTS = load()


@cache
def compiled(file: str) -> tuple[str, Any]:
    """A source file, and what `instructions` says of it."""
    source = (ROOT / "src" / file).read_text("utf-8")
    return source, instructions(compile(source, file, "exec", dont_inherit=True))


def instructions(code: CodeType) -> Any:
    """What code does, without its lines. This is cheaper to compare than syntax trees."""
    consts = [instructions(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, code.co_flags, consts


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant(mutant: Mutant) -> None:
    source, original = compiled(mutant.file)
    mutated = compile(mutant.apply(source), mutant.file, "exec", dont_inherit=True)
    assert instructions(mutated) != original, "the code is the same"
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", mutant.name)
    assert re.fullmatch(r"[A-Z].+\.", mutant.bug), "a sentence"
    assert mutant.tests or nearest(mutant.file)
    assert all((ROOT / "tests" / name).exists() for name in mutant.tests)


def test_names_are_unique() -> None:
    counts = Counter(mutant.name for mutant in MUTANTS)
    assert [name for name, count in counts.items() if count > 1] == []


def test_every_list_says_what_it_is_about() -> None:
    for path in LISTS:
        text = path.read_text("utf-8")
        assert text.startswith("# "), path
        assert tomllib.loads(text), path


def test_a_mutant_fits_in_one_place_only() -> None:
    mutant = Mutant("twice", "It fits twice.", "x.py", "a", "b")
    assert mutant.apply("-a-") == "-b-"
    for source in ("", "aa"):
        with pytest.raises(ValueError, match="not once"):
            mutant.apply(source)
