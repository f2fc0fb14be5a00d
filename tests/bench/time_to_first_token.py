"""Time to the first token with and without a KV memory, loading included: one JSON of every figure.

    python tests/bench/time_to_first_token.py --device cuda --shape 8B --shape 32B
    python tests/bench/time_to_first_token.py --device cpu  --shape 0.6B
    python tests/bench/time_to_first_token.py --device cpu  --shape 0.6B --computing --cell 6064/167 --out one.json
    python tests/bench/time_to_first_token.py --document tests/bench/results/gpu.json

The first two measure, keep every figure in tests/bench/results (or --out), and put the table into
docs/benchmarks.md; the third measures single cells, and on one thread the time that it computed, which other work
on the machine does not change; the last one only writes the table of figures that another machine made.

Models have the shape of Qwen3 and random weights made on the device: speed does not depend on their
values. A memory of 6064 tokens is computed once, dumped in each storage, and mounted whole or as a prefix.
*Direct* computes context and question; every other way mounts the context and computes the question:

    resident   the memory was on the device before the clock began
    held       from pinned host memory
    cached     from a file in the page cache; `checked`: its blocks are hashed on the way
    disk       from a file that was evicted from the page cache

The cells and the times beside them are those of the table in the MemOS paper (Qwen3-8B).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("protocol", "client", "tests")]

import torch  # noqa: E402
import transformers  # noqa: E402
from memcube.memories.activation.dump import dump_kv, prefill  # noqa: E402
from memcube.memories.activation.files import open_kv  # noqa: E402
from memcube.memories.activation.mount import MountedKv, mount_kv  # noqa: E402
from memcube.memories.activation.streaming import HeldKv, StreamedLayers  # noqa: E402
from memcube_protocol.identity import BaseIdentity  # noqa: E402
from support.measuring import RESULTS, quote  # noqa: E402
from support.models import tokenizer_of  # noqa: E402

CONTEXTS = (583, 2773, 6064)
QUERIES = (167, 303, 953)
CELLS = tuple(product(CONTEXTS, QUERIES))
STORAGES = {"bf16": "none", "int8": "int8-token"}
PUBLISHED = {
    (583, 167): (0.29, 0.08, 0.713),
    (2773, 167): (0.95, 0.10, 0.897),
    (6064, 167): (2.04, 0.12, 0.942),
}
"""Seconds direct and with a memory, and the cut as it is printed there."""
SHAPES = {
    "0.6B": (28, 1024, 16, 8, 3072, True),
    "8B": (36, 4096, 32, 8, 12288, False),
    "32B": (64, 5120, 64, 8, 25600, False),
}
IDENTITY = BaseIdentity(b"random weights, made for one run"[:32])
MIB = 1 << 20
Way = TypeVar("Way", bound=Hashable)


def model_of_shape(name: str, device: str) -> Any:
    """A model of that shape in bfloat16."""
    layers, hidden, heads, kv_heads, inner, tied = SHAPES[name]
    config = transformers.Qwen3Config(
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=128,
        intermediate_size=inner,
        vocab_size=151_936,
        max_position_embeddings=40_960,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return model.eval()


class Bench:
    """One model and its memories on one device."""

    def __init__(
        self, shape: str, device: str, folder: Path, runs: int, clock: Callable[[], float]
    ) -> None:
        self.device, self.runs, self.folder, self.clock = device, runs, folder, clock
        self.tokenizer = tokenizer_of()
        self.model = model_of_shape(shape, device)
        made = torch.Generator().manual_seed(1)
        self.ids = torch.randint(1, 64, (max(CONTEXTS) + max(QUERIES),), generator=made)
        context = self.ids[: max(CONTEXTS)].tolist()
        live = prefill(self.model, context)
        self.memories = {
            name: dump_kv(
                self.model,
                self.tokenizer,
                token_ids=context,
                cache=live,
                folder=folder,
                memory_id=name,
                base_identity=IDENTITY,
                storage=storage,
            )
            for name, storage in STORAGES.items()
        }
        self.require_equal(live)

    def require_equal(self, live: Any) -> None:
        """The mounted cache is the live one, to the bit."""
        with self.mount("bf16", max(CONTEXTS), check=True) as memory:
            for one, other in zip(live.layers, memory.new_cache().layers, strict=True):
                assert torch.equal(one.keys, other.keys)
                assert torch.equal(one.values, other.values)

    def question(self, context: int, query: int) -> Any:
        return self.ids[context : context + query][None].to(self.device)

    def direct(self, context: int, query: int) -> Callable[[], int]:
        prompt = self.ids[: context + query][None].to(self.device)

        def answer() -> int:
            return self.first_token(prompt, None)

        return answer

    def mounted(self, storage: str, context: int, query: int, **how: Any) -> Callable[[], int]:
        question = self.question(context, query)

        def answer() -> int:
            with self.mount(storage, context, **how) as memory:
                return self.first_token(question, memory.new_cache())

        return answer

    def way(self, storage: str, name: str, context: int, query: int) -> Callable[[], int]:
        """What answers the question behind a memory that lies where `name` says."""
        if name == "resident":
            return self.resident(storage, context, query)
        if name == "held":
            held = HeldKv(*self.blocks(storage), verify=False)
            return self.mounted(storage, context, query, held=held)
        return self.mounted(storage, context, query, check=name == "checked")

    def resident(self, storage: str, context: int, query: int) -> Callable[[], int]:
        memory, question = self.mount(storage, context), self.question(context, query)
        memory.wait()
        return lambda: self.first_token(question, memory.new_cache())

    def mount(
        self, storage: str, context: int, *, check: bool = False, held: HeldKv | None = None
    ) -> MountedKv:
        return mount_kv(
            self.memories[storage],
            self.model,
            self.tokenizer,
            base_identity=IDENTITY,
            prefix_tokens=context,
            verify_blocks=check,
            held=held,
        )

    def first_token(self, ids: Any, cache: Any) -> int:
        with torch.inference_mode():
            output = self.model(input_ids=ids, past_key_values=cache, logits_to_keep=1)
            return int(output.logits[0, -1].argmax())

    def seconds(self, act: Callable[[], Any]) -> float:
        """Median of several runs behind one that is not counted."""
        return self.in_turns({"it": act})["it"]

    def in_turns(self, ways: dict[Way, Callable[[], Any]]) -> dict[Way, float]:
        """Medians of several rounds, in each of which every way is taken once.

        What else the machine does then meets all of them alike. On a GPU one round before these is not counted.
        """
        taken: dict[Way, list[float]] = {way: [] for way in ways}
        for number in range(self.runs + (self.device != "cpu")):
            for way, act in ways.items():
                seconds = self.timed(act)
                if number or self.device == "cpu":
                    taken[way].append(seconds)
        return {way: median(each) for way, each in taken.items()}

    def timed(self, act: Callable[[], Any]) -> float:
        """Seconds until `act` is done and the device rests."""
        self.settle()
        began = self.clock()
        act()
        self.settle()
        return self.clock() - began

    def settle(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()

    def from_disk(self, storage: str, context: int, query: int) -> float:
        """Median seconds of two answers behind a memory whose file has left the page cache."""
        answer, taken = self.mounted(storage, context, query), []
        for _ in range(2):
            self.evict(storage)
            taken.append(self.timed(answer))
        return median(taken)

    def evict(self, storage: str) -> None:
        """Let the memory's file leave the page cache."""
        with self.blocks(storage)[1].open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def blocks(self, storage: str) -> tuple[Any, Path]:
        """The manifest of a memory, and the file of its blocks."""
        manifest, _, _ = open_kv(self.memories[storage])
        return manifest, self.memories[storage] / "kv.safetensors"

    def load(self, storage: str, source: Any, *, check: bool) -> tuple[float, int]:
        """Seconds in which a whole memory arrives on the device, and its bytes."""
        manifest, ids, _ = open_kv(self.memories[storage])

        def arrive() -> None:
            layers = StreamedLayers(manifest, source, len(ids), self.device, verify=check)
            for position in range(len(manifest.layers)):
                layers.view(position)
            self.settle()
            layers.close()

        return self.seconds(arrive), sum(blocks.size for blocks in manifest.blocks.values())


