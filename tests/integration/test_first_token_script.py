"""The script of `make gpu`, on a CPU and a tiny model, with nothing installed but what the Makefile names."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

for needed in ("torch", "transformers"):
    pytest.importorskip(needed)

SCRIPT = Path(__file__).parents[1] / "bench" / "time_to_first_token.py"
NEEDED = ("torch", "transformers", "blake3", "rfc8785")
OWN = {"memcube", "memcube_protocol", "support"}
DRIVER = """
import sys
from importlib.machinery import PathFinder
absent, find = set(sys.argv.pop(1).split(",")), PathFinder.find_spec
def found(name, path=None, target=None):
    return None if name.partition(".")[0] in absent else find(name, path, target)
PathFinder.find_spec = found
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("script", sys.argv.pop(1))
script = module_from_spec(spec)
spec.loader.exec_module(script)
script.CONTEXTS, script.QUERIES, script.CELLS = (9, 40), (3, 5), ((9, 3), (40, 5))
script.SHAPES["0.6B"] = (1, 64, 2, 1, 64, True)
script.main()
"""


def installed_with(names: tuple[str, ...]) -> set[str]:
    """`names` and all that is installed along with them."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = canonicalize_name(left.pop())
        if name in found:
            continue
        try:
            wanted = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        needs = (Requirement(line) for line in wanted)
        left += [need.name for need in needs if not need.marker or need.marker.evaluate()]
    return found


def absent_modules() -> list[str]:
    """Every module that is installed here and would not be there."""
    there = installed_with(NEEDED)
    return [
        module
        for module, packages in metadata.packages_distributions().items()
        if module not in OWN and not {canonicalize_name(package) for package in packages} & there
    ]


def test_the_script_measures_every_way_with_what_the_makefile_names(tmp_path: Path) -> None:
    absent, out = absent_modules(), tmp_path / "figures.json"
    assert {"pytest", "httpx", "peft"} <= set(absent)
    assert "torch" not in absent
    command = [sys.executable, "-c", DRIVER, ",".join(absent), str(SCRIPT)]
    options = ["--device", "cpu", "--shape", "0.6B", "--runs", "1", "--out", str(out)]
    run = subprocess.run(
        [*command, *options, "--scratch", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    cells = json.loads(out.read_text())["shapes"]["0.6B"]["cells"]
    assert [(cell["context"], cell["query"]) for cell in cells] == [(9, 3), (40, 5)]
    for cell in cells:
        for storage in ("bf16", "int8"):
            assert {"resident", "cached", "checked"} <= cell[storage].keys()
    assert "disk" in cells[0]["bf16"]
    assert "| 0.6B | 40 / 5 | int8 |" in run.stdout
