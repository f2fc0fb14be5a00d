"""Adapters from somebody who wants more than to be mounted: swapped files, giants, poisoned values.

Each is refused with an error of ours, and the model is as it was.
"""

from __future__ import annotations

import cProfile
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from memcube.client import Client
from memcube.dumper import MemDumper
from memcube.memories.activation.generation import generate
from memcube.memories.model_identity import live_identity
from memcube.memories.parametric import files as parametric_files
from memcube.memories.parametric.adapters import Adapters
from memcube.memories.parametric.dump import dump_lora
from memcube.memories.parametric.mount import mount_lora
from memcube.mounting import MountedMemory
from memcube.settings import Settings
from memcube.store.checks import CHECKS_FILE, FileChecks
from memcube_protocol import adapter_config, parametric, tensors
from memcube_protocol.errors import (
    IntegrityError,
    InvalidConfigError,
    InvalidTensorsError,
    MemcubeError,
    NotFoundError,
)
from support.adapters import adapted, footprint, logits
from support.models import model_of, tokenizer_of

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    return dump_lora(adapted(), tmp_path_factory.mktemp("cube"), memory_id="good")


@pytest.fixture(scope="module")
def answers() -> Any:
    """What a model with the good adapter says."""
    return logits(adapted())


@pytest.fixture(scope="module")
def warm(good) -> Any:
    """A model with a slot for the good adapter."""
    model = model_of()
    mount_lora(good, model).unmount()
    return model


@pytest.fixture
def model(warm) -> Iterator[Any]:
    before = footprint(warm)
    yield warm
    assert footprint(warm) == before


@pytest.fixture
def lora(good, tmp_path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "lora"))


@pytest.fixture
def checks(tmp_path) -> FileChecks:
    return FileChecks(tmp_path / "home" / CHECKS_FILE)


def poison(file: Path, value: float = float("nan")) -> None:
    """Put `value` over the last element, in place, and put the times back."""
    before = file.stat()
    with file.open("r+b") as opened:
        opened.seek(-4, os.SEEK_END)
        opened.write(struct.pack("<f", value))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_poisoned_value_is_found_in_a_file_that_was_checked_before(
    value, model, lora, checks, answers
) -> None:
    for _ in range(2):
        with mount_lora(lora, model, checks=checks):
            assert torch.equal(logits(model), answers)
    poison(lora / parametric.TENSORS_FILE, value)
    for _ in range(2):
        with pytest.raises(InvalidTensorsError, match="not-finite"):
            mount_lora(lora, model, checks=checks)
    with pytest.raises(InvalidTensorsError, match="not-finite"):
        dump_lora(lora, lora.parent, memory_id="again")


@pytest.mark.parametrize("value", [65536.0, -1e30])
def test_an_adapter_of_huge_finite_numbers_is_refused(value, model, lora, checks, answers) -> None:
    poison(lora / parametric.TENSORS_FILE, 65000.0)
    mount_lora(lora, model, checks=checks).unmount()
    poison(lora / parametric.TENSORS_FILE, value)
    with pytest.raises(InvalidTensorsError, match=r"beyond 65536"):
        mount_lora(lora, model, checks=checks)


@pytest.mark.parametrize("alpha", [1e30, -65536, 65536])
def test_an_alpha_that_blows_an_adapter_up_is_refused(alpha, model, lora) -> None:
    config = lora / adapter_config.CONFIG_FILE
    config.write_text(json.dumps({**json.loads(config.read_text()), "lora_alpha": alpha}))
    with pytest.raises(InvalidConfigError, match=r"lora_alpha is .* below 65536"):
        mount_lora(lora, model)


def test_an_adapter_that_breaks_a_model_of_sixteen_bits_is_noticed_at_the_first_answer(
    lora,
) -> None:
    half, tokenizer = model_of(dtype="float16"), tokenizer_of()
    plain = generate(half, tokenizer, "w1 w2", max_new_tokens=2)
    identity = live_identity(half)
    from safetensors.torch import load_file, save_file

    state = load_file(lora / parametric.TENSORS_FILE)
    save_file(
        {name: torch.full_like(tensor, 6e4) for name, tensor in state.items()},
        lora / parametric.TENSORS_FILE,
    )
    with mount_lora(lora, half, allow_unverified_base=True):
        with pytest.raises(InvalidTensorsError, match="computes NaN or infinity") as caught:
            generate(half, tokenizer, "w1 w2", max_new_tokens=2)
        assert "as it was" in (caught.value.hint or "")
    assert live_identity(half) == identity
    assert generate(half, tokenizer, "w1 w2", max_new_tokens=2) == plain


