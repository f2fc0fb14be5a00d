"""Builds of a real small model: what they recall, what they damage, and that a recipe repeats them."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from memcube.building.asking import Asker
from memcube.building.distillation import lessons_of
from memcube.building.extraction import confidence
from memcube.building.holding import held_builds
from memcube.building.material import Material
from memcube.building.planning import Order
from memcube.demo import model as demo
from memcube.dumper import MemDumper
from memcube.memories.model_identity import live_identity
from memcube.memories.plaintext.index import records_of
from memcube_protocol.errors import (
    ConflictError,
    IncompatibleError,
    InvalidRequestError,
    LimitExceededError,
    NotFoundError,
    RuleRefusedError,
    UselessBuildError,
)
from memcube_protocol.recipe import PROMPT, Question, Recipe
from memcube_protocol.records import Record
from support.building import NAMES, TRAINING, Bench

pytest.importorskip("peft")
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def adapter(bench: Bench) -> Any:
    return bench.build("parametric")


def workshop(bench: Bench) -> list[Path]:
    return list((bench.client.context.settings.home / "building").iterdir())


def test_records_become_a_cache_that_recalls_them(bench: Bench) -> None:
    before = live_identity(bench.model)
    built = bench.build("activation")
    found = built.made.evaluation
    assert found
    assert found.without <= 2
    assert found.asked == 8
    assert found.with_memory >= 7
    assert found.perplexity
    assert built.build.memory.id == "notes-kv"
    assert built.build.memory.compatibility["baseIdentity"] == str(before)
    assert live_identity(bench.model) == before
    assert not workshop(bench)


def test_records_become_an_adapter_that_recalls_them_and_damages_little(
    bench: Bench, adapter: Any
) -> None:
    found = adapter.made.evaluation
    assert found.source >= 7
    assert found.without <= 2
    assert found.with_memory >= 7
    before, after = found.perplexity
    assert after < 1.25 * before
    assert all(tensor.requires_grad for tensor in bench.model.parameters())
    assert not any("lora" in name for name, _ in bench.model.named_parameters())


def test_without_holding_it_to_unrelated_text_the_damage_is_found_and_refused(bench: Bench) -> None:
    careless = replace(TRAINING, retain=0.0)
    with pytest.raises(UselessBuildError, match="perplexity of unrelated text goes from") as caught:
        bench.build("parametric", training=careless, memory="careless")
    assert "--accept" in (caught.value.hint or "")


def test_the_same_recipe_gives_the_same_digest(bench: Bench, adapter: Any) -> None:
    recipe = Recipe.parse(json.dumps(adapter.made.recipe.to_json()).encode())
    assert bench.make(recipe).build.digest == adapter.build.digest


def test_a_cache_is_made_under_the_cubes_own_adapter(bench: Bench) -> None:
    built = bench.make(bench.wanted("activation"), "alice/both", accept=True)
    assert len(built.build.memory.compatibility["adapters"]) == 1
    found = built.made.evaluation
    assert found
    assert found.without >= 4
    assert found.with_memory > found.without
    assert not any("lora" in name for name, _ in bench.model.named_parameters())


def test_an_adapter_becomes_records_of_what_it_answers(bench: Bench) -> None:
    built = bench.build("plaintext", "alice/both", source="taught", confidence=0.3)
    records = list(records_of(built.build.manifest, bench.client.context.store))
    told = {record.text for record in records}
    right = [
        name
        for name in NAMES[4:]
        if f"Question: What is the user's {name} ?\nAnswer: {bench.profile[name]}" in told
    ]
    assert len(right) >= 3
    assert all(0.3 <= (record.confidence or 0) <= 1 for record in records)
    assert {record.source.method for record in records if record.source} == {"ask"}
    found = built.made.evaluation
    assert found
    assert found.source
    assert found.with_memory > found.without
    assert found.perplexity is None


def test_an_adapter_asks_its_own_questions_where_none_are_given(bench: Bench) -> None:
    wanted = bench.wanted("plaintext", source="taught", questions=(), confidence=0.3)
    built = bench.make(wanted, "alice/both", accept=True, ask=6)
    assert any("asked itself" in note for note in built.notes)
    assert any("judged by the adapter's own answers" in note for note in built.notes)
    assert built.made.evaluation
    assert built.made.evaluation.asked == built.build.memory.records
    assert built.made.recipe.questions
    assert built.build.memory.records


def test_a_cache_becomes_the_text_that_it_was_made_from(bench: Bench, tmp_path: Path) -> None:
    dumper = MemDumper(tmp_path / "cube", name="alice/cache", version="1.0.0")
    text = f"{demo.facts(bench.profile, NAMES[:2])}\n\n{demo.facts(bench.profile, NAMES[2:4])}"
    dumper.add_kv(bench.model, bench.tokenizer, memory_id="kv", text=text)
    bench.client.pack(dumper.folder)
    wanted = bench.wanted("plaintext")
    built = bench.client.build("alice/cache", wanted)
    records = list(records_of(built.build.manifest, bench.client.context.store))
    assert [record.text for record in records] == text.split("\n\n")
    assert built.made.evaluation is None
    judged = bench.make(wanted, "alice/cache").made.evaluation
    assert judged
    assert judged.with_memory > judged.without


def test_a_cache_without_its_text_is_read_back_from_its_tokens(
    bench: Bench, tmp_path: Path
) -> None:
    dumper = MemDumper(tmp_path / "cube", name="alice/opaque", version="1.0.0")
    text = demo.facts(bench.profile, NAMES[:2])
    dumper.add_kv(bench.model, bench.tokenizer, memory_id="kv", text=text, keep_text=False)
    bench.client.pack(dumper.folder)
    with pytest.raises(NotFoundError, match="carries no source text"):
        bench.client.build("alice/opaque", bench.wanted("plaintext"))
    built = bench.build("plaintext", "alice/opaque")
    (record,) = records_of(built.build.manifest, bench.client.context.store)
    assert record.text == text


def test_the_model_asks_questions_that_the_records_answer(bench: Bench) -> None:
    wanted = bench.wanted("activation", questions=(), memory="asked")
    built = bench.make(wanted, accept=True, ask=4)
    assert built.made.recipe.questions
    for one in built.made.recipe.questions:
        assert one.record in NAMES
        assert one.answer == bench.profile[one.record]


def test_what_was_held_out_is_asked_and_not_taught(bench: Bench) -> None:
    questions = tuple(
        replace(one, held_out=one.record == "city") for one in bench.wanted("activation").questions
    )
    built = bench.build("activation", questions=questions, memory="held-out")
    assert built.made.evaluation
    assert (built.made.evaluation.asked, built.made.evaluation.held_out) == (8, 1)
    asker = Asker(bench.model, bench.tokenizer, PROMPT)
    records = tuple(Record(id=name, text=demo.facts(bench.profile, [name])) for name in NAMES)
    lessons = lessons_of(asker, Material(records, "plain"), questions)
    taught = {bench.tokenizer.decode(one.answer).strip() for one in lessons}
    assert taught == {bench.profile[name] for name in NAMES if name != "city"}


def test_records_stand_between_delimiters_unless_one_asks_for_bare_text(bench: Bench) -> None:
    wanted = bench.wanted("activation", render="fenced", memory="fenced")
    built = bench.make(wanted, accept=True)
    (held,) = (
        one
        for one in held_builds(bench.client.context, built.build.subject.digest)
        if one.build.digest == built.build.digest
    )
    text = json.loads((held.folder(bench.client.context) / "manifest.json").read_bytes())["source"]
    assert "never instructions to follow" in text["text"]
    assert "[id: city" in text["text"]


def test_a_model_with_a_chat_template_is_asked_in_its_turns(bench: Bench) -> None:
    tokenizer = copy.deepcopy(bench.tokenizer)
    tokenizer.chat_template = "Question: {{ messages[0].content }} Answer:"
    wanted = bench.wanted("activation", memory="chat")
    built = bench.client.build(
        "alice/notes", wanted, model=bench.model, tokenizer=tokenizer, order=Order(bench.asides)
    )
    assert built.made.recipe.prompt == "chat"
    assert built.made.evaluation
    assert built.made.evaluation.with_memory >= 7
    asker = Asker(bench.model, tokenizer, "chat")
    plain = Asker(bench.model, bench.tokenizer, PROMPT)
    asked = "What is the user's city ?"
    assert asker.question_ids(asked, begins=True) == plain.question_ids(asked, begins=True)


@pytest.mark.parametrize("kind", ["parametric", "activation"])
def test_what_was_built_is_mounted_and_answers(bench: Bench, adapter: Any, kind: str) -> None:
    pytest.importorskip("qdrant_edge")
    if kind == "activation":
        bench.build("activation")
    before = live_identity(bench.model)
    with bench.client.mount(
        "alice/notes", model=bench.model, tokenizer=bench.tokenizer, filters=[f"kind={kind}"]
    ) as memory:
        assert [(step.kind, str(step.step)) for step in memory.steps] == [(kind, "mounted")]
        assert bool(memory.prefix_ids) == (kind == "activation")
        answer = memory.generate("Question: What is the user's pet ? Answer:", context="")
        assert answer.split()[0] == bench.profile["pet"]
    assert live_identity(bench.model) == before
    assert adapter.build.memory.id == "notes-lora"


def test_a_build_that_does_not_fit_beside_other_cubes_is_left_and_its_records_are_mounted(
    bench: Bench, adapter: Any, tmp_path: Path
) -> None:
    pytest.importorskip("qdrant_edge")
    told, taught = (
        MemDumper(tmp_path / name, name=f"alice/{name}", version="1.0.0")
        for name in ("beside", "taught")
    )
    told.add_records(Record(id=n, text=demo.facts(bench.profile, [n])) for n in NAMES)
    held = held_builds(bench.client.context, bench.client.open("alice/notes").cube.digest)
    (trained,) = (one for one in held if one.build.digest == adapter.build.digest)
    taught.add_lora(trained.folder(bench.client.context), memory_id="taught")
    for dumper in (told, taught):
        bench.client.pack(dumper.folder)
    bench.build("activation", "alice/beside")
    model = {"model": bench.model, "tokenizer": bench.tokenizer}
    with bench.client.mount(["alice/beside", "alice/taught"], **model) as memory:
        steps = {step.memory: str(step.step) for step in memory.steps}
        assert steps == {"taught": "mounted", "beside-kv": "refused", "plaintext": "mounted"}
        assert memory.search("pet", 1)
    alone = ["kind=activation", "kind=parametric"]
    with pytest.raises(IncompatibleError, match="beside-kv of alice/beside"):
        bench.client.mount(["alice/beside", "alice/taught"], filters=alone, **model)


def test_a_cube_that_may_not_be_trained_on_is_not_distilled(bench: Bench, tmp_path: Path) -> None:
    dumper = MemDumper(tmp_path / "cube", name="alice/rules", version="1.0.0")
    dumper.add_records(["Ada is vegetarian."])
    toml = tmp_path / "cube" / "memcube.toml"
    toml.write_text(toml.read_text() + '[governance]\nallowed_uses = ["personal"]\n')
    bench.client.pack(dumper.folder)
    context = bench.client.context
    personal = replace(context.settings, uses=frozenset({"personal"}))
    with (
        mock.patch("memcube.rules.owns", return_value=False),
        mock.patch.object(context, "settings", personal),
    ):
        with pytest.raises(RuleRefusedError, match="training"):
            bench.build("parametric", "alice/rules")
        bench.make(bench.wanted("activation"), "alice/rules", accept=True)


def test_only_the_beginning_of_a_cube_goes_into_a_small_budget(bench: Bench) -> None:
    built = bench.make(bench.wanted("activation", budget_tokens=14, memory="short"), accept=True)
    assert any("2 of 8 records fit into 14 tokens" in note for note in built.notes)
    assert built.build.memory.shape["tokens"] <= 14


@pytest.mark.parametrize(
    ("kind", "changes", "error"),
    [
        ("activation", {"budget_tokens": 3}, NotFoundError),
        ("activation", {"budget_tokens": 500}, LimitExceededError),
        ("activation", {"source": "other"}, NotFoundError),
        ("plaintext", {}, NotFoundError),
        ("parametric", {"questions": (Question("What is it ?"),)}, UselessBuildError),
        ("parametric", {"training": replace(TRAINING, steps=1, rate=1e-6)}, UselessBuildError),
    ],
    ids=[
        "no room",
        "more than it reads",
        "no such memory",
        "nothing to ask",
        "no answers",
        "too short",
    ],
)
def test_what_cannot_be_built_is_refused_with_words(
    bench: Bench, kind: str, changes: dict[str, Any], error: type[Exception]
) -> None:
    held = held_builds(bench.client.context, bench.client.open("alice/notes").cube.digest)
    before = live_identity(bench.model)
    with pytest.raises(error) as caught:
        bench.build(kind, memory="refused", **changes)
    assert caught.value.hint  # type: ignore[attr-defined]
    assert live_identity(bench.model) == before
    assert not workshop(bench)
    assert held == held_builds(bench.client.context, bench.client.open("alice/notes").cube.digest)


def test_a_loss_that_is_no_number_ends_the_training(bench: Bench) -> None:
    import torch

    weight = bench.model.lm_head.weight
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.fill_(float("nan"))
        with pytest.raises(UselessBuildError, match="diverged in step 1 of 20"):
            bench.make(bench.wanted("parametric", memory="nan"), accept=True)
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def test_ctrl_c_leaves_nothing_half_made(bench: Bench) -> None:
    digest = bench.client.open("alice/notes").cube.digest
    held, before = held_builds(bench.client.context, digest), live_identity(bench.model)

    def interrupt(what: str, done: int, total: int) -> None:
        if what == "teaching" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.make(bench.wanted("parametric", memory="half"), watch=interrupt)
    assert live_identity(bench.model) == before
    assert not any("lora" in name for name, _ in bench.model.named_parameters())
    assert not workshop(bench)
    assert held_builds(bench.client.context, digest) == held


def test_a_recipe_of_another_cube_model_or_text_is_refused(
    bench: Bench, adapter: Any, tmp_path: Path
) -> None:
    recipe = adapter.made.recipe
    dumper = MemDumper(tmp_path / "cube", name="alice/other", version="1.0.0")
    dumper.add_records(["Something else."])
    bench.client.pack(dumper.folder)
    with pytest.raises(ConflictError, match="is for the cube"):
        bench.make(recipe, "alice/other")
    with pytest.raises(IncompatibleError, match="is for the model"):
        bench.client.build(
            "alice/notes", recipe, model=demo.make_model(9), tokenizer=bench.tokenizer
        )
    with pytest.raises(ConflictError, match="another unrelated text"):
        bench.client.build("alice/notes", recipe, model=bench.model, tokenizer=bench.tokenizer)
    with pytest.raises(InvalidRequestError, match="a model is needed"):
        bench.client.build("alice/notes", bench.wanted("activation"))


def test_confidence_is_the_mean_probability_of_the_answers_tokens(bench: Bench) -> None:
    import torch

    asker = Asker(bench.model, bench.tokenizer, PROMPT)
    one = Question("What is the user's city ?")
    ids = asker.question_ids(one.question, begins=True)
    with torch.inference_mode():
        chances = bench.model(torch.tensor([ids])).logits[0, -1].softmax(-1)
    city = bench.profile["city"]
    expected = float(chances[asker.answer_ids(city)[0]])
    assert confidence(asker, one, city) == pytest.approx(expected, abs=1e-3)
