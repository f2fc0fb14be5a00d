"""Does a test notice each mutant of the verifier? `make mutate`; docs/mutation.md says how.

    python -m tests.mutation [--resume] [--seconds N] [--jobs N] [--only TEXT]

Every survivor has to be listed in equivalent.toml with the reason why no test can notice it, and
nothing else may be listed there.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pytest

from . import running
from .mutants import Mutant
from .running import Children, Reached

ROOT: Final = running.ROOT
STATE: Final = Path("build") / "mutation"
LISTED: Final = Path("tests") / "mutation" / "equivalent.toml"
TOOL: Final = Path(sys.prefix) / "mutation"
COPIED: Final = (
    *("protocol", "signing", "client", "registry", "alembic", "tests", "docs", "pyproject.toml"),
    "constraints.txt",
)
_SIGNING: Final = (
    *("authority/chain", "authority/judging", "authority/inclusion", "transparency/merkle"),
    *("transparency/checkpoint", "transparency/bundled", "transparency/entry"),
    *("transparency/fork", "bundle", "dsse", "statement", "release", "_values"),
)
_TRUST: Final = (
    *("decision", "verdict", "_policy_rules", "_log_rules", "_rules", "_signatures"),
    *("_authority", "_status", "_voices", "_countersignatures", "_job_rules"),
    *("log_state", "question", "attested", "pins", "policy"),
)
MODULES: Final = (
    *(f"client/memcube/trust/{name}.py" for name in _TRUST),
    *(f"signing/memcube_signing/{name}.py" for name in _SIGNING),
)
TESTS: Final = (
    *("tests/unit/signing", "tests/unit/client/trust", "tests/unit/client/provenance"),
    *(f"tests/conformance/{name}" for name in ("attestations", "authority", "log", "policy")),
    *("tests/conformance/proof", "tests/conformance/signing"),
    *("tests/attacks/test_signing_forgeries.py", "tests/attacks/test_stolen_keys.py"),
    *("tests/house/test_values.py",),
)
_TRACE_CPU_S: Final = 600
SLOW: Final = ("test_keystore.py", "test_keys.py", "test_hardware.py", "test_passphrases.py")
"""What they test derives keys from passphrases, and decides nothing."""


def tests() -> list[str]:
    """The files of tests that may notice a mutant."""
    found = (path for name in TESTS for path in _files(ROOT / name))
    return [str(path.relative_to(ROOT)) for path in found if path.name not in SLOW]


def _files(path: Path) -> list[Path]:
    return sorted(path.rglob("test_*.py")) if path.is_dir() else [path]


class Run:
    """A run that can be broken off, and resumed while neither modules nor tests change."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._until = time.monotonic() + options.seconds
        self._jobs = options.jobs
        self._state = options.state
        self._log = self._state / "outcomes.jsonl"
        self.modules = [name for name in MODULES if options.only in name]
        self.reached, self.failing = self._reach()
        self.mutants = _made(self.modules, self._state)
        self.outcomes = self._known()

    def _known(self) -> dict[str, int]:
        """What ran already: outcomes by mutant."""
        if not self._log.exists():
            return {}
        return dict(json.loads(line) for line in self._log.read_text().splitlines())

    def _note(self, mutant: Mutant, outcome: int) -> None:
        self.outcomes[_key(mutant)] = outcome
        with self._log.open("a") as log:
            log.write(json.dumps((_key(mutant), outcome)) + "\n")

    def _reach(self) -> tuple[Reached, list[str]]:
        path = self._state / "reached.json"
        if not path.exists():
            running.in_child(
                lambda: running.collect(tests(), lambda items: _trace(items, path, self._jobs))
            )
        entries = json.loads(path.read_text())
        return _reached(entries), [name for name, _, _, passed in entries if not passed]

    def pending(self, at_import: bool) -> list[tuple[int, Mutant]]:
        return [
            (number, mutant)
            for number, mutant in enumerate(self.mutants)
            if _key(mutant) not in self.outcomes and (not mutant.function) is at_import
        ]

    def work(self) -> None:
        """Run what has not run yet, as long as there is time."""
        with tempfile.TemporaryDirectory() as folder:
            children = Children(self._jobs, Path(folder))
            for_functions, for_imports = self.pending(False), self.pending(True)
            if for_functions:
                running.in_child(
                    lambda: running.collect(
                        tests(), lambda items: self._within(items, for_functions, children)
                    )
                )
                self.outcomes = self._known()
            _warm_up()
            jobs = (
                (number, self._job_at_import(mutant))
                for number, mutant in for_imports
                if time.monotonic() < self._until
            )
            children.run(jobs, lambda number, outcome: self._note(self.mutants[number], outcome))

    def _within(
        self, items: list[pytest.Item], pending: list[tuple[int, Mutant]], children: Children
    ) -> None:
        numbered = {name: item for item in items for name in (item.nodeid,)}
        jobs = (
            (number, self._job_within(mutant, numbered))
            for number, mutant in pending
            if time.monotonic() < self._until
        )
        children.run(jobs, lambda number, outcome: self._note(self.mutants[number], outcome))

    def _job_within(self, mutant: Mutant, items: Mapping[str, pytest.Item]) -> Any:
        def job() -> int:
            known = self._state / "killers" / f"{mutant.module}-{mutant.function}".replace("/", "-")
            killers = list(map(int, reversed(known.read_text().split()))) if known.exists() else []
            numbers = self.reached.tests_for(mutant, killers)
            running.exchange(mutant)
            failed = running.run_items([items[self.reached.tests[at]] for at in numbers])
            if failed is None:
                return running.SURVIVED
            with known.open("a") as file:
                file.write(f"{self.reached.tests.index(failed.nodeid)}\n")
            return running.KILLED

        return job

    def _job_at_import(self, mutant: Mutant) -> Any:
        def job() -> int:
            selected = [self.reached.tests[at] for at in self.reached.tests_for(mutant)]
            return running.run_imported(mutant, selected) if selected else running.SURVIVED

        return job

    def report(self, listed: Mapping[tuple[str, str, str, str], str]) -> int:
        """Say what survived, and whether each survivor, and nothing else, is listed."""
        missing = [one for one in self.mutants if _key(one) not in self.outcomes]
        survivors = [one for one in self.mutants if self.outcomes.get(_key(one)) == 0]
        names = {one.identity for one in survivors}
        new = [one for one in survivors if one.identity not in listed]
        stale = [one for one in listed if one not in names and one[0] in self.modules]
        _print_table(self.mutants, self.outcomes, set(listed))
        broken = [one for one in self.mutants if self.outcomes.get(_key(one)) == running.BROKEN]
        for one in broken:
            print(f"cannot be run: {one.module}:{one.first} {one.operator}: {one.now}")
        for name in self.failing:
            print(f"fails without a mutant, so it kills none: {name}")
        for one in new:
            print(
                f"survived: {one.module}:{one.first} {one.operator} in {one.function or 'module'}"
            )
            print(f"    was: {one.was}\n    now: {one.now}")
        if not missing:
            for module, function, was, now in stale:
                print(f"listed, but killed or gone: {module} {function}\n    {was}\n    {now}")
        print(f"{len(self.mutants)} mutants, {len(survivors)} survive, {len(new)} of them unlisted")
        if missing:
            print(f"{len(missing)} have not run: repeat with --resume")
            return 75
        return 1 if new or stale or broken or self.failing else 0


