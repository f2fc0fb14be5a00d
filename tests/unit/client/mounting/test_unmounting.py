"""What was mounted leaves no trace: unmounted, refused half-way, or cancelled at any line."""

from __future__ import annotations

import gc
import importlib
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from memcube.client import Client
from memcube.dumper import MemDumper
from memcube.mounting import MountedMemory
from memcube.mounting.baseline import Baseline
from memcube.overlay import Overlay
from memcube.settings import Settings
from memcube_protocol.errors import ConflictError, MemcubeError
from support.models import model_of, text_of, tokenizer_of

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytest.importorskip("qdrant_edge")
# peft asks transformers for a property under its old name, and names the adapters that a model has.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing:FutureWarning", "ignore::UserWarning:peft"
)
LAYERS = {"num_hidden_layers": 1}
PLACES = ("memcube.mounting", "memcube.memories.param", "peft")
A_WHILE_S = 0.3
"""So long an unmount gets to come too early; it gets nothing done by being slow."""
CANCELLED = 15
"""At how many lines, evenly spread over a mount and its unmount."""


def adapted(base: Any, name: str = "default", seed: int = 1) -> Any:
    """`base` with a LoRA whose weights are not zero."""
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return peft.get_peft_model(base, config, adapter_name=name)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("unmounting")
    environ = {"MEMCUBE_HOME": str(home / "home"), "MEMCUBE_KEYRING": "0"}
    with Client(Settings.load(environ)) as client:
        dumper = MemDumper(home / "cube", name="alice/notes", version="1.0.0")
        dumper.add_records(["The ferry to Hiiumaa leaves at nine."])
        model = adapted(model_of(**LAYERS))
        dumper.add_lora(model, memory_id="style")
        dumper.add_kv(model, tokenizer_of(), memory_id="handbook", text=text_of(12))
        client.pack(dumper.folder)
        with client.mount("alice/notes", model=model_of(**LAYERS), tokenizer=tokenizer_of()):
            pass  # indexes and folders are made once
        yield client


def plain() -> Any:
    model = model_of(**LAYERS)
    model.model.embed_tokens.weight.requires_grad_(False)
    return model.train()


def with_earlier_adapters() -> Any:
    model = adapted(model_of(**LAYERS), "first")
    torch.manual_seed(7)
    model.add_adapter(
        "second", peft.LoraConfig(r=3, target_modules=["k_proj"], init_lora_weights=False)
    )
    model.set_adapter("first")
    return model


MODELS = pytest.mark.parametrize("make", [plain, with_earlier_adapters])


def looks(model: Any) -> dict[str, Any]:
    """All that an unmount must bring back: the very objects, and every value to the bit."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {
        "modules": [(name, type(m), id(m), m.training) for name, m in model.named_modules()],
        "attributes": sorted(vars(base)),
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "tensors": [(n, id(t), t.requires_grad) for n, t in model.named_parameters()],
        "values": {name: t.clone() for name, t in model.state_dict().items()},
        "adapters": list(getattr(model, "peft_config", {})),
        "active": list(model.active_adapters) if isinstance(model, peft.PeftModel) else None,
    }


def assert_untouched(model: Any, before: dict[str, Any]) -> None:
    now = looks(model)
    values, was = now.pop("values"), before["values"]
    assert now == {name: value for name, value in before.items() if name != "values"}
    assert list(values) == list(was)
    for name, value in values.items():
        assert torch.equal(value, was[name]), name


@MODELS
def test_unmounting_leaves_the_model_as_it_was(client: Client, make: Callable[[], Any]) -> None:
    model = make()
    before = looks(model)
    filters = ["kind=parametric,plaintext"]
    for _ in range(2):
        with client.mount("alice/notes", model=model, tokenizer=tokenizer_of(), filters=filters):
            assert looks(model)["modules"] != before["modules"]
        assert_untouched(model, before)


@pytest.mark.parametrize(
    ("make", "fails"),
    [
        (plain, "memories.activation.mount.mount_kv"),
        (plain, "mounting.loading.CubeRecords"),
        (with_earlier_adapters, "mounting.loading.CubeRecords"),
    ],
)
def test_a_mount_that_fails_half_way_leaves_the_model_as_it_was(
    client: Client, make: Callable[[], Any], fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise MemcubeError("the disk is gone")

    monkeypatch.setattr(f"memcube.{fails}", broken)
    model = make()
    before = looks(model)
    filters = ["kind=parametric,plaintext"] if make is with_earlier_adapters else []
    with pytest.raises(MemcubeError, match="the disk is gone"):
        client.mount("alice/notes", model=model, tokenizer=tokenizer_of(), filters=filters)
    assert_untouched(model, before)


class Interruption:
    """Ctrl-C at the n-th line that memcube or peft runs; `lines` counts them."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.lines = 0

    def __enter__(self) -> Interruption:
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_globals.get("__name__", "")
        return self._line if name.startswith(PLACES) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        self.lines += event == "line"
        if self.lines == self.at:
            sys.settrace(None)
            signal.raise_signal(signal.SIGINT)
        return self._line


