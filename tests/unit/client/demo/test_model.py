"""The demo's model knows a profile only through its memories: trained once, asked in every way."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from memcube.demo import model as demo
from memcube.memories.activation.dump import dump_kv
from memcube.memories.activation.generation import generate
from memcube.memories.activation.key import architecture_hash, tokenizer_hash
from memcube.memories.activation.mount import MountedKv, mount_kv
from memcube.memories.model_identity import checkpoint_identity, live_identity
from memcube.memories.parametric.adapters import Adapters
from memcube.memories.parametric.mount import mount_lora
from memcube_protocol.errors import IncompatibleError
from memcube_protocol.parametric import Level

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),
    pytest.mark.timeout(300),
]


class Trained(NamedTuple):
    """What the demo makes: a checkpoint, and a cube's two memories of one profile."""

    model: Any
    tokenizer: Any
    checkpoint: Path
    profile: dict[str, str]
    kv: Path
    lora: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("demo")
    steps: list[tuple[int, int]] = []
    model, tokenizer = demo.train_model(0, lambda *step: steps.append(step))
    assert steps[-1] == (250, 250)
    identity = live_identity(model)
    profile = demo.make_profile(1)
    lora = demo.teach_adapter(
        model,
        tokenizer,
        profile,
        demo.LORA_ATTRIBUTES,
        folder=folder,
        memory_id="lora",
        base_identity=identity,
    )
    assert live_identity(model) == identity
    with mount_lora(lora, model, base_identity=identity):
        kv = dump_kv(
            model,
            tokenizer,
            text=demo.facts(profile, demo.KV_ATTRIBUTES),
            folder=folder,
            memory_id="kv",
            base_identity=identity,
            cube_adapters=["lora"],
        )
    checkpoint = demo.save_model(model, tokenizer, folder / "checkpoint")
    return Trained(model, tokenizer, checkpoint, profile, kv, lora)


def recall(trained: Trained, model: Any, memory: MountedKv | None = None) -> demo.Recall:
    def answer(question: str) -> str:
        return generate(model, trained.tokenizer, question, memory=memory, max_new_tokens=1)

    return demo.recall(trained.profile, answer)


def test_both_memories_together_recall_what_none_of_them_knows_alone(trained) -> None:
    model, tokenizer = demo.load_model(trained.checkpoint)
    without = recall(trained, model)
    with mount_lora(trained.lora, model) as lora:
        assert lora.verdict.level is Level.EXACT
        adapter_alone = recall(trained, model)
        with mount_kv(trained.kv, model, tokenizer) as kv:
            both = recall(trained, model, kv)
    assert without.share <= 0.4
    assert both.share >= 0.9
    assert adapter_alone.parametric[0] > adapter_alone.activation[0]
    assert recall(trained, model) == without


def test_a_cache_alone_recalls_its_own_half(trained, tmp_path) -> None:
    text = demo.facts(trained.profile, demo.KV_ATTRIBUTES)
    kv = dump_kv(trained.model, trained.tokenizer, text=text, folder=tmp_path, memory_id="kv")
    mounted = mount_kv(kv, trained.model, trained.tokenizer)
    alone = recall(trained, trained.model, mounted)
    assert alone.activation == (4, 4)
    assert alone.parametric[0] <= 2


def test_experts_answer_each_for_its_own_when_questions_are_routed(trained, tmp_path) -> None:
    model, tokenizer = trained.model, trained.tokenizer
    folder = demo.teach_adapter(
        model,
        tokenizer,
        trained.profile,
        demo.KV_ATTRIBUTES,
        folder=tmp_path,
        memory_id="habits",
        base_identity=live_identity(model),
    )
    adapters = Adapters()
    for name, lora, subjects in (
        ("arts", trained.lora, demo.LORA_ATTRIBUTES),
        ("habits", folder, demo.KV_ATTRIBUTES),
    ):
        adapters.add(name, mount_lora(lora, model), f"The user's {', '.join(subjects)}")

    def routed(question: str) -> str:
        (choice,) = adapters.route(question)
        subjects = demo.LORA_ATTRIBUTES if choice.name == "arts" else demo.KV_ATTRIBUTES
        assert any(subject in question for subject in subjects)
        return generate(model, tokenizer, question, max_new_tokens=1)

    mixture = demo.recall(trained.profile, routed)
    adapters.switch("habits")
    alone = recall(trained, model)
    adapters.close()
    assert mixture.share >= 0.9
    assert alone.parametric[0] <= 2


def test_the_saved_model_is_the_trained_one_and_has_the_same_key(trained) -> None:
    model, tokenizer = demo.load_model(trained.checkpoint)
    assert live_identity(model) == checkpoint_identity(trained.checkpoint)
    assert live_identity(model) == live_identity(trained.model)
    assert tokenizer_hash(tokenizer) == tokenizer_hash(trained.tokenizer)
    assert architecture_hash(model.config) == architecture_hash(trained.model.config)


def test_another_model_of_the_same_shape_is_refused(trained) -> None:
    other = demo.make_model(7)
    with pytest.raises(IncompatibleError, match="base is "):
        mount_kv(trained.kv, other, trained.tokenizer)
    with pytest.raises(IncompatibleError, match="not known"):
        mount_lora(trained.lora, other)


def test_no_value_belongs_to_two_attributes_and_every_word_is_known() -> None:
    values = [value for row in demo.VALUES.values() for value in row]
    assert len(set(values)) == len(values)
    tokenizer = demo.make_tokenizer()
    text = f"{demo.facts(demo.make_profile(3), list(demo.VALUES))} {demo.question('city')}"
    assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]
    assert demo.make_model(0).config.vocab_size == len(tokenizer)


def test_profiles_follow_their_seed() -> None:
    assert demo.make_profile(1) == demo.make_profile(1)
    assert demo.make_profile(1) != demo.make_profile(2)
    assert set(demo.KV_ATTRIBUTES) | set(demo.LORA_ATTRIBUTES) == set(demo.VALUES)