def host_to_device(device: str) -> float:
    """Bytes a second from pinned memory, in copies of 1 GiB."""
    source = torch.empty(1 << 30, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(1 << 30, dtype=torch.uint8, device=device)
    taken = []
    for _ in range(6):
        torch.cuda.synchronize()
        began = time.perf_counter()
        target.copy_(source, non_blocking=True)
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return source.numel() / median(taken[1:])


def loading(bench: Bench, bandwidth: float) -> Iterator[dict[str, Any]]:
    """How fast whole memories arrive, as a share of the bandwidth."""
    for storage in STORAGES:
        manifest, path = bench.blocks(storage)
        sources = {"held": (HeldKv(manifest, path), False), "cached": (path, False), "checked": (path, True)}  # fmt: skip
        for name, (source, check) in sources.items():
            seconds, size = bench.load(storage, source, check=check)
            rate = size / seconds
            yield {
                "storage": storage,
                "from": name,
                "bytes": size,
                "seconds": seconds,
                "share": rate / bandwidth,
            }


def cell(bench: Bench, context: int, query: int, bandwidth: float | None) -> dict[str, Any]:
    """Every way to the first token behind one context and one question."""
    names = ["resident", "cached", "checked"] + ["held"] * (bandwidth is not None)
    ways = {pair: bench.way(*pair, context, query) for pair in product(STORAGES, names)}
    ways["none", "direct"] = bench.direct(context, query)
    found = bench.in_turns(ways)
    row: dict[str, Any] = {"context": context, "query": query, "direct": found["none", "direct"]}
    for storage in STORAGES:
        row[storage] = {name: found[storage, name] for name in names}
        if bandwidth is not None:
            row[storage] |= bound(bench, row[storage]["resident"], storage, context, bandwidth)
        if query == QUERIES[0] and bench.clock is not time.process_time:  # which counts no waiting
            row[storage]["disk"] = bench.from_disk(storage, context, query)
    if published := PUBLISHED.get((context, query)):
        row["published"] = {"direct": published[0], "with memory": published[1]}
    return row


def bound(
    bench: Bench, resident: float, storage: str, context: int, bandwidth: float
) -> dict[str, float]:
    """The bytes of a memory, and 1.25 times the seconds that they and the question take at least."""
    manifest, _ = bench.blocks(storage)
    size = sum(blocks.size for blocks in manifest.blocks.values()) * context // max(CONTEXTS)
    return {"bytes": size, "bound": 1.25 * (size / bandwidth + resident)}


@contextmanager
def a_bench(shape: str, given: argparse.Namespace) -> Iterator[Bench]:
    runs = given.runs or (7 if given.device == "cuda" else 3)
    clock = time.process_time if given.computing else time.perf_counter
    with tempfile.TemporaryDirectory(dir=given.scratch) as folder:
        yield Bench(shape, given.device, Path(folder), runs, clock)
    gc.collect()
    if given.device != "cpu":
        torch.cuda.empty_cache()


def machine(device: str) -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
    }


