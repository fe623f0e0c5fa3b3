"""One target under atheris, a process of its own: `python -m fuzz.fuzzer TARGET [options of libFuzzer]`."""

from __future__ import annotations

import sys
from importlib import import_module

import atheris

from fuzz import targets


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    program, name, *options = sys.argv
    # The core is instrumented. The oracle is not: it would be three times as slow, and its branches are no
    # news. Nor are the libraries below the core, unless the bytes are the matter.
    libraries = ["wsproto", "h11"] if name in targets.ON_BYTES else []
    with atheris.instrument_imports(include=["presence_proto", *libraries]):
        import_module("presence_proto")
    atheris.Setup([program, *options], targets.check(name))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
