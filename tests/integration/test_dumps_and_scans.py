"""From a dump to a mount: how it was made is stated, and what nobody compared is labelled opaque."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import Person, fresh
from memcube_protocol.digest import Digest
from memcube_protocol.errors import EXIT_INVALID
from memcube_signing.predicates.provenance import BUILD_TYPES, Provenance
from support.kv import with_text_of
from support.machine import Machine
from support.models import model_of, text_of, tokenizer_of

peft = pytest.importorskip("peft")
pytest.importorskip("qdrant_edge")
torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

TEXT = text_of(30)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with its tokenizer."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model_of().save_pretrained(folder)
    tokenizer_of().save_pretrained(folder)
    return folder


@pytest.fixture
def publisher(tmp_path: Path, ada: Person) -> Machine:
    return Machine(tmp_path / "publisher", ada.server.url, ada.token)


@pytest.fixture
def reader(tmp_path: Path, bob: Person) -> Machine:
    return Machine(tmp_path / "reader", bob.server.url, bob.token)


def saved_adapter(folder: Path) -> Path:
    adapted: Any = peft.get_peft_model(
        model_of(), peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    )
    adapted.save_pretrained(folder)
    return folder


def dumped(machine: Machine, folder: Path, checkpoint: Path, text: str = TEXT) -> Path:
    (folder.parent / "text.txt").write_text(text)
    words = ("dump", folder, "handbook", "--model", checkpoint)
    machine.ok(*words, "--text", folder.parent / "text.txt")
    return folder


def page(person: Person, name: str) -> str:
    reply = person.server.wire.get(f"/{name}", headers={"Accept": "text/html"})
    assert reply.status == 200, reply
    return reply.body.decode()


def provenance_of(machine: Machine, name: str) -> dict[str, Provenance]:
    with machine.client() as client:
        claims = client.statements(name, client.verify(name))
    found = [one.value for one in claims if one.key and isinstance(one.value, Provenance)]
    return {one.build_type: one for one in found}


def test_a_dump_is_stated_pushed_compared_and_mounted(tmp_path, checkpoint, publisher, reader, ada):
    name = f"{ada.name}/{fresh('built')}"
    folder = dumped(publisher, tmp_path / "cube", checkpoint)
    (tmp_path / "train.jsonl").write_text('{"x":1}\n')
    adapter = saved_adapter(tmp_path / "lora")
    publisher.ok(
        *("dump", folder, "style", "--adapter", adapter, "--model", checkpoint),
        *("--input", tmp_path / "train.jsonl"),
    )
    told = publisher.ok("push", folder, f"{name}:1.0.0", "--public")
    label = "activation/handbook/manifest.json was not compared with the text beside it"
    assert label in told

    built = provenance_of(reader, name)
    cache, lora = built[BUILD_TYPES["activation"]], built[BUILD_TYPES["parametric"]]
    inputs = {one.uri.partition(":")[0]: one for one in cache.dependencies}
    assert inputs["text"].digest == Digest.of(TEXT.encode())
    assert inputs["base"].uri.startswith("base:mip1-base:")
    assert cache.recipe["memories"]["handbook"]["tokens"]["count"] == 30
    assert cache.builder_version.keys() >= {"memcube", "torch", "transformers"}
    assert inputs["base"].uri in {one.uri for one in lora.dependencies}
    assert Digest.of(b'{"x":1}\n') in {one.digest for one in lora.dependencies}
    assert lora.recipe["memories"]["style"]["rank"] == 2
    shown = reader.ok("provenance", name)
    assert "built by https://memcube.org/dumper/v1 from base:mip1-base:" in shown

    assert "opaque: its text was not compared with it" in page(ada, name)
    mount = ("mount", name, "--model", checkpoint, "--filter", "kind=activation")
    assert label in reader.ok("pull", name)
    out = reader.ok(*mount)
    assert label in out
    assert "opaque: nobody compared it" in out

    compare = ("scan", name, "--recompute", "--model", checkpoint)
    assert "agrees with its text (difference 0," in publisher.ok(*compare, "--attest")
    assert "agrees with its text (difference 0," in reader.ok("pull", name)
    out = reader.ok(*mount)
    assert label not in out
    assert "its publisher computed it anew from its text" in out
    assert "yes: recomputed from its text" in page(ada, name)


def test_the_same_push_again_states_nothing_twice(tmp_path, checkpoint, publisher, ada):
    name = f"{ada.name}/{fresh('built')}"
    folder = dumped(publisher, tmp_path / "cube", checkpoint)
    publisher.ok("push", folder, f"{name}:1.0.0")
    before = own_statements(publisher, name)
    publisher.ok("push", folder, f"{name}:1.0.0")
    assert own_statements(publisher, name) == before
    kinds = sorted(one["type"] for one in before)
    assert kinds == ["model-signature", "provenance", "release", "scan"]


def own_statements(machine: Machine, name: str) -> list[dict[str, Any]]:
    """What the publisher states; the registry's countersignature comes when it comes."""
    said = machine.json("provenance", name)["statements"]
    return [one for one in said if one["type"] != "countersignature"]


def test_a_cache_that_says_something_else_than_its_text_is_found_by_any_reader(
    tmp_path, checkpoint, publisher, reader, ada
):
    name = f"{ada.name}/{fresh('forged')}"
    folder = dumped(publisher, tmp_path / "cube", checkpoint)
    (tmp_path / "other").mkdir()
    other = dumped(publisher, tmp_path / "other" / "cube", checkpoint, text_of(30, start=3))
    with_text_of(folder / "activation" / "handbook", other / "activation" / "handbook")
    publisher.ok("push", folder, f"{name}:1.0.0", "--public")
    compare = ("scan", name, "--recompute", "--model", checkpoint)
    assert "DIFFERS from its text" in reader.ok(*compare)
    done = reader.run(*compare, "--fail-on", "high", "--json")
    assert done.returncode == EXIT_INVALID
    assert "cache-differs-from-its-text" in done.stdout
    publisher.ok(*compare, "--attest")
    assert "warning: high opaque-memory: cache-differs-from-its-text" in reader.ok("pull", name)
    assert "no: differs from its text" in page(ada, name)


def test_a_cache_without_its_text_is_opaque_until_somebody_who_has_it_compares(
    tmp_path, checkpoint, publisher, ada
):
    name = f"{ada.name}/{fresh('opaque')}"
    (tmp_path / "text.txt").write_text(TEXT)
    words = ("--model", checkpoint, "--text", tmp_path / "text.txt")
    publisher.ok("dump", tmp_path / "cube", "handbook", *words, "--without-text")
    told = publisher.ok("push", tmp_path / "cube", f"{name}:1.0.0", "--public")
    assert "warning: medium opaque-memory: cache-without-source-text" in told
    assert "opaque: without its source text" in page(ada, name)
    compare = ("scan", name, "--recompute", "--model", checkpoint)
    assert "handbook stays opaque" in publisher.ok(*compare)
    given = ("--text", tmp_path / "text.txt")
    assert "agrees with its text (difference 0," in publisher.ok(*compare, *given)


def test_another_model_compares_nothing_and_says_why(tmp_path, checkpoint, publisher):
    folder = dumped(publisher, tmp_path / "cube", checkpoint)
    model_of(seed=9).save_pretrained(tmp_path / "other-model")
    tokenizer_of().save_pretrained(tmp_path / "other-model")
    told = publisher.ok("scan", folder, "--recompute", "--model", tmp_path / "other-model")
    assert "handbook stays opaque" in told
    assert "cache-not-recomputed" in told
