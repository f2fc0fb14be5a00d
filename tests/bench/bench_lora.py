"""Mounting LoRA adapters: the raw read, memcube's first and later mounts, and what peft itself takes.

A random model of the 0.6B shape (28 layers, hidden 1024) in bfloat16, adapters of rank 16 on all of its
196 linear modules: 38.5 MiB in 392 tensors. Contestants take turns, each figure is a median, and the
ratio is to the raw read of the same run. `BENCH_LORA_LAYERS=2` tries it out on a small model, and writes nothing.
"""

from __future__ import annotations

import gc
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from memcube.memories.known_identity import known_identity
from memcube.memories.parametric.adapters import Adapters
from memcube.memories.parametric.dump import dump_lora
from memcube.memories.parametric.mount import mount_lora
from memcube.store.checks import CHECKS_FILE, FileChecks
from support.measuring import MIB, report

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

WHOLE = 28
LAYERS = int(os.environ.get("BENCH_LORA_LAYERS", WHOLE))
ROUNDS = 9
RANK = 16


@pytest.fixture(scope="module")
def model() -> Any:
    config = transformers.Qwen3Config(
        vocab_size=1024,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=LAYERS,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
    )
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


@pytest.fixture(scope="module")
def folders(model, tmp_path_factory) -> list[Path]:
    """Three adapters of one shape."""
    cube = tmp_path_factory.mktemp("cube")
    config = peft.LoraConfig(r=RANK, target_modules="all-linear", init_lora_weights=False)
    folders = []
    for number in range(3):
        made = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
        folders.append(dump_lora(made, cube, memory_id=f"a{number}"))
        made.unload()
        vars(model).pop("peft_config", None)
    return folders


class Clock:
    """Times by name, in milliseconds; nothing else is collected while it runs."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        gc.collect()
        gc.disable()
        started = time.perf_counter()
        yield
        self.times.setdefault(name, []).append(1000 * (time.perf_counter() - started))
        gc.enable()


def raw_read(clock: Clock, file: Path, buffer: bytearray) -> None:
    """The whole file into memory that is there already: the least that any reading takes."""
    with clock.of("raw read of the file"), file.open("rb", buffering=0) as opened:
        opened.readinto(buffer)


def memcubes_way(clock: Clock, model: Any, folders: list[Path], home: Path) -> None:
    """A first mount in this process, one whose checks are remembered but not the slot, then warm ones."""
    from memcube.memories.parametric.slots import SlotPool

    identity = known_identity(model)
    SlotPool._pools.pop(model, None)
    (home / CHECKS_FILE).unlink(missing_ok=True)
    checks = FileChecks(home / CHECKS_FILE)
    with clock.of("first mount, checks and slot new"):
        mounted = mount_lora(folders[0], model, base_identity=identity, checks=checks)
    mounted.unmount()
    (home / CHECKS_FILE).unlink()
    with clock.of("mount into a warm slot, checks new"):
        mounted = mount_lora(folders[0], model, base_identity=identity, checks=checks)
    mounted.unmount()
    for _ in range(3):
        with clock.of("warm mount"):
            mounted = mount_lora(folders[0], model, base_identity=identity, checks=checks)
        with clock.of("unmount"):
            mounted.unmount()
    with clock.of("is it still the same base?"):
        known_identity(model)


def memcubes_several(clock: Clock, model: Any, folders: list[Path], home: Path) -> None:
    checks, identity = FileChecks(home / CHECKS_FILE), known_identity(model)
    adapters = Adapters()
    for folder in folders:
        name = folder.name
        adapters.add(name, mount_lora(folder, model, base_identity=identity, checks=checks), name)
    for chosen in ("a1", "a2", {"a0": 0.5, "a1": 0.5}):
        with clock.of("switch, of three"):
            adapters.switch(chosen)
    with clock.of("route, of three"):
        assert adapters.route("a1")
    for how in ("linear", "cat"):
        with clock.of(f"combine two, {how}"):
            adapters.combine({"a0": 0.5, "a1": 0.5}, how, name=how)
    adapters.close()


def pefts_way(clock: Clock, model: Any, folders: list[Path]) -> None:
    from peft.utils.hotswap import hotswap_adapter

    def timed(name: str, run: Callable[[], Any]) -> Any:
        with clock.of(name):
            return run()

    options = {"autocast_adapter_dtype": False, "low_cpu_mem_usage": True}
    made = timed(
        "PeftModel.from_pretrained",
        lambda: peft.PeftModel.from_pretrained(model, folders[0], **options).eval(),
    )
    timed("load_adapter", lambda: made.load_adapter(folders[1], "b", **options))
    timed("hotswap_adapter", lambda: hotswap_adapter(made, str(folders[2]), "default"))
    timed("set_adapter, of two", lambda: made.set_adapter("b"))
    for how in ("linear", "cat"):
        timed(
            f"add_weighted_adapter, {how}",
            lambda how=how: made.add_weighted_adapter(["default", "b"], [0.5, 0.5], how, how),
        )
    made.unload()
    vars(model).pop("peft_config", None)


ROWS = (
    ("raw read of the file", "one `readinto`"),
    ("first mount, checks and slot new", "memcube"),
    ("mount into a warm slot, checks new", "memcube"),
    ("warm mount", "memcube"),
    ("unmount", "memcube"),
    ("is it still the same base?", "memcube"),
    ("PeftModel.from_pretrained", "peft"),
    ("load_adapter", "peft"),
    ("hotswap_adapter", "peft"),
    ("switch, of three", "memcube"),
    ("set_adapter, of two", "peft"),
    ("route, of three", "memcube"),
    ("combine two, linear", "memcube"),
    ("add_weighted_adapter, linear", "peft"),
    ("combine two, cat", "memcube"),
    ("add_weighted_adapter, cat", "peft"),
)


def test_mounting_switching_and_combining(model, folders, tmp_path: Path) -> None:
    warnings.simplefilter("ignore")
    file = folders[0] / "adapter_model.safetensors"
    size = file.stat().st_size
    buffer, clock = bytearray(size), Clock()
    buffer[:] = file.read_bytes()
    for number in range(ROUNDS):
        raw_read(clock, file, buffer)
        ways = [
            lambda: memcubes_way(clock, model, folders, tmp_path),
            lambda: memcubes_several(clock, model, folders, tmp_path),
            lambda: pefts_way(clock, model, folders),
        ]
        for way in ways if number % 2 == 0 else ways[::-1]:
            way()
            raw_read(clock, file, buffer)
    medians = {name: median(times) for name, times in clock.times.items()}
    raw = medians["raw read of the file"]
    rows = [[name, who, medians[name], f"{medians[name] / raw:.1f}"] for name, who in ROWS]
    title = (
        f"An adapter of rank {RANK} on the {7 * LAYERS} linear modules of {LAYERS} layers, "
        f"{size / MIB:.1f} MiB in bfloat16, medians of {ROUNDS} rounds"
    )
    if LAYERS == WHOLE:
        report("lora", title, ["what", "by", "ms", "times the raw read"], rows)
    else:
        print(title, *rows, sep="\n")
