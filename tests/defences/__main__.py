"""Takes each defence of `defences.toml` away, in a copy of the packages, and sees its tests fail.

    python -m tests.defences            all of them
    python -m tests.defences WORD …     those whose name holds one of the words

The exit code is 1 where a test holds although its defence is gone: it tests something else.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = ("protocol", "signing", "client", "registry", "alembic")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?::\w+(?:::\w+)?)", re.MULTILINE)


def defences() -> list[dict[str, Any]]:
    """What `defences.toml` holds."""
    found = tomllib.loads((Path(__file__).parent / "defences.toml").read_text("utf-8"))
    return list(found["defence"])


def without(defence: dict[str, Any], copy: Path) -> None:
    """Write the packages to `copy`, less `defence`."""
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name, old, new in defence["edits"]:
        path = copy / name
        text = path.read_text("utf-8")
        assert text.count(old) == 1, f"{name} holds {old!r} {text.count(old)} times"
        path.write_text(text.replace(old, new), "utf-8")


def holding(defence: dict[str, Any]) -> list[str]:
    """The tests of `defence` that hold without it."""
    with tempfile.TemporaryDirectory() as folder:
        without(defence, Path(folder))
        paths = [str(Path(folder) / package) for package in PACKAGES[:4]]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        options = ("-q", "-rfE", "--tb=no", "-p", "no:cacheprovider")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *defence["tests"]],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    failed = set(_FAILED.findall(done.stdout))
    return [test for test in defence["tests"] if test not in failed]


def main(words: Sequence[str]) -> int:
    """Take the chosen defences away, and say what holds without."""
    useless = 0
    for defence in defences():
        if words and not any(word in defence["name"] for word in words):
            continue
        left = holding(defence)
        useless += len(left)
        count = len(defence["tests"])
        sys.stdout.write(f"{count - len(left)}/{count} fail without: {defence['name']}\n")
        sys.stdout.writelines(f"    holds: {test}\n" for test in left)
        sys.stdout.flush()
    return 1 if useless else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
