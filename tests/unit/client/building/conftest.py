"""One cube of a made-up user, and the small model that can use it: trained once for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from memcube.client import Client
from memcube.demo import model as demo
from memcube.dumper import MemDumper
from memcube.settings import Settings
from memcube_protocol.records import Record
from support.building import NAMES, Bench
from support.trained import trained, write_asides, write_questions, write_unrelated


def _half_taught(folder: Path, model: Any, tokenizer: Any, profile: dict[str, str]) -> Path:
    """A cube of which half the facts are records, the other half an adapter's."""
    dumper = MemDumper(folder, name="alice/both", version="1.0.0")
    told, taught = NAMES[:4], NAMES[4:]
    dumper.add_records(Record(id=name, text=demo.facts(profile, [name])) for name in told)
    demo.teach_adapter(model, tokenizer, profile, taught, folder=folder, memory_id="taught")
    return folder


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
        client.pack(_half_taught(folder / "both", model, tokenizer, profile))
        yield Bench(
            client,
            model,
            tokenizer,
            profile,
            write_questions(folder / "questions.jsonl", profile, NAMES),
            write_unrelated(folder / "unrelated.txt"),
            write_asides(folder / "asides.txt"),
        )
