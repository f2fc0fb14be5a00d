"""MemLoader and MemDumper on a small real model: what fits is mounted, what does not is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from memcube.cli.options import filters_of
from memcube.client import Client
from memcube.dumper import MemDumper, record_of
from memcube.mounting import Step
from memcube.settings import Settings
from memcube.speeds import Rate, Speeds
from memcube_protocol.errors import (
    IncompatibleError,
    InvalidConfigError,
    InvalidRecordError,
    InvalidRequestError,
    NotFoundError,
    UnsupportedError,
)
from memcube_protocol.records import Record
from support.models import model_of, text_of, tokenizer_of

pytest.importorskip("qdrant_edge")
# peft asks transformers for a property under its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
QUESTION = "w9 w10"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    environ = {"MEMCUBE_HOME": str(tmp_path / "home"), "MEMCUBE_KEYRING": "0"}
    with Client(Settings.load(environ)) as client:
        yield client


@pytest.fixture
def dumper(tmp_path: Path) -> MemDumper:
    dumper = MemDumper(tmp_path / "cube", name="alice/notes", version="1.0.0")
    dumper.add_records(["The ferry to Hiiumaa leaves at nine.", "Backups are tested on Mondays."])
    return dumper


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_of()


def with_adapter(base: Any) -> Any:
    """`base` with a LoRA whose weights are not zero."""
    peft = pytest.importorskip("peft")
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return peft.get_peft_model(base, config)


def logits(model: Any, ids: list[int], cache: Any = None) -> Any:
    torch = pytest.importorskip("torch")
    with torch.inference_mode():
        return model(torch.tensor([ids]), past_key_values=cache).logits[0, -1]


def test_records_alone_need_no_model(client: Client, dumper: MemDumper) -> None:
    client.pack(dumper.folder)
    with client.mount("alice/notes") as memory:
        assert "Hiiumaa" in memory.context("When does the ferry leave?")
        assert memory.search("backups")[0].record.text.startswith("Backups")
        assert [step.step for step in memory.steps] == [Step.MOUNTED]
        with pytest.raises(NotFoundError):
            memory.generate("When?")


def test_a_cache_that_fits_is_mounted_and_answers_as_the_text_would(
    client: Client, dumper: MemDumper, model: Any, tokenizer: Any
) -> None:
    torch = pytest.importorskip("torch")
    text = text_of(20)
    dumper.add_kv(model, tokenizer, memory_id="handbook", text=text)
    client.pack(dumper.folder)
    filters = ["kind=activation"]
    with client.mount("alice/notes", model=model, tokenizer=tokenizer, filters=filters) as memory:
        assert len(memory.prefix_ids) == 20
        assert "opaque: nobody compared it with the text" in memory.steps[0].why
        assert memory.cubes[0].scan is None
        question = tokenizer(QUESTION)["input_ids"]
        expected = logits(model, [*memory.prefix_ids, *question])
        cache = memory.new_cache()
        actual = logits(model, question, cache)
        assert torch.argmax(actual) == torch.argmax(expected)
        assert torch.allclose(actual, expected, atol=1e-4)
        first = memory.generate(QUESTION, max_new_tokens=3)
        assert memory.generate(QUESTION, max_new_tokens=3) == first
        several: Any = [QUESTION, QUESTION]
        for given in ({}, {"context": ""}, {"context": "w1"}):
            with pytest.raises(InvalidRequestError, match="a question is one text") as caught:
                memory.generate(several, **given)
            assert "for one in questions" in str(caught.value.hint)
        with pytest.raises(InvalidRequestError, match="a context is one text"):
            memory.generate(QUESTION, context=several)


def test_adapter_first_then_the_cache_that_was_made_under_it(
    client: Client, dumper: MemDumper, tokenizer: Any
) -> None:
    adapted = with_adapter(model_of())
    dumper.add_lora(adapted, memory_id="style")
    dumper.add_kv(adapted, tokenizer, memory_id="handbook", text=text_of(12))
    client.pack(dumper.folder)
    plain = model_of()
    before = logits(plain, [1, 2, 3])
    with client.mount("alice/notes", model=plain, tokenizer=tokenizer) as memory:
        assert [(step.memory, step.step) for step in memory.steps] == [
            ("style", Step.MOUNTED),
            ("handbook", Step.MOUNTED),
            ("plaintext", Step.MOUNTED),
        ]
        assert "exact" in memory.steps[0].why
        assert not (logits(plain, [1, 2, 3]) == before).all()
    assert (logits(plain, [1, 2, 3]) == before).all()


def test_memories_of_another_model_are_refused_and_nothing_stays_mounted(
    client: Client, dumper: MemDumper, model: Any, tokenizer: Any
) -> None:
    dumper.add_kv(model, tokenizer, memory_id="handbook", text=text_of(12))
    client.pack(dumper.folder)
    other = model_of(seed=5)
    with pytest.raises(
        IncompatibleError, match=r"^handbook of alice/notes:1\.0\.0: .*base is "
    ) as caught:
        client.mount("alice/notes", model=other, tokenizer=tokenizer)
    assert caught.value.hint
    assert client.plan("alice/notes", model=other, tokenizer=tokenizer).refused_kinds == (
        "activation",
    )
    with client.mount(
        "alice/notes", model=other, tokenizer=tokenizer, filters=["kind=plaintext"]
    ) as memory:
        assert [step.kind for step in memory.steps] == ["plaintext"]


def test_a_model_without_its_tokenizer_is_refused_with_words(
    client: Client, dumper: MemDumper, model: Any, tokenizer: Any
) -> None:
    dumper.add_kv(model, tokenizer, memory_id="handbook", text=text_of(12))
    client.pack(dumper.folder)
    with pytest.raises(UnsupportedError, match="without its tokenizer") as caught:
        client.mount("alice/notes", model=model)
    assert caught.value.hint == "give tokenizer= beside model="


def test_of_two_models_caches_the_one_that_fits_is_taken(
    client: Client, dumper: MemDumper, model: Any, tokenizer: Any
) -> None:
    other = model_of(seed=5)
    dumper.add_kv(other, tokenizer, memory_id="a-other", text=text_of(12))
    dumper.add_kv(model, tokenizer, memory_id="b-own", text=text_of(8))
    dumper.add_kv(model, tokenizer, memory_id="c-own", text=text_of(9))
    client.pack(dumper.folder)
    with client.mount("alice/notes", model=model, tokenizer=tokenizer) as memory:
        steps = {step.memory: step.step for step in memory.steps}
        assert len(memory.prefix_ids) == 8
        assert memory.read("c-own.1").record.text == text_of(9)
    assert steps["a-other"] is Step.REFUSED
    assert steps["b-own"] is Step.MOUNTED
    assert steps["c-own"] is Step.TEXT


def test_records_and_passages_of_a_text_come_in_order_of_id(
    client: Client, dumper: MemDumper, model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever pages through them goes on behind the last id, and would miss what stands out of order."""
    monkeypatch.setattr("memcube.mounting.passages.PASSAGE_CHARS", 12)
    dumper.add_kv(model, tokenizer, memory_id="0-own", text=text_of(9))
    dumper.add_kv(model, tokenizer, memory_id="1-text", text=text_of(40))
    client.pack(dumper.folder)
    with client.mount("alice/notes", model=model, tokenizer=tokenizer) as memory:
        ids = [hit.record.id for hit in memory.records()]
    assert len(ids) > 12
    assert ids[0].startswith("1-text")
    assert ids == sorted(ids)