@MODELS
def test_a_mount_that_is_cancelled_at_any_line_leaves_the_model_as_it_was(
    client: Client, make: Callable[[], Any]
) -> None:
    tokenizer, filters = tokenizer_of(), ["kind=parametric"]

    def mount_and_unmount(model: Any) -> None:
        client.mount("alice/notes", model=model, tokenizer=tokenizer, filters=filters).close()

    mount_and_unmount(make())
    with Interruption(None) as counted:
        mount_and_unmount(make())
    assert counted.lines > 100
    cancelled = 0
    for at in range(1, counted.lines, max(counted.lines // CANCELLED, 1)):
        model = make()
        before = looks(model)
        try:
            with Interruption(at):
                mount_and_unmount(model)
        except KeyboardInterrupt:
            cancelled += 1
        assert_untouched(model, before)
    assert cancelled > CANCELLED // 2


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (plain, "parametric.mount.mount_lora"),
        (plain, "activation.mount.mount_kv"),
        (with_earlier_adapters, "parametric.mount.mount_lora"),
    ],
)
def test_ctrl_c_between_a_memory_and_the_way_to_take_it_off_leaves_nothing(
    client: Client, make: Callable[[], Any], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, function = where.rpartition(".")
    original = getattr(importlib.import_module(f"memcube.memories.{module}"), function)

    def mounted_and_interrupted(*arguments: Any, **options: Any) -> Any:
        original(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(f"memcube.memories.{where}", mounted_and_interrupted)
    model = make()
    before = looks(model)
    with pytest.raises(KeyboardInterrupt):
        client.mount("alice/notes", model=model, tokenizer=tokenizer_of())
    assert_untouched(model, before)


def test_what_a_library_borrowed_of_torch_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    own = torch.nn.Module.register_parameter
    monkeypatch.setattr(torch.nn.Module, "register_parameter", own)
    baseline = Baseline(model_of(**LAYERS))
    torch.nn.Module.register_parameter = lambda *_: None
    baseline.restore()
    assert torch.nn.Module.register_parameter is own


def test_what_was_mounted_is_freed(client: Client) -> None:
    """Empty slots may stay for the next adapter; tensors may not."""
    model, tokenizer = model_of(**LAYERS), tokenizer_of()
    own = set(map(id, model.parameters()))
    memory = client.mount("alice/notes", model=model, tokenizer=tokenizer)
    cache = memory.new_cache()
    held = [weakref.ref(cache.layers[0].keys)]
    held += [weakref.ref(tensor) for tensor in model.parameters() if id(tensor) not in own]
    assert len(held) == 5
    del cache
    memory.close()
    gc.collect()
    alive = [tensor for one in held if (tensor := one()) is not None and not tensor.is_meta]
    assert sum(tensor.nbytes for tensor in alive) == 0


class Streamer:
    """A streamer of transformers that does something once, when the answer has begun."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._acts = [act]

    def put(self, _value: Any) -> None:
        while self._acts:
            self._acts.pop()()

    def end(self) -> None:
        pass


class Unmounting:
    """Another thread that unmounts `memory` from `begin` on; how it ended stands in `closed`."""

    def __init__(self, memory: MountedMemory) -> None:
        self.closed = threading.Event()
        self._thread = threading.Thread(target=self._close, args=[memory])

    def begin(self) -> None:
        self._thread.start()
        self.closed.wait(A_WHILE_S)

    def _close(self, memory: MountedMemory) -> None:
        memory.close()
        self.closed.set()

    def end(self) -> None:
        self._thread.join()
        assert self.closed.is_set()


def test_a_question_that_is_under_way_is_answered_before_the_memory_is_unmounted(
    client: Client,
) -> None:
    model = plain()
    before = looks(model)
    memory = client.mount("alice/notes", model=model, tokenizer=tokenizer_of())
    asked = {"context": "", "max_new_tokens": 4}
    answer = memory.generate("w1 w2", **asked)
    unmounting = Unmounting(memory)
    assert memory.generate("w1 w2", streamer=Streamer(unmounting.begin), **asked) == answer
    unmounting.end()
    assert_untouched(model, before)
    with pytest.raises(ConflictError, match="unmounted"):
        memory.generate("w1 w2", **asked)


def test_another_memory_of_the_model_is_unmounted_after_the_answer_too(client: Client) -> None:
    model, tokenizer = plain(), tokenizer_of()
    mounted = partial(client.mount, "alice/notes", model=model, tokenizer=tokenizer)
    with mounted(filters=["kind=plaintext"]) as own:
        asked = {"context": "", "max_new_tokens": 4}
        other = mounted(filters=["kind=parametric"])
        answer, unmounting = own.generate("w1 w2", **asked), Unmounting(other)
        assert own.generate("w1 w2", streamer=Streamer(unmounting.begin), **asked) == answer
        unmounting.end()


def test_a_search_that_is_under_way_finds_before_the_memory_is_unmounted(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from memcube.memories.plaintext.index import PlaintextIndex

    memory = client.mount("alice/notes")
    unmounting, search, records = Unmounting(memory), PlaintextIndex.search, memory.records()

    def searched(*given: Any, **options: Any) -> Any:
        unmounting.begin()
        return search(*given, **options)

    monkeypatch.setattr(PlaintextIndex, "search", searched)
    assert [hit.record.text for hit in memory.search("ferry")] == [
        "The ferry to Hiiumaa leaves at nine."
    ]
    unmounting.end()
    with pytest.raises(ConflictError, match="unmounted"):
        next(records)


def test_records_that_are_gone_through_end_with_the_memory(client: Client, tmp_path: Path) -> None:
    overlay = Overlay.open(tmp_path / "own")
    overlay.remember("Another one.")
    memory = client.mount("alice/notes", overlay=overlay)
    records = memory.records()
    assert next(records).cube == "own"
    memory.close()
    with pytest.raises(ConflictError, match="unmounted"):
        next(records)


def test_a_cache_that_was_not_used_yet_says_that_its_memory_is_unmounted(client: Client) -> None:
    model = plain()
    memory = client.mount("alice/notes", model=model, tokenizer=tokenizer_of())
    cache = memory.new_cache()
    memory.close()
    with pytest.raises(ConflictError, match="unmounted"):
        model(torch.tensor([[1, 2]]), past_key_values=cache)


def test_nobody_unmounts_in_the_middle_of_the_own_question(client: Client) -> None:
    mounted = partial(client.mount, "alice/notes", model=plain(), tokenizer=tokenizer_of())
    with mounted() as memory:
        acts: list[Callable[[], Any]] = [
            memory.close,
            lambda: memory.adapters.switch([]),
            lambda: mounted(filters=["kind=plaintext"]),
        ]
        for act in acts:
            with pytest.raises(ConflictError, match="this very thread"):
                memory.generate("w1", context="", max_new_tokens=2, streamer=Streamer(act))
        assert memory.generate("w1", context="", max_new_tokens=2)


def test_the_records_of_a_mounted_cube_end_with_its_memory(client: Client) -> None:
    """Past the memory as well: their file is closed, and what has its number next is another file."""
    with client.mount("alice/notes", filters=["kind=plaintext"]) as memory:
        records = memory.cubes[0].records
        assert records is not None
        record = next(records.records())
        begun = records.records()
        assert records.search("ferry", 1, None)
    for ask in (
        lambda: records.search("ferry", 1, None),
        lambda: records.read(record.id),
        lambda: list(records.records()),
        lambda: list(begun),
    ):
        with pytest.raises(ConflictError, match="unmounted"):
            ask()
