"""Slots: a second mount costs no building, gives peft's own bits, and leaves nothing behind."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
from memcube.memories.activation.key import active_adapters
from memcube.memories.model_identity import live_identity
from memcube.memories.parametric import files as parametric_files
from memcube.memories.parametric.dump import dump_lora
from memcube.memories.parametric.mount import mount_lora
from memcube.memories.parametric.slots import SlotPool
from memcube.memories.parametric.stack import AdapterStack
from memcube.store.checks import FileChecks
from support.adapters import adapted, footprint, logits
from support.interrupts import lines_run, lines_to_interrupt
from support.models import model_of

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

KINDS: dict[str, dict[str, Any]] = {
    "of the same shape": {},
    "of another rank": {"r": 7, "lora_alpha": 3},
    "of ranks by module": {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"up_proj": 7}},
    "rank-stabilised": {"use_rslora": True, "r": 3},
    "of fewer modules": {"target_modules": ["q_proj", "down_proj"]},
    "with a head of its own": {"modules_to_save": ["lm_head"]},
    "with DoRA": {"use_dora": True},
    "of the embedding": {"target_modules": ["embed_tokens", "v_proj"]},
}
IN_SLOTS = list(KINDS)[:5]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    cube = tmp_path_factory.mktemp("cube")
    return {
        kind: dump_lora(adapted(seed=number, **KINDS[kind]), cube, memory_id=f"a{number}")
        for number, kind in enumerate(KINDS)
    }


@pytest.fixture(scope="module")
def warm(folders) -> Any:
    """A model on which one adapter was mounted before."""
    model = model_of()
    mount_lora(folders["of the same shape"], model).unmount()
    return model


@pytest.fixture
def built(monkeypatch) -> list[str]:
    """The names of the adapters that peft built."""
    names: list[str] = []
    build = AdapterStack._build

    def counted(stack: Any, name: str, *args: Any, **options: Any) -> None:
        names.append(name)
        build(stack, name, *args, **options)

    monkeypatch.setattr(AdapterStack, "_build", counted)
    return names


def of_peft(folder: Path) -> Any:
    """The adapter as peft loads it."""
    return peft.PeftModel.from_pretrained(model_of(), folder, autocast_adapter_dtype=False).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_later_mount_gives_pefts_own_logits_to_the_bit_and_leaves_no_trace(
    kind, folders, warm, built
) -> None:
    warm.train()
    before = footprint(warm)
    for _ in range(2):
        with mount_lora(folders[kind], warm):
            assert torch.equal(logits(warm), logits(of_peft(folders[kind])))
            assert active_adapters(warm) == active_adapters(of_peft(folders[kind]))
            assert not any(t.requires_grad for n, t in warm.named_parameters() if "lora_" in n)
        assert footprint(warm) == before
    assert bool(built) == (kind not in IN_SLOTS)
    warm.eval()


def test_a_mounted_model_looks_as_peft_would_have_made_it(folders, warm) -> None:
    folder = folders["of ranks by module"]
    made = of_peft(folder)
    with mount_lora(folder, warm) as mounted:
        state = {name.replace(mounted.name, "default"): t for name, t in warm.state_dict().items()}
        assert list(state) == list(made.get_base_model().state_dict())
        for path, layer in made.get_base_model().named_modules():
            mine = dict(warm.named_modules())[path.replace("default", mounted.name)]
            assert type(mine) is type(layer)
            if not hasattr(layer, "lora_A"):
                continue
            for part in ("r", "lora_alpha", "scaling", "use_rslora", "use_dora", "lora_bias"):
                assert getattr(mine, part)[mounted.name] == getattr(layer, part)["default"], part
            assert repr(mine).replace(mounted.name, "default") == repr(layer)


def test_the_second_of_two_mounted_together_takes_a_slot_like_that_of_the_first(
    folders, built
) -> None:
    model = model_of()
    before = footprint(model)
    with mount_lora(folders["of the same shape"], model):
        with mount_lora(folders["of another rank"], model):
            both = logits(model)
        with mount_lora(folders["rank-stabilised"], model):
            pass
        assert torch.equal(logits(model), logits(of_peft(folders["of the same shape"])))
    assert len(built) == 1
    assert footprint(model) == before
    one = of_peft(folders["of the same shape"])
    one.load_adapter(folders["of another rank"], "second", autocast_adapter_dtype=False)
    one.base_model.set_adapter(["default", "second"])
    assert torch.equal(both, logits(one))


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("other", ["with DoRA", "with a head of its own", "of the embedding"])
def test_slots_and_what_peft_builds_stand_beside_each_other(other, order, folders, warm) -> None:
    before, plain = footprint(warm), "of the same shape"
    kinds = [plain, other][::order]
    mounted = [mount_lora(folders[kind], warm) for kind in kinds]
    for left, taken in ((1, 0), (0, 1)):
        mounted[taken].unmount()
        assert torch.equal(logits(warm), logits(of_peft(folders[kinds[left]])))
        mounted[left].unmount()
        assert footprint(warm) == before
        mounted = [mount_lora(folders[kind], warm) for kind in kinds]
    for one in mounted:
        one.unmount()
    assert footprint(warm) == before


@pytest.mark.parametrize(
    ("base", "held"), [("bfloat16", "float32"), ("float32", "bfloat16"), ("bfloat16", "float16")]
)
def test_a_slot_narrows_nothing(base, held, tmp_path) -> None:
    trained = adapted(base)
    for name, tensor in trained.named_parameters():
        if "lora_" in name:
            tensor.data = (tensor.data.float() * 1.001).to(getattr(torch, held))
    folder = dump_lora(trained, tmp_path, memory_id="lora")
    model = model_of(dtype=base)
    with mount_lora(folder, model):
        built = logits(model)
    with mount_lora(folder, model):
        assert {t.dtype for n, t in model.named_parameters() if "lora_" in n} == {torch.float32}
        assert torch.equal(logits(model), built)


def test_a_slot_holds_the_files_own_memory(folders, warm) -> None:
    with mount_lora(folders["of the same shape"], warm) as mounted:
        places = {tensor.data_ptr() for tensor in mounted.tensors.values()}
        live = {t.data_ptr() for name, t in warm.named_parameters() if "lora_" in name}
        assert live == places


def test_neither_the_model_nor_the_tensors_outlive_their_users(folders) -> None:
    model = model_of()
    mounted = mount_lora(folders["of the same shape"], model)
    tensor = weakref.ref(next(iter(mounted.tensors.values())))
    weight = weakref.ref(model.model.layers[0].mlp.up_proj.base_layer.weight)
    pool = weakref.ref(SlotPool.of(model))
    assert str(folders["of the same shape"]) in Path("/proc/self/maps").read_text()
    mounted.unmount()
    assert tensor() is None
    assert pool() is not None
    assert str(folders["of the same shape"]) not in Path("/proc/self/maps").read_text()
    base = weakref.ref(model)
    del model, mounted
    gc.collect()
    assert (base(), weight(), pool()) == (None, None, None)


def test_a_layer_that_its_user_has_replaced_is_wrapped_anew(folders, warm) -> None:
    old = warm.model.layers[0].mlp.up_proj
    warm.model.layers[0].mlp.up_proj = new = torch.nn.Linear(64, 96, bias=False)
    try:
        with mount_lora(folders["of the same shape"], warm, allow_unverified_base=True):
            assert warm.model.layers[0].mlp.up_proj.base_layer is new
        assert warm.model.layers[0].mlp.up_proj is new
    finally:
        warm.model.layers[0].mlp.up_proj = old


def test_an_adapter_that_was_looked_through_is_not_read_again(
    folders, warm, tmp_path, monkeypatch
) -> None:
    checks = FileChecks(tmp_path / "checks.sqlite")
    mount_lora(folders["of the same shape"], warm, checks=checks).unmount()
    monkeypatch.setattr(parametric_files, "hashed_tensors", None)
    monkeypatch.setattr(parametric_files, "require_bounded", None)
    with mount_lora(folders["of the same shape"], warm, checks=checks):
        assert torch.equal(logits(warm), logits(of_peft(folders["of the same shape"])))
    with pytest.raises(TypeError):
        mount_lora(folders["of the same shape"], warm)


@pytest.mark.parametrize("beside", [None, "of another rank"])
@pytest.mark.parametrize("kind", ["of the same shape", "with DoRA"])
def test_a_mount_that_is_interrupted_anywhere_leaves_the_model_untouched(
    kind, beside, folders, warm
) -> None:
    identity = live_identity(warm)
    other = mount_lora(folders[beside], warm) if beside else None
    before = footprint(warm)

    def mount() -> Any:
        return mount_lora(folders[kind], warm, base_identity=identity)

    mount().unmount()
    keys = list(warm.state_dict())
    for line in lines_to_interrupt(mount, kind):
        with pytest.raises(KeyboardInterrupt):
            lines_run(lambda: mount().close(), line)
        assert list(warm.state_dict()) == keys, f"line {line}"
        assert beside or footprint(warm)[1:] == before[1:], f"line {line}"
    mount().unmount()
    if other:
        assert torch.equal(logits(warm), logits(of_peft(folders[beside])))
        other.unmount()
    else:
        assert footprint(warm) == before