def test_a_cache_is_rebuilt_from_its_text_where_that_is_asked_for(
    client: Client, dumper: MemDumper, model: Any, tokenizer: Any
) -> None:
    dumper.add_kv(model, tokenizer, memory_id="handbook", text=text_of(12))
    client.pack(dumper.folder)
    other = model_of(seed=5)
    for _ in range(2):
        with client.mount("alice/notes", model=other, tokenizer=tokenizer, rebuild=True) as memory:
            assert len(memory.prefix_ids) == 12
            assert Step.REBUILT in [step.step for step in memory.steps]


@pytest.mark.parametrize("slow_disk", [True, False])
def test_a_text_is_read_anew_where_that_is_faster_than_the_disk(
    client: Client, dumper: MemDumper, model: Any, tokenizer: Any, slow_disk: bool
) -> None:
    torch = pytest.importorskip("torch")
    text = text_of(20)
    dumper.add_kv(model, tokenizer, memory_id="handbook", text=text)
    client.pack(dumper.folder)
    now = datetime.now(UTC)
    rate = Rate.at(1.0 if slow_disk else 1e12, now)
    client.context.speeds.keep(Speeds(rate, rate))
    filters = ["kind=activation"]
    with client.mount("alice/notes", model=model, tokenizer=tokenizer, filters=filters) as memory:
        wanted = Step.REBUILT if slow_disk else Step.MOUNTED
        assert [step.step for step in memory.steps] == [wanted]
        assert memory.prefix_text == text
        assert list(memory.prefix_ids) == tokenizer(text)["input_ids"]
        question = tokenizer(QUESTION)["input_ids"]
        actual = logits(model, question, memory.new_cache())
        assert torch.allclose(actual, logits(model, [*memory.prefix_ids, *question]), atol=1e-4)
        told = memory.steps[0].why
    assert ("kept in memory" in told and "anew takes" in told) is slow_disk
    assert not (client.context.settings.home / "builds").exists()


