"""Adapters with biases: peft's own bits while mounted, and the model's own biases back afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from memcube.memories import known_identity as known_identity_module
from memcube.memories.activation.dump import dump_kv
from memcube.memories.activation.key import active_adapters
from memcube.memories.activation.mount import mount_kv
from memcube.memories.known_identity import known_identity
from memcube.memories.model_identity import file_tensors, live_identity
from memcube.memories.parametric.adapters import Adapters
from memcube.memories.parametric.dump import dump_lora, read_adapter
from memcube.memories.parametric.mount import mount_fitting, mount_lora
from memcube_protocol.errors import (
    ConflictError,
    IncompatibleError,
    InvalidTensorsError,
    UnsupportedError,
)
from memcube_protocol.parametric import Level, adapter_identity
from support.adapters import footprint, logits
from support.biased import LINEAR, base_of_shape, trained
from support.interrupts import lines_run, lines_to_interrupt
from support.models import text_of, tokenizer_of

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

CASES = [(shape, bias) for shape in LINEAR for bias in ("all", "lora_only")]


def dumped(shape: str, bias: str, cube: Path, memory: str, **options: Any) -> Path:
    identity = live_identity(base_of_shape(shape))
    return dump_lora(
        trained(shape, bias, **options), cube, memory_id=memory, base_identity=identity
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[Any, Path]:
    cube = tmp_path_factory.mktemp("cube")
    made: dict[Any, Path] = {
        (shape, bias): dumped(shape, bias, cube, f"m{seed}", seed=seed)
        for seed, (shape, bias) in enumerate(CASES, 10)
    }
    made["plain"] = dumped("qwen2", "none", cube, "plain", seed=2)
    made["second"] = dumped("qwen2", "all", cube, "second", seed=3)
    made["head"] = dumped("qwen2", "all", cube, "head", seed=5, modules_to_save=["lm_head"])
    made["dora"] = dumped("qwen2", "all", cube, "dora", seed=4, use_dora=True)
    return made


@pytest.fixture(scope="module")
def bases() -> dict[str, Any]:
    return {shape: base_of_shape(shape) for shape in LINEAR}


@pytest.fixture
def model(bases) -> Iterator[Any]:
    """A model with biases in attention, as it was before at the end of the test too."""
    before = everything(bases["qwen2"])
    yield bases["qwen2"]
    assert everything(bases["qwen2"]) == before


def everything(model: Any) -> tuple[Any, ...]:
    """What mounting could leave behind, down to the objects and the bits of each parameter."""
    held = [
        (name, id(tensor), tensor.detach().numpy().tobytes())
        for name, tensor in model.named_parameters()
    ]
    return *footprint(model), held


def of_peft(shape: str, folder: Path) -> Any:
    """The adapter as peft loads it."""
    base = base_of_shape(shape)
    return peft.PeftModel.from_pretrained(base, folder, autocast_adapter_dtype=False).eval()


@pytest.mark.parametrize(("shape", "bias"), CASES)
def test_an_adapter_with_biases_gives_pefts_own_logits_and_leaves_no_trace(
    shape, bias, folders, bases
) -> None:
    model, folder = bases[shape], folders[shape, bias]
    before, plain = everything(model), logits(model)
    for _ in range(2):  # the second one finds slots
        with mount_lora(folder, model) as mounted:
            assert mounted.verdict.level is Level.EXACT
            made = of_peft(shape, folder)
            assert torch.equal(logits(model), logits(made))
            assert not torch.equal(logits(model), plain)
            assert active_adapters(model) == active_adapters(made)
            assert live_identity(model) == known_identity(model) == before[0]
        assert everything(model) == before
        assert torch.equal(logits(model), plain)


@pytest.mark.parametrize("kind", ["dora", "head"])
def test_dora_and_modules_of_their_own_go_through_peft_beside_biases(kind, folders, model) -> None:
    with mount_lora(folders[kind], model):
        assert torch.equal(logits(model), logits(of_peft("qwen2", folders[kind])))


def test_a_model_is_not_hashed_again_for_the_biases_on_it(folders, model, monkeypatch) -> None:
    identity = known_identity(model)
    monkeypatch.setattr(known_identity_module, "live_identity", None)
    with mount_lora(folders["qwen2", "all"], model):
        assert known_identity(model) == identity
    assert known_identity(model) == identity


def test_a_saved_module_with_a_bias_keeps_it_and_is_refused_beside_all_biases(tmp_path) -> None:
    saved = {"target_modules": ["q_proj"], "modules_to_save": ["k_proj"]}
    dumped("qwen2", "lora_only", tmp_path, "some", **saved)
    folder, model = tmp_path / "parametric" / "some", base_of_shape("qwen2")
    before = everything(model)
    with mount_lora(folder, model) as mounted:
        assert not any("k_proj" in path for path in mounted.adapter.biases)
        assert torch.equal(logits(model), logits(of_peft("qwen2", folder)))
    assert everything(model) == before
    with pytest.raises(InvalidTensorsError, match="k_proj"):
        dumped("qwen2", "all", tmp_path, "all", **saved)


@pytest.mark.parametrize(("shape", "bias"), CASES)
def test_a_dump_holds_what_peft_saves_and_peft_loads_it(shape, bias, folders, tmp_path) -> None:
    model = trained(shape, bias, seed=10 + CASES.index((shape, bias)))
    model.save_pretrained(tmp_path / "plain", save_embedding_layers=False)
    files = [
        folder / "adapter_model.safetensors"
        for folder in (tmp_path / "plain", folders[shape, bias])
    ]
    assert file_tensors(files[0]) == sorted(file_tensors(files[1]))
    again = dump_lora(tmp_path / "plain", tmp_path, memory_id="again")
    assert file_tensors(again / "adapter_model.safetensors") == file_tensors(files[0])
    assert torch.equal(logits(of_peft(shape, again)), logits(model))
    assert read_adapter(again).biases.keys() == {
        name.removeprefix("base_model.model.").removesuffix(".bias").removesuffix(".base_layer")
        for name in (t.name for t in file_tensors(files[0]))
        if name.endswith(".bias")
    }


def test_the_identity_of_an_adapter_covers_its_biases_on_disk_and_on_a_model(folders) -> None:
    for key in (("qwen2", "all"), ("gpt2", "lora_only")):
        (live,) = active_adapters(trained(*key, seed=10 + CASES.index(key)))
        file = folders[key] / "adapter_model.safetensors"
        assert live.identity == adapter_identity(file_tensors(file))


def test_a_model_that_was_trained_with_biases_does_not_tell_its_base(tmp_path, folders) -> None:
    assert (
        read_adapter(dump_lora(trained("qwen2", "all"), tmp_path, memory_id="x")).base.identity
        is None
    )
    llama = read_adapter(dump_lora(trained("llama", "all"), tmp_path, memory_id="y"))
    assert llama.base.identity == live_identity(base_of_shape("llama"))
    with pytest.raises(IncompatibleError, match="not known"):
        mount_lora(tmp_path / "parametric" / "x", base_of_shape("qwen2"))


def test_a_switch_brings_the_biases_and_takes_them_away(folders, model) -> None:
    plain, adapters = logits(model), Adapters()
    for name, key in (("biased", ("qwen2", "all")), ("plain", "plain")):
        adapters.add(name, mount_lora(folders[key], model))
    together = logits(model)
    made = of_peft("qwen2", folders["plain"])
    made.load_adapter(folders["qwen2", "all"], "biased", autocast_adapter_dtype=False)
    made.base_model.set_adapter(["biased", "default"])
    assert torch.equal(together, logits(made))
    for chosen in ("plain", "biased", "plain", "biased"):
        adapters.switch(chosen)
        folder = folders["plain" if chosen == "plain" else ("qwen2", "all")]
        assert torch.equal(logits(model), logits(of_peft("qwen2", folder))), chosen
    adapters.switch([])
    assert torch.equal(logits(model), plain)
    adapters.switch(["biased", "plain"])
    assert torch.equal(logits(model), together)
    adapters.close()


def test_two_adapters_with_biases_are_switched_between_but_not_in_use_together(
    folders, model
) -> None:
    adapters, second = Adapters(), folders["second"]
    adapters.add("first", mount_lora(folders["qwen2", "all"], model))
    before = logits(model)
    with pytest.raises(ConflictError, match="one adapter with biases"):
        mount_lora(second, model)
    assert torch.equal(logits(model), before)
    adapters.switch([])
    adapters.add("second", mount_lora(second, model))
    assert torch.equal(logits(model), logits(of_peft("qwen2", second)))
    with pytest.raises(ConflictError, match="one adapter with biases"):
        adapters.switch(["first", "second"])
    assert torch.equal(logits(model), logits(of_peft("qwen2", second)))
    adapters.switch("first")
    assert torch.equal(logits(model), before)
    adapters.remove("second")
    assert torch.equal(logits(model), before)
    adapters.close()


def test_biases_have_no_factor_and_no_combination(folders, model) -> None:
    adapters = Adapters()
    adapters.add("biased", mount_lora(folders["qwen2", "all"], model))
    adapters.add("plain", mount_lora(folders["plain"], model))
    before = logits(model)
    with pytest.raises(UnsupportedError, match="biases"):
        adapters.switch({"biased": 0.5})
    for how in ("linear", "cat"):
        with pytest.raises(UnsupportedError, match="biases"):
            adapters.combine({"biased": 0.5, "plain": 0.5}, how)
    assert torch.equal(logits(model), before)
    adapters.close()


def test_an_adapter_whose_model_has_no_biases_is_as_any_other(folders, bases) -> None:
    adapters, model = Adapters(), bases["llama"]
    adapters.add("all", mount_lora(folders["llama", "all"], model))
    adapters.add("some", mount_lora(folders["llama", "lora_only"], model))
    adapters.switch({"all": 0.5})
    assert adapters.combine({"all": 0.5, "some": 0.5}) == "all+some"
    adapters.close()


def test_a_failure_midway_brings_the_biases_back(folders, model, monkeypatch) -> None:
    from memcube.memories import biases

    exchange, calls = biases._exchange, []

    def failing(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        exchange(*args)

    plain = mount_lora(folders["plain"], model)
    alone = logits(model)
    monkeypatch.setattr(biases, "_exchange", failing)
    with pytest.raises(KeyboardInterrupt):
        mount_lora(folders["qwen2", "all"], model)
    assert torch.equal(logits(model), alone)
    assert live_identity(model) == live_identity(base_of_shape("qwen2"))
    biased = mount_lora(folders["qwen2", "all"], model)
    both = logits(model)
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        biased.stack.switch({plain.name: 1.0})
    assert torch.equal(logits(model), both)
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        biased.unmount()
    assert torch.equal(logits(model), alone)
    plain.unmount()


@pytest.mark.parametrize("beside", [None, "plain"])
def test_a_mount_of_biases_that_is_interrupted_anywhere_leaves_the_model_as_it_was(
    beside, folders, model
) -> None:
    folder, identity = folders["qwen2", "all"], live_identity(model)
    other = mount_lora(folders[beside], model) if beside else None
    before, answers = everything(model), logits(model)

    def mount() -> Any:
        return mount_lora(folder, model, base_identity=identity)

    mount().unmount()
    for line in lines_to_interrupt(mount, beside):
        with pytest.raises(KeyboardInterrupt):
            lines_run(lambda: mount().close(), line)
        assert beside or everything(model) == before, f"line {line}"
        assert torch.equal(logits(model), answers), f"line {line}"
        assert live_identity(model) == identity
    if other:
        other.unmount()


def test_a_cache_made_under_other_biases_is_another_cache(folders, model, tmp_path) -> None:
    tokenizer = tokenizer_of()
    adapters = Adapters()
    adapters.add("biased", mount_lora(folders["qwen2", "all"], model))
    (key,) = active_adapters(model)
    folder = dump_kv(model, tokenizer, text=text_of(12), folder=tmp_path, memory_id="m")
    with mount_kv(folder, model, tokenizer) as cache:
        assert cache.new_cache().get_seq_length() == 12
        adapters.switch([])
        with pytest.raises(ConflictError, match="other adapters"):
            cache.new_cache()
    adapters.close()
    other = altered(folders["qwen2", "all"], tmp_path, lambda tensors: tensors[BIAS].add_(1))
    with mount_lora(other, model):
        assert [each.identity for each in active_adapters(model)] != [key.identity]
        with pytest.raises(IncompatibleError, match="adapters"):
            mount_kv(folder, model, tokenizer)


BIAS = "base_model.model.model.layers.1.self_attn.k_proj.bias"
INNER = "base_model.model.model.layers.1.self_attn.q_proj.base_layer.bias"


def altered(folder: Path, target: Path, change: Any) -> Path:
    """A copy of the adapter in `folder`, its tensors changed in place."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(folder, target / "altered")
    file = copy / "adapter_model.safetensors"
    with safe_open(file, "pt") as opened:
        about = opened.metadata()
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, about)
    return Path(copy)


