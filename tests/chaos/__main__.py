"""`make chaos`: see the package."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from chaos.plan import Profile
from chaos.run import Wanted, new_seed, run

_SHOWN = 40


def main() -> int:
    """Exit code 1 where something was not as it must be."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument(
        "--kills", type=int, default=150, help="end after the round that reaches it"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="end after this time")
    parser.add_argument("--seed", type=int, help="repeat a run's plan; without: another each time")
    parser.add_argument("--profile", type=Profile, choices=list(Profile), default=Profile.SQLITE)
    parser.add_argument("--json", type=Path, help="write what was done and found there")
    parser.add_argument("--keep", action="store_true", help="keep the run's folder")
    given = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):  # what runs has to be ended in order
        signal.signal(number, lambda *_: sys.exit(1))
    seed = new_seed() if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="memcube-chaos-"))
    print(f"seed {seed}, profile {given.profile}, in {folder}", flush=True)
    wanted = Wanted(seed, given.profile, given.kills, given.minutes)
    result = run(wanted, folder / "run", lambda line: print(line, flush=True))
    for each in result.violations[:_SHOWN]:
        print(f"VIOLATION in round {each['round']}: {each['kind']}: {each['what']}")
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(result.to_json(), indent=1) + "\n")
    print(f"{result.wall_s:.0f} s, {len(result.rounds)} rounds, {dict(result.strikes)}")
    print(f"{len(result.violations)} violations; repeat with --seed {seed}")
    if not given.keep and not result.violations:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