def _made(modules: Sequence[str], state: Path) -> list[Mutant]:
    """All mutants, made by another process, so that cosmic-ray is in none that runs tests."""
    made: list[Mutant] = []
    for module in modules:
        digest = _digest((module, "tests/mutation/mutants.py", "tests/mutation/operators.py"))
        path = state / f"mutants-{digest}.jsonl"
        if not path.exists():
            command = [sys.executable, "-m", "tests.mutation.mutants", str(ROOT), module]
            environment = {**os.environ, "PYTHONPATH": str(TOOL)}
            path.write_bytes(subprocess.check_output(command, cwd=ROOT, env=environment))
        made += [Mutant(**json.loads(line)) for line in path.read_text().splitlines()]
    return made


def _trace(items: list[pytest.Item], path: Path, jobs: int) -> None:
    """What each test reaches: the files of tests shared out between `jobs` processes."""
    files = list(dict.fromkeys(item.path for item in items))
    with tempfile.TemporaryDirectory() as folder:
        parts = [
            [item for item in items if files.index(item.path) % jobs == part]
            for part in range(jobs)
        ]
        work = (
            (part, lambda part=part: running.trace(parts[part], MODULES, Path(folder) / str(part)))
            for part in range(jobs)
        )
        outcomes: list[int] = []
        Children(jobs, Path(folder) / "slots", cpu_s=_TRACE_CPU_S).run(
            work, lambda _, outcome: outcomes.append(outcome)
        )
        if any(outcomes):
            raise RuntimeError("the tests cannot be traced")
        entries = [
            one
            for part in range(jobs)
            for one in json.loads((Path(folder) / str(part)).read_text())
        ]
    path.write_text(json.dumps(entries))