def rename(name: str, other: str) -> Any:
    return lambda tensors: tensors.update({other: tensors.pop(name)})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda tensors: tensors.update({BIAS: torch.zeros(33)}), r"\[32\] in the model, \[33\]"),
        (lambda tensors: tensors.update({BIAS: torch.zeros(32, 1)}), r"\[32, 1\] in the adapter"),
        (lambda tensors: tensors[BIAS].fill_(float("nan")), "not-finite"),
        (lambda tensors: tensors[BIAS].fill_(65536.0), "not-finite"),
        (lambda tensors: tensors.update({BIAS: tensors[BIAS].int()}), "not a float"),
        (rename(BIAS, BIAS.replace("k_proj", "o_proj")), r"no bias model\.layers\.1\.self_attn\.o"),
        (rename(BIAS, BIAS.replace("1.self", "9.self")), r"no bias model\.layers\.9"),
        (rename(BIAS, BIAS.replace(".bias", ".base_layer.bias")), "has no factors"),
        (rename(INNER, INNER.replace(".base_layer", "")), "has factors"),
        (rename(BIAS, BIAS.replace("bias", "weight")), "no part of a LoRA"),
    ],
)
def test_a_bias_that_the_model_would_not_take_as_it_is_is_refused(
    change, why, folders, model, tmp_path
) -> None:
    with pytest.raises(InvalidTensorsError, match=why):
        mount_lora(altered(folders["qwen2", "all"], tmp_path, change), model)