COLUMNS = ("shape", "context / question", "storage", "direct", "resident", "held", "cached", "checked", "disk", "cut, cached", "published", "of the bound")  # fmt: skip


def table(report: dict[str, Any]) -> str:
    """The figures in Markdown, columns that are empty left out: milliseconds, and the cut against direct."""
    rows = [
        line(shape, row, storage)
        for shape, found in report["shapes"].items()
        for row in found["cells"]
        for storage in STORAGES
    ]
    kept = [at for at in range(len(COLUMNS)) if any(row[at] for row in rows)]
    lines = [f"| {' | '.join(row[at] for at in kept)} |" for row in (COLUMNS, *rows)]
    lines.insert(1, "|" + "---|" * len(kept))
    return "\n".join(lines) + "".join(arrivals(report))


def line(shape: str, row: dict[str, Any], storage: str) -> list[str]:
    """One row of the table."""
    ways, published = row[storage], PUBLISHED.get((row["context"], row["query"]))
    times = [row["direct"], *map(ways.get, ("resident", "held", "cached", "checked", "disk"))]
    shown = ["" if each is None else f"{each * 1e3:.0f}" for each in times]
    cut = f"{100 * (1 - ways['cached'] / row['direct']):.1f} %"
    theirs = f"{100 * published[2]:.1f} %" if published else ""
    bound = f"{ways['cached'] / ways['bound']:.2f}" if "bound" in ways else ""
    return [shape, f"{row['context']} / {row['query']}", storage, *shown, cut, theirs, bound]