def test_a_poisoned_adapter_of_a_live_model_is_not_dumped(tmp_path) -> None:
    trained = adapted()
    tensor = next(t for name, t in trained.named_parameters() if "lora_B" in name)
    tensor.data[0, 0] = float("nan")
    with pytest.raises(InvalidTensorsError, match="not-finite"):
        dump_lora(trained, tmp_path, memory_id="lora")
    assert list(tmp_path.iterdir()) == []


def test_another_file_under_the_name_of_a_checked_one_is_checked_itself(
    model, lora, checks, answers, tmp_path
) -> None:
    mount_lora(lora, model, checks=checks).unmount()
    other = dump_lora(adapted(seed=3), tmp_path, memory_id="other") / parametric.TENSORS_FILE
    stamp = (lora / parametric.TENSORS_FILE).stat()
    os.utime(other, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    other.replace(lora / parametric.TENSORS_FILE)
    with mount_lora(lora, model, checks=checks) as mounted:
        assert torch.equal(logits(model), logits(adapted(seed=3)))
        assert not torch.equal(logits(model), answers)
    poison(lora / parametric.TENSORS_FILE)
    with pytest.raises(InvalidTensorsError):
        mount_lora(lora, model, checks=checks)
    assert mounted.adapter.modules


def test_a_file_that_changes_between_its_checks_is_refused(
    model, lora, checks, monkeypatch
) -> None:
    finite = parametric_files.require_bounded

    def swapped(*args: Any) -> None:
        finite(*args)
        poison(lora / parametric.TENSORS_FILE)

    monkeypatch.setattr(parametric_files, "require_bounded", swapped)
    with pytest.raises(MemcubeError):
        mount_lora(lora, model, checks=checks)
    monkeypatch.undo()
    with pytest.raises(InvalidTensorsError, match="not-finite"):
        mount_lora(lora, model, checks=checks)


def cut(file: Path) -> None:
    os.truncate(file, 100)


@pytest.mark.parametrize("change", [poison, cut])
def test_a_file_that_is_written_into_while_it_is_mounted_is_not_switched_to(
    change: Callable[[Path], None], model, lora
) -> None:
    adapters = Adapters()
    adapters.add("lora", mount_lora(lora, model), "contracts")
    adapters.switch([])
    change(lora / parametric.TENSORS_FILE)
    for use in (
        lambda: adapters.switch("lora"),
        lambda: adapters.combine({"lora": 0.5}),
        lambda: adapters.route("contracts"),
    ):
        with pytest.raises(IntegrityError, match="written into"):
            use()
    assert torch.equal(logits(model), logits(model_of()))
    adapters.close()


def test_a_file_that_was_linked_touched_replaced_or_deleted_stays_in_use_as_it_was(
    model, lora, answers, tmp_path
) -> None:
    adapters = Adapters()
    adapters.add("lora", mount_lora(lora, model))
    file = lora / parametric.TENSORS_FILE
    os.link(file, tmp_path / "backup")
    adapters.switch("lora")
    file.touch()
    adapters.switch("lora")
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "other").replace(file)
    adapters.switch("lora")
    file.unlink()
    adapters.switch("lora")
    assert torch.equal(logits(model), answers)
    adapters.close()


def test_what_was_unpacked_of_a_cube_is_mended_when_it_was_changed(
    model, tmp_path, answers
) -> None:
    environ = {"MEMCUBE_HOME": str(tmp_path / "home"), "MEMCUBE_KEYRING": "0"}
    dumper = MemDumper(tmp_path / "cube", name="alice/law", version="1.0.0")
    dumper.add_lora(adapted(), memory_id="law")
    with Client(Settings.load(environ)) as client:
        client.pack(dumper.folder)
        folder = client.path("alice/law", memory="law")
        for _ in range(2):
            assert client.path("alice/law", memory="law") == folder
            poison(folder / parametric.TENSORS_FILE)
            with mount_lora(client.path("alice/law", memory="law"), model):
                assert torch.equal(logits(model), answers)