def test_biases_are_rounded_to_the_models_type_as_peft_rounds_them(folders, tmp_path) -> None:
    folder = folders["qwen2", "all"]
    model = base_of_shape("qwen2", "bfloat16")
    before = footprint(model)
    with mount_lora(folder, model, allow_unverified_base=True):
        made = peft.PeftModel.from_pretrained(base_of_shape("qwen2", "bfloat16"), folder).eval()
        assert torch.equal(logits(model), logits(made))
        held = [t for name, t in model.named_parameters() if name.endswith(".bias")]
        assert {tensor.dtype for tensor in held} == {torch.bfloat16}
    assert footprint(model) == before
    huge = altered(folder, tmp_path, lambda tensors: tensors[BIAS].fill_(65530.0))
    with pytest.raises(InvalidTensorsError, match="too large"):
        mount_lora(huge, base_of_shape("qwen2", "float16"), allow_unverified_base=True)


def test_a_model_that_is_moved_while_it_is_mounted_has_its_own_biases_moved_too(folders) -> None:
    model = base_of_shape("qwen2")
    adapters = Adapters()
    adapters.add("biased", mount_lora(folders["qwen2", "all"], model))
    model.to(torch.float64)
    adapters.switch([])
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float64}
    model.to(torch.float32)
    adapters.switch("biased")
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    adapters.close()
    assert everything(model)[0] == live_identity(base_of_shape("qwen2"))