def arrivals(report: dict[str, Any]) -> Iterator[str]:
    """How fast whole memories arrived, where that was measured."""
    found = [(shape, each) for shape, rows in report["shapes"].items() for each in rows["loading"]]
    if not found:
        return
    yield "\n\nHow fast a whole memory arrives:\n\n"
    yield "| shape | storage | from | MiB | ms | of the bandwidth |\n|---|---|---|---|---|---|"
    for shape, each in found:
        size, taken = each["bytes"] // MIB, each["seconds"] * 1e3
        told = (shape, each["storage"], each["from"], str(size), f"{taken:.1f}", f"{100 * each['share']:.0f} %")  # fmt: skip
        yield f"\n| {' | '.join(told)} |"


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """Every figure, written to `given.out` as they come."""
    torch.set_num_threads(1 if given.computing else os.cpu_count() or 1)
    report: dict[str, Any] = {"machine": machine(given.device), "shapes": {}}
    bandwidth = host_to_device(given.device) if given.device == "cuda" else None
    report["host to device, bytes a second"] = bandwidth
    for shape in given.shape:
        with a_bench(shape, given) as bench:
            found: dict[str, Any] = {"loading": [], "cells": []}
            report["shapes"][shape] = found
            if bandwidth is not None:
                found["loading"] = list(loading(bench, bandwidth))
                print(json.dumps(found["loading"]), flush=True)
            for context, query in given.cell or CELLS:
                found["cells"].append(row := cell(bench, context, query, bandwidth))
                print(shape, json.dumps(row), flush=True)
                given.out.write_text(json.dumps(report, indent=1) + "\n")
    return report


def cell_of(text: str) -> tuple[int, int]:
    """Tokens of context and question of the cell `text`, as it stands in the table."""
    context, _, query = text.partition("/")
    if (found := (int(context), int(query))) not in CELLS:
        raise argparse.ArgumentTypeError(f"no cell of the table: {text}")
    return found


def main() -> None:
    """Measure, write the JSON, and put the table into the document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--shape", choices=SHAPES, action="append", default=[])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--runs", type=int)
    parser.add_argument("--cell", type=cell_of, action="append", metavar="CONTEXT/QUESTION")
    parser.add_argument("--computing", action="store_true", help="one thread, and what it computed")
    parser.add_argument("--document", type=Path, metavar="JSON", help="only write its table")
    given = parser.parse_args()
    name = "gpu" if given.device == "cuda" else "first_token_cpu"
    if (given.cell or given.computing) and not given.out:
        parser.error(
            "--cell and --computing want --out: the results hold the whole table by the clock"
        )
    if given.computing and given.device != "cpu":
        parser.error("--computing is for a CPU")
    given.out = given.out or RESULTS / f"{name}.json"
    if given.document:
        report = json.loads(given.document.read_text())
        name = given.document.stem
    else:
        report = measured(given)
    print(table(report))
    if report["shapes"] and (given.document or given.out.parent == RESULTS):
        quote(name, table(report))


if __name__ == "__main__":
    main()