@pytest.fixture
def asked(model, tmp_path) -> Iterator[tuple[MountedMemory, Path]]:
    """A mounted adapter that answered a question, and its file."""
    environ = {"MEMCUBE_HOME": str(tmp_path / "home"), "MEMCUBE_KEYRING": "0"}
    dumper = MemDumper(tmp_path / "cube", name="alice/law", version="1.0.0")
    dumper.add_lora(adapted(), memory_id="law")
    with Client(Settings.load(environ)) as client:
        client.pack(dumper.folder)
        with client.mount("alice/law", model=model, tokenizer=tokenizer_of()) as memory:
            memory.generate("w1 w2", max_new_tokens=2)
            (file,) = (tmp_path / "home" / "folders").rglob(parametric.TENSORS_FILE)
            yield memory, file


def test_a_file_that_is_written_into_between_two_questions_ends_the_second(asked) -> None:
    memory, file = asked
    memory.generate("w1 w2", max_new_tokens=2)
    poison(file)
    with pytest.raises(IntegrityError, match="written into"):
        memory.generate("w1 w2", max_new_tokens=2)
    memory.adapters.switch([])
    memory.generate("w1 w2", max_new_tokens=2)


def test_a_file_that_is_cut_between_two_questions_does_not_end_the_process(asked) -> None:
    memory, file = asked
    cut(file)
    with pytest.raises(IntegrityError, match="written into"):
        memory.generate("w1 w2", max_new_tokens=2)


def test_what_was_unpacked_is_hashed_once_while_it_stays_as_it_is(tmp_path, monkeypatch) -> None:
    from memcube.consuming import holdings

    environ = {"MEMCUBE_HOME": str(tmp_path / "home"), "MEMCUBE_KEYRING": "0"}
    dumper = MemDumper(tmp_path / "cube", name="alice/law", version="1.0.0")
    dumper.add_lora(adapted(), memory_id="law")
    with Client(Settings.load(environ)) as client:
        client.pack(dumper.folder)
        for _ in range(2):
            folder = client.path("alice/law", memory="law")
        monkeypatch.setattr(holdings, "stream_verified", None)
        assert client.path("alice/law", memory="law") == folder


def written(lora: Path, specs: list[tuple[str, str, tuple[int, ...]]], rank: int = 4) -> None:
    """Other tensors, all zero and taking no room on the disk, for the good adapter's base."""
    adapter = parametric_files.AdapterFiles.open(lora).adapter
    start = tensors.write_header(specs, parametric.metadata(adapter.base))
    size = sum(tensors.size_bytes(dtype, shape) for _, dtype, shape in specs)
    (lora / parametric.TENSORS_FILE).unlink()
    with (lora / parametric.TENSORS_FILE).open("wb") as file:
        file.write(start)
        file.truncate(len(start) + size)
    config = (lora / adapter_config.CONFIG_FILE).read_text()
    (lora / adapter_config.CONFIG_FILE).write_text(config.replace('"r": 4', f'"r": {rank}'))


Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize("rank", [65, 65536])
def test_a_rank_above_both_sides_of_a_module_is_refused_before_a_value_is_read(
    rank, model, lora, monkeypatch
) -> None:
    written(
        lora,
        [
            (f"{Q}.lora_A.weight", "F32", (rank, 64)),
            (f"{Q}.lora_B.weight", "F32", (64, rank)),
        ],
        rank,
    )
    monkeypatch.setattr(parametric_files.AdapterFiles, "tensors", None)
    with pytest.raises(InvalidTensorsError, match=f"its rank {rank}"):
        mount_lora(lora, model)


PAIR = [(f"{Q}.lora_A.weight", "F32", (4, 64)), (f"{Q}.lora_B.weight", "F32", (64, 4))]