def test_biases_that_are_not_in_memory_are_refused(folders, model) -> None:
    offloaded = base_of_shape("qwen2")
    offloaded.model.layers[1].self_attn.k_proj.bias = torch.nn.Parameter(
        torch.empty(32, device="meta")
    )
    before = list(offloaded.state_dict()), set(vars(offloaded))
    with pytest.raises(UnsupportedError, match="offloaded"):
        mount_lora(folders["qwen2", "all"], offloaded, base_identity=live_identity(model))
    assert (list(offloaded.state_dict()), set(vars(offloaded))) == before


def test_flags_of_biases_are_as_they_were_whoever_froze_them(folders) -> None:
    model = base_of_shape("qwen2")
    for name, tensor in model.named_parameters():
        tensor.requires_grad_("k_proj" not in name)
    before = everything(model)
    plain = mount_lora(folders["plain"], model)
    with mount_lora(folders["qwen2", "all"], model):
        assert not any(t.requires_grad for n, t in model.named_parameters() if n.endswith("j.bias"))
    plain.unmount()
    assert everything(model) == before


def test_a_users_own_adapter_with_biases_stays_as_it_was(folders) -> None:
    mine = trained("qwen2", "all", seed=7, target_modules=["k_proj"])
    for tensor in mine.parameters():
        tensor.requires_grad_(False)
    before, alone = everything(mine), logits(mine)
    with pytest.raises(ConflictError, match="one adapter with biases"):
        mount_lora(folders["qwen2", "all"], mine, allow_unverified_base=True)
    assert everything(mine) == before
    with mount_lora(folders["plain"], mine, allow_unverified_base=True):
        assert not torch.equal(logits(mine), alone)
    assert everything(mine) == before


def test_biases_are_mounted_beside_a_users_own_adapter_on_the_same_modules(folders) -> None:
    mine = trained("qwen2", "none", seed=7, target_modules=["q_proj", "k_proj"])
    before = everything(mine)
    folder = folders["qwen2", "lora_only"]
    with mount_lora(folder, mine):
        made = trained("qwen2", "none", seed=7, target_modules=["q_proj", "k_proj"])
        made.load_adapter(folder, "other", autocast_adapter_dtype=False)
        made.base_model.set_adapter(["default", "other"])
        assert torch.equal(logits(mine), logits(made))
        with mine.disable_adapter(), pytest.raises(UnsupportedError, match="biases"):
            active_adapters(mine)
    assert everything(mine) == before


def test_of_several_with_biases_a_cache_is_made_under_the_first_as_a_mount_takes_it(
    folders, model
) -> None:
    found = {"one": lambda: folders["qwen2", "all"], "two": lambda: folders["second"]}
    with ExitStack() as undo:
        mounted, notes = mount_fitting(found, model, undo)
        assert mounted == ["one"]
        assert "without the adapter two: only one adapter with biases" in notes[0]
