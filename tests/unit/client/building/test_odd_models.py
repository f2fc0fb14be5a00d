"""Builds for models that are unlike most: few positions, learned ones, a mark before every text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from memcube.building.asking import Asker, Prefix
from memcube.building.builder import Built
from memcube.building.extraction import confidence
from memcube.building.holding import held_builds
from memcube.building.planning import Order, Wanted
from memcube.client import Client
from memcube.dumper import MemDumper
from memcube.memories.activation.generation import generate
from memcube.settings import Settings
from memcube_protocol.errors import InvalidRequestError, LimitExceededError
from memcube_protocol.recipe import Question, Training
from memcube_protocol.records import Record
from support.models import model_of, text_of, tokenizer_of

WINDOW = 64
ASKED = (Question("w3 w4", "w5", "long"),)
PASSAGES = tuple(text_of(80, start) for start in range(4))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    for package in ("torch", "transformers", "peft"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("odd")
    dumper = MemDumper(folder / "cube", name="alice/odd", version="1.0.0")
    dumper.add_records([Record(id="long", text=text_of(40))])
    environ = {"MEMCUBE_HOME": str(folder / "home"), "MEMCUBE_KEYRING": "0"}
    with Client(Settings.load(environ)) as client:
        client.pack(dumper.folder)
        yield client


def gpt2(seed: int = 0) -> Any:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch").manual_seed(seed)
    shape = {"vocab_size": 80, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": WINDOW}
    config = transformers.GPT2Config(**shape, bos_token_id=None, eos_token_id=None)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def spelling() -> tuple[Any, Any]:
    """A model that reads and writes ASCII letter by letter, and its tokenizer."""
    tokenizers, transformers = (pytest.importorskip(one) for one in ("tokenizers", "transformers"))
    letters = ["Ġ", *map(chr, range(33, 127))]
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend)
    return model_of(vocab_size=len(letters), pad_token_id=None, initializer_range=0.2), tokenizer


def build(client: Client, folder: Path, kind: str, model: Any, tokenizer: Any) -> Built:
    unrelated = folder / "unrelated.txt"
    unrelated.write_text("\n".join(PASSAGES))
    wanted = Wanted(
        kind=kind,
        questions=ASKED,
        passages=PASSAGES,
        prompt="w1 {question} w2",
        render="plain",
        threads=1,
        training=Training(rank=2, alpha=4, steps=2) if kind == "parametric" else None,
    )
    order = Order(unrelated, accept=True)
    return client.build("alice/odd", wanted, model=model, tokenizer=tokenizer, order=order)


@pytest.mark.parametrize("kind", ["activation", "parametric"])
def test_no_text_is_longer_than_a_model_of_few_positions_reads(
    client: Client, tmp_path: Path, kind: str
) -> None:
    found = build(client, tmp_path, kind, gpt2(), tokenizer_of()).made.evaluation
    assert found
    assert found.perplexity
    assert all(math.isfinite(one) for one in found.perplexity)


def test_behind_a_memory_unrelated_text_begins_without_the_mark_of_a_beginning(
    client: Client, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    model, tokenizer = model_of(), tokenizer_of(bos=True)
    built = build(client, tmp_path, "activation", model, tokenizer)
    assert built.made.evaluation
    (mark, *_), records = tokenizer("w1")["input_ids"], tokenizer(text_of(40))["input_ids"]
    assert records[0] == mark
    for given, measured in zip(
        ([mark], records), built.made.evaluation.perplexity or (), strict=True
    ):
        losses = []
        for passage in PASSAGES[1::2]:
            ids = tokenizer(passage, add_special_tokens=False)["input_ids"]
            with torch.inference_mode():
                said = model(torch.tensor([[*given, *ids]])).logits[0].log_softmax(-1)
            losses += [-float(said[len(given) + at - 1, ids[at]]) for at in range(1, len(ids))]
        assert measured == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-3)
    assert Asker(model, tokenizer, "{question}").start == Prefix((mark,))


def test_an_answer_ends_where_the_model_has_no_further_position(client: Client) -> None:
    model, tokenizer = gpt2(), tokenizer_of()
    answer = generate(model, tokenizer, text_of(WINDOW - 4), max_new_tokens=100)
    assert len(answer.split()) == 5
    with client.mount("alice/odd", model=model, tokenizer=tokenizer) as memory:
        room = WINDOW - len(memory.prefix_ids)
        assert len(memory.generate(text_of(room), context="").split()) == 1
        with pytest.raises(LimitExceededError, match=f"the model reads {WINDOW}"):
            memory.generate(text_of(room + 1), context="")


def test_an_answer_ends_with_a_text_that_the_caller_names() -> None:
    model, tokenizer = spelling()
    whole = generate(model, tokenizer, "hello", max_new_tokens=6)
    stopped = generate(model, tokenizer, "hello", max_new_tokens=6, stop_strings=[whole[0]])
    assert (stopped, len(whole) > 1) == (whole[0], True)


def test_in_a_turn_of_its_own_an_answer_is_weighed_without_a_space_before_it() -> None:
    torch = pytest.importorskip("torch")
    model, tokenizer = spelling()
    tokenizer.chat_template = "{{ messages[0].content }}"
    (first, second), question = tokenizer("ab")["input_ids"], tokenizer("w?")["input_ids"]
    with torch.inference_mode():
        said = model(torch.tensor([[*question, first]])).logits[0].log_softmax(-1)
    wanted = math.exp(float(said[-2, first] + said[-1, second]) / 2)
    found = confidence(Asker(model, tokenizer, "chat"), Question("w?"), "ab")
    assert found == pytest.approx(wanted, abs=1e-3)
    assert found != pytest.approx(
        confidence(Asker(model, tokenizer, "{question}"), Question("w?"), "ab"), abs=1e-3
    )


@pytest.mark.parametrize("bos", [True, False])
def test_an_empty_question_behind_a_memory_is_refused_with_words(
    client: Client, tmp_path: Path, bos: bool
) -> None:
    model, tokenizer = model_of(), tokenizer_of(bos=bos)
    build(client, tmp_path, "activation", model, tokenizer)
    with client.mount("alice/odd", model=model, tokenizer=tokenizer) as memory:
        assert memory.prefix_ids
        with pytest.raises(InvalidRequestError, match="no token"):
            memory.generate("", context="")


def test_an_adapter_of_the_shape_of_gpt2_is_mounted_and_changes_what_the_model_says(
    client: Client, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    model, tokenizer = gpt2(seed=1), tokenizer_of()
    built = build(client, tmp_path, "parametric", model, tokenizer)
    held = held_builds(client.context, client.open("alice/odd").cube.digest)
    assert built.build.digest in {one.build.digest for one in held}
    ids = torch.tensor([tokenizer("w1 w2 w3")["input_ids"]])
    before = model(ids).logits
    with client.mount("alice/odd", model=model, tokenizer=tokenizer):
        assert not torch.equal(model(ids).logits, before)
    assert torch.equal(model(ids).logits, before)
