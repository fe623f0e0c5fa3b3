"""Put each bug of the lists into a copy of the sources, and see which test fails."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutants.mutant import Mutant, load
from mutants.run import Runner, Verdict


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="these only; a part of a name will do")
    parser.add_argument("--list", action="append", type=Path, metavar="FILE", help="a list of your own")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="so many at a time (default 1)")
    args = parser.parse_args()
    mutants = [
        mutant
        for mutant in load(*(args.list or ()))
        if not args.names or any(name in mutant.name for name in args.names)
    ]
    if not mutants:
        parser.error("there is no such mutant")
    verdicts: list[Verdict] = []
    runner = Runner()
    pool = ThreadPoolExecutor(max(1, args.jobs))
    try:
        for verdict in pool.map(runner.judge, mutants):
            verdicts.append(verdict)
            print(f"[{len(verdicts)}/{len(mutants)}] {verdict}", flush=True)
        void = runner.control(verdicts)
    except KeyboardInterrupt:
        print("interrupted")
        void = []
    finally:
        runner.stop()
        pool.shutdown(cancel_futures=True)
    report(verdicts)
    for test in void:
        print(f"FAILS WITHOUT A MUTANT: {test}")
    killed = [verdict for verdict in verdicts if verdict.killer]
    return 0 if len(killed) == len(mutants) and not void else 1


def report(verdicts: list[Verdict]) -> None:
    """Print how many were killed in each module, and who survived."""
    survivors: list[Mutant] = [verdict.mutant for verdict in verdicts if not verdict.killer]
    files = sorted({verdict.mutant.file for verdict in verdicts})
    print()
    for file in files:
        of_it = [verdict for verdict in verdicts if verdict.mutant.file == file]
        killed = sum(bool(verdict.killer) for verdict in of_it)
        print(f"{killed:4} of {len(of_it):3}  {file}")
    print(f"{len(verdicts) - len(survivors):4} of {len(verdicts):3}  killed")
    for mutant in survivors:
        print(f"SURVIVED {mutant.name}: {mutant.bug}")


if __name__ == "__main__":
    sys.exit(main())
