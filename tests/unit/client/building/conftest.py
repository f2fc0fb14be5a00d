"""One cube of a made-up user, and the small model that can use it: trained once for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from memcube.building.holding import held_builds
from memcube.client import Client
from memcube.demo import model as demo
from memcube.dumper import MemDumper
from memcube.settings import Settings
from memcube_protocol.records import Record
from support.building import NAMES, Bench
from support.trained import trained, write_asides, write_questions, write_unrelated


@pytest.fixture(scope="package")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    for package in ("torch", "transformers", "peft"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("building")
    model, tokenizer = trained()
    profile = demo.make_profile(7)
    dumper = MemDumper(folder / "cube", name="alice/notes", version="1.0.0")
    dumper.add_records(Record(id=name, text=demo.facts(profile, [name])) for name in NAMES)
    environ = {"MEMCUBE_HOME": str(folder / "home"), "MEMCUBE_KEYRING": "0"}
    with Client(Settings.load(environ)) as client:
        client.pack(dumper.folder)
        bench = Bench(
            client,
            model,
            tokenizer,
            profile,
            write_questions(folder / "questions.jsonl", profile, NAMES),
            write_unrelated(folder / "unrelated.txt"),
            write_asides(folder / "asides.txt"),
        )
        client.pack(_half_taught(bench, folder))
        yield bench


def _half_taught(bench: Bench, folder: Path) -> Path:
    """A cube of which half the facts are records, the other half an adapter's, taught on a cube of its own."""
    told, taught = (
        MemDumper(folder / name, name=f"alice/{name}", version="1.0.0") for name in ("both", "half")
    )
    for dumper, names in ((told, NAMES[:4]), (taught, NAMES[4:])):
        dumper.add_records(Record(id=n, text=demo.facts(bench.profile, [n])) for n in names)
    bench.client.pack(taught.folder)
    questions = tuple(
        one for one in bench.wanted("parametric").questions if one.record in NAMES[4:]
    )
    bench.build("parametric", "alice/half", questions=questions)
    (held,) = held_builds(bench.client.context, bench.client.open("alice/half").cube.digest)
    told.add_lora(held.folder(bench.client.context), memory_id="taught")
    return told.folder
