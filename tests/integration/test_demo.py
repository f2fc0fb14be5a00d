"""The demo is a test: it plays the main job with real processes, and its figures must hold."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NEEDED = ("torch", "transformers", "peft", "litestar", "qdrant_edge")


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MEMCUBE_")}
    done = subprocess.run(
        [Path(sys.executable).with_name("memcube"), "demo", "--json"],
        capture_output=True,
        env=environment | {"MEMCUBE_HOME": str(tmp_path_factory.mktemp("home"))},
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)["steps"]


pytestmark = pytest.mark.timeout(180)


def step(steps: list[dict], word: str) -> dict:
    return next(entry for entry in steps if word in entry["title"])


def test_memory_makes_the_difference(steps: list[dict]) -> None:
    asked = step(steps, "asks what the user told")
    assert asked["nothing"] <= 0.4
    assert asked["LoRA and KV"] >= 0.9
    assert asked["nothing"] < asked["LoRA"] < asked["LoRA and KV"]


def test_records_are_found(steps: list[dict]) -> None:
    assert step(steps, "searches the records")["found"] >= 0.9


def test_an_unchanged_cube_moves_no_bytes(steps: list[dict]) -> None:
    assert step(steps, "pushes it again")["movedBytes"] == 0


def test_another_model_is_refused(steps: list[dict]) -> None:
    assert step(steps, "another model")["refused"] == "incompatible"


def test_a_flipped_byte_is_refused(steps: list[dict]) -> None:
    assert step(steps, "flips")["refused"] == "digest-mismatch"
