"""Several adapters on one model: switched, weighted, combined as peft does, chosen for a question."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from memcube.memories.activation.dump import dump_kv
from memcube.memories.activation.key import active_adapters
from memcube.memories.activation.mount import mount_kv
from memcube.memories.parametric.adapters import Adapters
from memcube.memories.parametric.dump import dump_lora
from memcube.memories.parametric.mount import mount_lora
from memcube_protocol.errors import (
    ConflictError,
    IncompatibleError,
    InvalidError,
    LimitExceededError,
    NotFoundError,
    UnsupportedError,
)
from support.adapters import adapted, footprint, logits
from support.models import model_of, text_of, tokenizer_of

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

KINDS: dict[str, dict[str, Any]] = {
    "law": {"r": 4},
    "heart": {"r": 4, "lora_alpha": 3},
    "style": {"r": 2, "target_modules": ["q_proj", "v_proj", "lm_head"]},
    "stable": {"r": 4, "use_rslora": True},
    "dora": {"r": 4, "use_dora": True},
    "words": {"r": 4, "target_modules": ["embed_tokens", "q_proj"]},
    "head": {"r": 4, "modules_to_save": ["lm_head"]},
}
ABOUT = {"law": "contracts and leases", "heart": "arrhythmia and drugs", "style": "plain words"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    cube = tmp_path_factory.mktemp("cube")
    return {
        name: dump_lora(adapted(seed=number, **options), cube, memory_id=name)
        for number, (name, options) in enumerate(KINDS.items(), 1)
    }


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of()


@pytest.fixture
def adapters(folders, model) -> Iterator[Adapters]:
    before = footprint(model)
    adapters = Adapters()
    for name in ("law", "heart", "style"):
        adapters.add(name, mount_lora(folders[name], model), ABOUT[name])
    yield adapters
    adapters.close()
    assert footprint(model) == before


def of_peft(folders: dict[str, Path], *names: str) -> Any:
    """A PeftModel with these adapters loaded, the first active."""
    made = peft.PeftModel.from_pretrained(
        model_of(), folders[names[0]], names[0], autocast_adapter_dtype=False
    )
    for name in names[1:]:
        made.load_adapter(folders[name], name, autocast_adapter_dtype=False)
    return made.eval()


def gates(adapters: Adapters) -> dict[str, float]:
    return {state.name: state.gate for state in adapters.list()}


def test_the_list_tells_what_is_mounted_and_what_is_in_use(adapters) -> None:
    law, _, style = adapters.list()
    assert (law.name, law.rank, law.modules, law.level) == ("law", 4, 21, "exact")
    assert (style.description, style.rank, style.modules) == ("plain words", 2, 7)
    assert gates(adapters) == {"law": 1, "heart": 1, "style": 1}
    adapters.switch("heart")
    assert gates(adapters) == {"law": 0, "heart": 1, "style": 0}
    assert len(adapters) == 3


def test_a_switch_leaves_the_chosen_ones_alone_in_use_as_peft_would(
    adapters, model, folders
) -> None:
    made = of_peft(folders, "law", "heart", "style")
    for chosen in (["law"], ["heart"], ["law", "style"], ["law", "heart", "style"]):
        adapters.switch(chosen if len(chosen) > 1 else chosen[0])
        made.base_model.set_adapter(chosen)
        assert torch.equal(logits(model), logits(made))
        assert active_adapters(model) == active_adapters(made)
    adapters.switch([])
    assert torch.equal(logits(model), logits(model_of()))
    assert active_adapters(model) == ()


def test_adapters_with_modules_of_their_own_are_switched_as_well(model, folders) -> None:
    adapters = Adapters()
    for name in ("law", "head", "dora", "words"):
        adapters.add(name, mount_lora(folders[name], model))
    for chosen in ("head", "law", "dora", "words", "head"):
        adapters.switch(chosen)
        assert torch.equal(logits(model), logits(of_peft(folders, chosen))), chosen
    made = of_peft(folders, "law", "head")
    made.base_model.set_adapter(["law", "head"])
    adapters.switch(["head", "law"])
    assert torch.equal(logits(model), logits(made))
    with pytest.raises(UnsupportedError):
        adapters.switch({"head": 0.5})
    adapters.switch([])
    assert torch.equal(logits(model), logits(model_of()))
    adapters.close()


def test_what_peft_cannot_put_beside_another_is_refused(adapters, model, folders) -> None:
    before = footprint(model)
    with pytest.raises(UnsupportedError, match="beside"):
        mount_lora(folders["head"], model)
    assert footprint(model)[1:] == before[1:]


def test_two_heads_are_not_mounted_together(folders, tmp_path) -> None:
    other = dump_lora(adapted(seed=8, modules_to_save=["lm_head"]), tmp_path, memory_id="other")
    model = model_of()
    before = footprint(model)
    with mount_lora(folders["head"], model):
        with pytest.raises(UnsupportedError, match="Only one adapter"):
            mount_lora(other, model)
        assert torch.equal(logits(model), logits(of_peft(folders, "head")))
    assert footprint(model) == before


def test_a_factor_scales_the_effect_and_shows_in_the_key_of_a_cache(
    adapters, model, folders
) -> None:
    made = of_peft(folders, "law")
    adapters.switch({"law": 0.25})
    for layer in made.modules():
        if hasattr(layer, "set_scale"):
            layer.set_scale("law", 0.25)
    assert torch.equal(logits(model), logits(made))
    assert [adapter.scale for adapter in active_adapters(model)] == ["0.5"]
    adapters.switch("law")
    assert torch.equal(logits(model), logits(of_peft(folders, "law")))


def test_a_cache_is_used_under_the_adapters_that_it_was_mounted_under_alone(
    adapters, model, tmp_path
) -> None:
    adapters.switch("law")
    tokenizer = tokenizer_of()
    folder = dump_kv(model, tokenizer, text=text_of(12), folder=tmp_path, memory_id="m")
    cache = mount_kv(folder, model, tokenizer)
    for other in ("heart", ["law", "heart"], {"law": 0.5}, []):
        adapters.switch(other)
        with pytest.raises(ConflictError, match="other adapters"):
            cache.new_cache()
        with pytest.raises(IncompatibleError):
            mount_kv(folder, model, tokenizer)
    adapters.switch("law")
    assert cache.new_cache().get_seq_length() == 12
    cache.unmount()


def test_what_is_not_mounted_or_no_factor_changes_nothing(adapters, folders, model) -> None:
    adapters.switch("law")
    before = logits(model)
    with pytest.raises(NotFoundError, match="no adapter"):
        adapters.switch("other")
    for factor in (float("nan"), float("inf")):
        with pytest.raises(InvalidError):
            adapters.switch({"heart": 1.0, "law": factor})
    dora = mount_lora(folders["dora"], model)
    adapters.add("dora", dora)
    adapters.switch("law")
    with pytest.raises(UnsupportedError):
        adapters.switch({"dora": 0.5})
    assert gates(adapters) == {"law": 1, "heart": 0, "style": 0, "dora": 0}
    assert torch.equal(logits(model), before)
    with pytest.raises(ConflictError):
        adapters.add("law", dora)


def test_a_switch_that_is_interrupted_is_none(adapters, model, monkeypatch) -> None:
    from memcube.memories.parametric import stack as parametric_stack

    adapters.switch({"law": 0.5, "heart": 1.0})
    before, calls = logits(model), []
    tuned = parametric_stack._is_tuned

    def interrupted(layer: Any) -> bool:
        calls.append(layer)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return tuned(layer)

    monkeypatch.setattr(parametric_stack, "_is_tuned", interrupted)
    with pytest.raises(KeyboardInterrupt):
        adapters.switch({"law": 2.0, "style": 3.0})
    assert gates(adapters) == {"law": 0.5, "heart": 1.0, "style": 0}
    assert torch.equal(logits(model), before)


def test_an_adapter_that_the_user_had_on_the_model_stays_in_use(folders) -> None:
    mine = adapted(seed=9, target_modules=["q_proj"])
    alone = logits(mine)
    adapters = Adapters()
    for name in ("law", "heart"):
        adapters.add(name, mount_lora(folders[name], mine))
    adapters.switch([])
    assert torch.equal(logits(mine), alone)
    adapters.switch("law")
    made = adapted(seed=9, target_modules=["q_proj"])
    made.load_adapter(folders["law"], "law", autocast_adapter_dtype=False)
    made.base_model.set_adapter(["default", "law"])
    assert torch.equal(logits(mine), logits(made))
    adapters.close()
    assert torch.equal(logits(mine), alone)


PAIR = {"law": 0.7, "heart": 0.3}
SIGNED = {"law": 1.0, "heart": -0.5}
THREE = {"law": 0.5, "heart": 0.3, "words": 0.2}
ONE = {"heart": 2.0}
RANKS = {"law": 0.6, "style": 0.4}


@pytest.mark.parametrize(
    ("weights", "how"),
    [
        *[(weights, how) for weights in (PAIR, SIGNED, THREE) for how in ("linear", "cat")],
        (ONE, "linear"),
        (RANKS, "cat"),
    ],
)
def test_a_combination_has_pefts_semantics(weights, how, folders, model) -> None:
    adapters = Adapters()
    for name in weights:
        adapters.add(name, mount_lora(folders[name], model))
    made = of_peft(folders, *weights)
    made.add_weighted_adapter(list(weights), list(weights.values()), "new", how)
    made.set_adapter("new")
    name = adapters.combine(weights, how, name="new")
    assert gates(adapters) == {**dict.fromkeys(weights, 0), name: 1}
    if weights in (PAIR, SIGNED, ONE):
        assert torch.equal(logits(model), logits(made))
    torch.testing.assert_close(logits(model), logits(made), atol=1e-5, rtol=1e-5)
    adapters.close()
    assert torch.equal(logits(model), logits(model_of()))


def test_cat_is_the_sum_of_the_effects_also_of_rank_stabilised_adapters(folders, model) -> None:
    adapters = Adapters()
    for name in ("law", "stable"):
        adapters.add(name, mount_lora(folders[name], model))
    adapters.switch({"law": 0.4, "stable": 0.6})
    together = logits(model)
    adapters.combine({"law": 0.4, "stable": 0.6}, "cat")
    torch.testing.assert_close(logits(model), together, atol=1e-5, rtol=1e-5)
    adapters.close()


def test_a_combination_is_made_once_and_is_one_more_adapter(adapters, model) -> None:
    assert adapters.combine({"law": 0.5, "heart": 0.5}) == "law+heart"
    combined = logits(model)
    adapters.switch("style")
    assert adapters.combine({"law": 0.5, "heart": 0.5}) == "law+heart"
    assert torch.equal(logits(model), combined)
    state = adapters.list()[-1]
    assert (state.name, state.rank, state.level) == ("law+heart", 4, "exact")
    assert adapters.combine({"law+heart": 1.0, "law": 1.0}, "cat", name="twice") == "twice"
    with pytest.raises(ConflictError):
        adapters.combine({"law": 0.1, "heart": 0.9})
    assert len(adapters) == 5
    adapters.remove("law+heart")
    assert adapters.combine({"law": 0.1, "heart": 0.9}) == "law+heart"
    assert not torch.equal(logits(model), combined)
    with pytest.raises(NotFoundError):
        adapters.remove("nobody")


def test_what_cannot_be_combined_is_refused_and_nothing_is_mounted(
    adapters, folders, model, monkeypatch
) -> None:
    adapters.add("dora", mount_lora(folders["dora"], model))
    adapters.switch("law")
    before = footprint(model)
    for weights, how, error in (
        ({"law": 1.0, "style": 1.0}, "linear", IncompatibleError),
        ({"law": 1.0, "dora": 1.0}, "cat", UnsupportedError),
        ({"law": float("nan"), "heart": 1.0}, "cat", InvalidError),
        ({"law": 1.0}, "svd", InvalidError),
        ({}, "linear", InvalidError),
        ({"law": 1.0, "nobody": 1.0}, "linear", NotFoundError),
    ):
        with pytest.raises(error):
            adapters.combine(weights, how)
    monkeypatch.setattr("memcube_protocol.limits.LORA_RANK", 7)
    with pytest.raises(LimitExceededError):
        adapters.combine({"law": 1.0, "heart": 1.0}, "cat")
    assert footprint(model) == before
    assert len(adapters) == 4


def test_a_question_is_answered_by_its_experts(adapters, model, folders) -> None:
    assert [choice.name for choice in adapters.route("drugs for arrhythmia")] == ["heart"]
    assert torch.equal(logits(model), logits(of_peft(folders, "heart")))
    choices = adapters.route("leases of drugs and contracts", limit=2)
    assert [choice.name for choice in choices] == ["law", "heart"]
    assert gates(adapters) == {"style": 0, **{choice.name: choice.share for choice in choices}}
    mixture = logits(model)
    adapters.combine({choice.name: choice.share for choice in choices}, "cat")
    torch.testing.assert_close(logits(model), mixture, atol=1e-5, rtol=1e-5)
    assert adapters.route("the weather") == ()
    assert torch.equal(logits(model), logits(model_of()))
    assert adapters.route("contracts", embed=lambda texts: [[1.0] for _ in texts])


def test_an_unmounted_adapter_is_not_used_again(adapters, folders, model) -> None:
    adapters._mounted["law"].unmount()
    with pytest.raises(ConflictError, match="unmounted"):
        adapters.switch("law")
    adapters.switch("heart")
    assert torch.equal(logits(model), logits(of_peft(folders, "heart")))


def test_none_at_all_can_be_switched_to_nothing() -> None:
    adapters = Adapters()
    adapters.switch([])
    assert adapters.list() == ()
    assert adapters.route("anything") == ()