def _reached(entries: Iterable[Any]) -> Reached:
    kept = [entry for entry in entries if entry[2] and entry[3]]
    lines: dict[str, dict[int, list[int]]] = {}
    for number, (_, _, found, _) in enumerate(kept):
        for module, numbers in found.items():
            for line in numbers:
                lines.setdefault(module, {}).setdefault(line, []).append(number)
    widths = tuple(sum(map(len, found.values())) for _, _, found, _ in kept)
    return Reached(tuple(one[0] for one in kept), tuple(one[1] for one in kept), widths, lines)


def _warm_up() -> None:
    """Import what the tests need and no mutant is part of, once for all children."""
    for name in (
        "cryptography.hazmat.primitives.asymmetric.ec",
        "blake3",
        "zstandard",
    ):
        importlib.import_module(name)
    for name in ("cryptography.hazmat.primitives.serialization", "rfc8785", "tomllib", "urllib3"):
        importlib.import_module(name)
    for path in sorted((ROOT / "protocol" / "memcube_protocol").glob("*.py")):
        importlib.import_module(f"memcube_protocol.{path.stem}".removesuffix(".__init__"))


def _digest(names: Iterable[str]) -> str:
    """Of the files' contents."""
    total = hashlib.sha256()
    for name in names:
        total.update(name.encode() + (ROOT / name).read_bytes())
    return total.hexdigest()[:16]


def _key(mutant: Mutant) -> str:
    return hashlib.sha256(json.dumps(asdict(mutant)).encode()).hexdigest()[:20]


def _listed(path: Path) -> dict[tuple[str, str, str, str], str]:
    """The survivors that are known, each with its reason."""
    entries = tomllib.loads(path.read_text("utf-8")).get("equivalent", [])
    return {
        (one["module"], one.get("function", ""), was, now): one["why"]
        for one in entries
        for was, now in one["lines"]
    }


def _print_table(
    mutants: Sequence[Mutant], outcomes: Mapping[str, int], listed: set[tuple[str, str, str, str]]
) -> None:
    rows: dict[str, Counter[str]] = {}
    for one in mutants:
        row = rows.setdefault(one.module, Counter())
        outcome = outcomes.get(_key(one))
        row["mutants"] += 1
        row["killed"] += outcome == running.KILLED
        row["listed"] += outcome == 0 and one.identity in listed
        row["survive"] += outcome == 0 and one.identity not in listed
    total = sum(rows.values(), Counter())
    columns = ("mutants", "killed", "listed", "survive")
    print(f"{'':52}" + "".join(f"{name:>9}" for name in columns))
    for name, row in (*rows.items(), ("all", total)):
        print(f"{name:52}" + "".join(f"{row[column]:9}" for column in columns))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--resume", action="store_true", help="keep what ran before")
    parser.add_argument("--again", action="store_true", help="in a new copy; keep who was killed")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="modules whose path holds this text")
    parser.add_argument("--state", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--listed", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def in_a_copy(options: argparse.Namespace) -> int:
    """This program again, in a copy of the tree that nobody edits meanwhile."""
    state, tree = ROOT / STATE, ROOT / STATE / "tree"
    if not (options.resume and tree.exists()):
        shutil.rmtree(tree, ignore_errors=True)
        _forget(state, kills=not options.again)
        for name in COPIED:
            _copy(ROOT / name, tree / name)
    packages = os.pathsep.join(str(tree / name) for name in COPIED[:4])
    own = ("--state", str(state), "--listed", str(ROOT / LISTED))
    command = [sys.executable, "-m", "tests.mutation", *sys.argv[1:], *own]
    environment = {**os.environ, "PYTHONPATH": packages}
    return subprocess.run(command, cwd=tree, env=environment, check=False).returncode


def _forget(state: Path, *, kills: bool) -> None:
    """What ran before; without `kills` only what survived, since tests were added."""
    shutil.rmtree(state / "killers", ignore_errors=True)
    (state / "reached.json").unlink(missing_ok=True)
    log = state / "outcomes.jsonl"
    if log.exists():
        lines = log.read_text().splitlines(keepends=True)
        killed = [line for line in lines if json.loads(line)[1] == running.KILLED]
        log.write_text("" if kills else "".join(killed))


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def main() -> int:
    options = _options()
    if options.state is None:
        return in_a_copy(options)
    (options.state / "killers").mkdir(exist_ok=True)
    running.prepare()
    run = Run(options)
    run.work()
    return run.report(_listed(options.listed))


if __name__ == "__main__":
    sys.exit(main())
