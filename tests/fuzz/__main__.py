"""Fuzz, replay what was found, make it smaller. `make fuzz` does the first; from `tests/`:

python -m fuzz run [TARGET …] [--seconds 60] [--jobs 1] [--folder DIR]
python -m fuzz replay TARGET FILE …
python -m fuzz shrink TARGET FILE          writes FILE.small
"""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from base64 import b64encode
from pathlib import Path

from fuzz import campaign, shrinking, targets

FOLDER = Path(__file__).parent.parent.parent / "fuzz-corpus"


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 1 when something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Fuzz the core.")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="fuzz, and print a table at the end")
    run.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(targets.NAMES)}; default: all")
    run.add_argument("--seconds", type=int, default=60, help="for each target")
    run.add_argument("--jobs", type=int, default=1, help="so many targets at a time")
    run.add_argument("--seed", type=int, default=0, help="the same again; 0, the default, is chance")
    run.add_argument("--folder", type=Path, default=FOLDER, help="where the corpora are kept")
    run.set_defaults(do=_run)
    replay = commands.add_parser("replay", help="run inputs, without a fuzzer")
    shrink = commands.add_parser("shrink", help="find a small input that fails in the same way")
    for command, do in ((replay, _replay), (shrink, _shrink)):
        command.add_argument("target", choices=targets.NAMES, metavar="TARGET")
        command.add_argument("files", nargs="+", type=Path, metavar="FILE")
        command.set_defaults(do=do)
    chosen = parser.parse_args(arguments)
    unknown = [name for name in getattr(chosen, "targets", ()) if name not in targets.NAMES]
    if unknown:
        run.error(f"there is no target {unknown[0]!r}")
    return int(chosen.do(chosen))


def _run(chosen: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # no fuzzer is to outlive us
    names = list(dict.fromkeys(chosen.targets)) or list(targets.NAMES)
    print(f"{', '.join(names)}: {chosen.seconds} s each; the logs are {chosen.folder}/TARGET/log", flush=True)
    rows, interrupted = campaign.run(
        names, chosen.folder, seconds=chosen.seconds, jobs=chosen.jobs, seed=chosen.seed
    )
    print(campaign.table(rows))
    for row in rows:
        for crash in row.crashes:
            command = f"PYTHONPATH=tests {sys.executable} -m fuzz replay {row.target} {crash}"
            print(f"\n{row.target}: {crash}\n  {command}\n{b64encode(crash.read_bytes()).decode()}")
        if row.reason:
            print(row.reason)
        if row.broken:
            print(
                f"\n{row.target}: the fuzzer itself ended too early, see {chosen.folder / row.target / 'log'}"
            )
    if interrupted:
        print("\ninterrupted")
    return int(any(row.crashes or row.broken for row in rows))


def _replay(chosen: argparse.Namespace) -> int:
    check, failed = targets.check(chosen.target), 0
    for file in chosen.files:
        try:
            check(file.read_bytes())
        except Exception:
            failed += 1
            print(f"{file}: fails", flush=True)
            traceback.print_exc()
        else:
            print(f"{file}: fine")
    return int(failed > 0)


def _shrink(chosen: argparse.Namespace) -> int:
    check = targets.check(chosen.target)
    for file in chosen.files:
        small = shrinking.shrink(file.read_bytes(), check)
        if small is None:
            print(f"{file}: fine, there is nothing to shrink")
            return 1
        path = file.with_name(file.name + ".small")
        path.write_bytes(small)
        print(f"{path}: {len(small)} bytes\n{small!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