def test_two_caches_are_composed_only_if_that_is_wished_and_say_so(
    client: Client, dumper: MemDumper, model: Any, tokenizer: Any
) -> None:
    dumper.add_kv(model, tokenizer, memory_id="a", text=text_of(8))
    dumper.add_kv(model, tokenizer, memory_id="b", text=text_of(9, start=5))
    client.pack(dumper.folder)
    filters = ["kind=activation"]
    asked: Any = {"model": model, "tokenizer": tokenizer, "filters": filters}
    with client.mount("alice/notes", **asked) as memory:
        assert len(memory.prefix_ids) == 8
    with client.mount("alice/notes", **asked, compose=True) as memory:
        assert len(memory.prefix_ids) == 17
        assert memory.prefix_text == text_of(8) + text_of(9, start=5)
        assert [step.step for step in memory.steps] == [Step.MOUNTED, Step.MOUNTED]
        assert "exact" in memory.steps[0].why
        assert "approximate" in memory.steps[1].why
        assert memory.generate(QUESTION, context="", max_new_tokens=2)


def test_an_adapter_of_another_base_is_refused(
    client: Client, dumper: MemDumper, tokenizer: Any
) -> None:
    dumper.add_lora(with_adapter(model_of()), memory_id="style")
    client.pack(dumper.folder)
    with pytest.raises(IncompatibleError):
        client.mount("alice/notes", model=model_of(seed=5), tokenizer=tokenizer)


def test_a_peft_folder_packs_as_it_is_and_peft_loads_its_path(
    client: Client, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    adapted = with_adapter(model_of())
    adapted.save_pretrained(tmp_path / "my-adapter")
    packed = client.pack(tmp_path / "my-adapter", name="alice/adapter")
    assert packed.cube.config.memories[0].kind == "parametric"
    folder = client.path("alice/adapter", "my-adapter")
    loaded = peft.PeftModel.from_pretrained(model_of(), folder)
    assert (logits(loaded, [1, 2, 3]) == logits(adapted, [1, 2, 3])).all()


def test_the_dumper_replaces_records_of_the_same_id(dumper: MemDumper) -> None:
    dumper.add_records([Record(id="a", text="one"), {"id": "b", "text": "two"}])
    dumper.add_records([{"id": "a", "text": "three"}])
    lines = (dumper.folder / "plaintext" / "records.jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert sum('"three"' in line for line in lines) == 1


def test_the_dumper_adds_all_records_or_none(dumper: MemDumper) -> None:
    before = (dumper.folder / "plaintext" / "records.jsonl").read_bytes()
    with pytest.raises(InvalidRecordError):
        dumper.add_records([{"id": "x", "text": "fine"}, {"id": "y"}])
    assert (dumper.folder / "plaintext" / "records.jsonl").read_bytes() == before


def test_the_dumper_leaves_an_existing_draft_alone(dumper: MemDumper) -> None:
    MemDumper(dumper.folder, name="somebody/else")
    assert 'name = "alice/notes"' in (dumper.folder / "memcube.toml").read_text()
    with pytest.raises(InvalidConfigError):
        MemDumper(dumper.folder / "new", name="Not A Name")


def test_a_text_has_an_id_made_of_its_words() -> None:
    assert record_of("a text").id == record_of("a text").id
    assert record_of("a text").id != record_of("another text").id


def test_only_what_fits_a_checkpoint_is_chosen(
    client: Client, dumper: MemDumper, tokenizer: Any, tmp_path: Path
) -> None:
    own, other = model_of(seed=3), model_of(seed=5)
    own.save_pretrained(tmp_path / "checkpoint")
    dumper.add_kv(own, tokenizer, memory_id="own", text=text_of(8))
    dumper.add_kv(other, tokenizer, memory_id="other", text=text_of(8))
    client.pack(dumper.folder)
    filters = filters_of((), str(tmp_path / "checkpoint"))
    chosen = {file.memory for file in client.open("alice/notes", filters=filters).files}
    assert chosen == {"plaintext", "own"}


def test_the_cache_that_answers_were_given_with_stays_the_prefix(
    client: Client, dumper: MemDumper, model: Any, tokenizer: Any
) -> None:
    for memory_id, seed in (("alpha", 40), ("beta", 50)):
        dumper.add_kv(model, tokenizer, memory_id=memory_id, text=text_of(seed))
    client.pack(dumper.folder)
    wanted = {"model": model, "tokenizer": tokenizer}
    with client.mount("alice/notes", filters=["memory=beta"], **wanted) as memory:
        memory.generate(QUESTION, context="", max_new_tokens=1)
    with client.mount("alice/notes", **wanted) as memory:
        steps = {step.memory: step.step for step in memory.steps}
        assert (steps["beta"], steps["alpha"]) == (Step.MOUNTED, Step.TEXT)
    choices = {
        choice.offer.memory: choice for choice in client.plan("alice/notes", **wanted).choices
    }
    assert choices["beta"].why.endswith("used for 1 answer here")