@pytest.mark.parametrize(
    "specs",
    [
        PAIR[:1],
        PAIR[1:],
        [*PAIR, ("base_model.model.lm_head.weight", "F32", (80, 64))],
        [*PAIR, (f"{Q}.base_layer.weight", "F32", (64, 64))],
        [*PAIR, (f"{Q}.lora_A.other.weight", "F32", (4, 64))],
        [*PAIR, (f"{Q}.lora_magnitude_vector", "F32", (64,))],
        [(f"{Q}.lora_A.weight", "F32", (0, 64)), (f"{Q}.lora_B.weight", "F32", (64, 0))],
        [(f"{Q}.lora_A.weight", "I8", (4, 64)), (f"{Q}.lora_B.weight", "I8", (64, 4))],
        [(f"{Q}.lora_A.weight", "F32", (4, 64)), (f"{Q}.lora_B.weight", "F32", (32, 4))],
        [],
    ],
)
def test_tensors_that_lack_or_are_too_many_are_refused_in_a_slot_as_by_peft(
    specs, model, lora
) -> None:
    written(lora, specs)
    with pytest.raises(InvalidTensorsError):
        mount_lora(lora, model)


@pytest.mark.parametrize("name", [adapter_config.CONFIG_FILE, parametric.TENSORS_FILE])
def test_a_pipe_in_the_place_of_a_file_does_not_block(name, model, lora) -> None:
    (lora / name).unlink()
    os.mkfifo(lora / name)
    with pytest.raises(NotFoundError):
        mount_lora(lora, model)


def test_an_empty_file_is_refused(model, lora) -> None:
    os.truncate(lora / parametric.TENSORS_FILE, 0)
    with pytest.raises(InvalidTensorsError, match="truncated"):
        mount_lora(lora, model)


@pytest.mark.parametrize("field", ["modules_to_save", "rank_pattern", "alpha_pattern"])
def test_names_in_a_config_are_not_tried_on_each_module_one_after_the_other(field) -> None:
    modules, names = range(300), [f"name{number}" for number in range(3000)]
    config: dict[str, Any] = {"peft_type": "LORA", "r": 1}
    config[field] = names if field == "modules_to_save" else dict.fromkeys(names, 2)
    specs = [
        (f"m.{module}.lora_{half}.weight", "F32", shape)
        for module in modules
        for half, shape in (("A", (1, 0)), ("B", (0, 1)))
    ]
    header = tensors.parse_header(tensors.write_header(specs))
    profile = cProfile.Profile()
    adapter = profile.runcall(parametric.check, json.dumps(config).encode(), header)
    profile.runcall(lambda: [adapter.config.scale_of(one.path) for one in adapter.modules])
    assert len(adapter.modules) == len(modules)
    assert sum(called.callcount for called in profile.getstats()) < len(modules) * len(names) / 4


def test_of_what_a_config_wants_to_replace_only_what_its_file_holds_is_copied(
    lora, answers
) -> None:
    config = lora / adapter_config.CONFIG_FILE
    layers = ["norm", "embed_tokens", "q_norm", *(f"layers.{n}.mlp.act_fn" for n in range(9))]
    wanted = {**json.loads(config.read_text()), "modules_to_save": layers}
    config.write_text(json.dumps(wanted))
    fresh = model_of()
    before = footprint(fresh)
    for _ in range(2):  # by peft, and in the slot that it built
        with mount_lora(lora, fresh):
            assert {type(module).__name__ for module in fresh.modules()}.isdisjoint(
                {"ModulesToSaveWrapper"}
            )
            assert torch.equal(logits(fresh), answers)
        assert footprint(fresh) == before


def test_a_module_of_another_shape_is_not_put_in_the_place_of_the_models(model, lora) -> None:
    written(lora, [*PAIR, ("base_model.model.lm_head.weight", "F32", (1, 1))])
    config = lora / adapter_config.CONFIG_FILE
    config.write_text(
        json.dumps({**json.loads(config.read_text()), "modules_to_save": ["lm_head"]})
    )
    with pytest.raises(InvalidTensorsError, match="all of lm_head"):
        mount_lora(lora, model)
