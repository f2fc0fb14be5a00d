"""A real model of sentence-transformers, tiny and made here: embeds, fills a cube, mounts, searches."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from memcube.client import Client
from memcube.dumper import Embedded, MemDumper
from memcube.memories.plaintext.embedders import FunctionEmbedder, is_alike, probe
from memcube.memories.plaintext.index import PlaintextIndex
from memcube.memories.plaintext.plugins import embedder_of
from memcube.memories.plaintext.vectors import CarriedVectors
from memcube.settings import Settings
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidError
from memcube_protocol.vectors import indexed_text
from support.memories import note

PLACE = Path("/usr/local/lib/sentence-transformers")
MISSING = "sentence-transformers is not installed: .ci/sentence-transformers"
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("qdrant_edge")
if find_spec("sentence_transformers") is None and not PLACE.is_dir():
    pytest.skip(MISSING, allow_module_level=True)

WIDTH = 32
NAME = "tiny-bert"
WORDS = "the ferry boat leaves at nine coffee tea is in cupboard road over sea frozen a any drink"
ALIKE = {"boat": "ferry", "drink": "coffee", "tea": "coffee"}
"""Words of one meaning: to the model they are the same token, and to BM25 they are not."""
RECORDS = [
    note(1, "The ferry leaves at nine."),
    note(2, "Coffee is in the cupboard."),
    note(3, "The road over the sea is frozen."),
]


@pytest.fixture(scope="module", autouse=True)
def _found() -> Iterator[None]:
    """The library is found for as long as this module runs."""
    known, before = set(sys.modules), list(sys.path)
    if find_spec("sentence_transformers") is None:
        sys.path.append(str(PLACE))
    yield
    sys.path[:] = before
    for name in set(sys.modules) - known:
        if name.partition(".")[0] == "sentence_transformers":
            del sys.modules[name]


def save(folder: Path, seed: int, *, width: int = WIDTH) -> Path:
    """A BERT of one layer with random weights and mean pooling, saved as the library saves it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS.split()]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = BertTokenizerFast(vocab=vocabulary)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=64,
    )
    torch.manual_seed(seed)
    bert = BertModel(config)
    _join(bert, vocabulary)
    bert.save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"), max_seq_length=64)
    model = SentenceTransformer(
        modules=[transformer, Pooling(width)],
        prompts={"query": "any ", "document": ""},
        device="cpu",
    )
    model.save(str(folder / NAME), create_model_card=False)
    return folder / NAME


def _join(bert: Any, vocabulary: Mapping[str, int]) -> None:
    """Let words of one meaning have one embedding, and what is no word nearly none."""
    with torch.no_grad():
        table = bert.embeddings.word_embeddings.weight
        table.mul_(50)
        bert.embeddings.position_embeddings.weight.zero_()
        for word, meant in ALIKE.items():
            table[vocabulary[word]] = table[vocabulary[meant]]
        for word in ("[CLS]", "[SEP]", ".", "the", "a", "any", "is", "at", "in"):
            table[vocabulary[word]] = 0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model"), seed=0)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the same name with other weights: the model after another training."""
    return save(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture(scope="module")
def wider(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("wider"), seed=0, width=2 * WIDTH)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("home")
    with Client(Settings.load({"MEMCUBE_HOME": str(home), "MEMCUBE_OFFLINE": "1"})) as made:
        yield made


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, model: Path, client: Client) -> Embedded:
    """The vectors of the cube `alice/harbour`, which the client's store holds."""
    dumper = MemDumper(tmp_path_factory.mktemp("cube"), name="alice/harbour", version="1.0.0")
    dumper.add_records(RECORDS)
    made = dumper.add_vectors(model)
    client.pack(dumper.folder)
    return made


def said_by(client: Client, folder: Path) -> str:
    """What a mount with the model in `folder` says that it searches with."""
    with client.mount("alice/harbour:1.0.0", embedder=str(folder)) as memory:
        (step,) = [step for step in memory.steps if "record" in step.why]
        return step.why


def test_records_are_embedded_as_the_library_embeds_them(model: Path, embedded: Embedded) -> None:
    from sentence_transformers import SentenceTransformer

    own = SentenceTransformer(str(model), local_files_only=True)
    with CarriedVectors(embedded.path) as carried:
        assert (embedded.embedder, carried.file.width, embedded.count) == (NAME, WIDTH, 3)
        for record in RECORDS:
            text = indexed_text(record)
            assert carried.find(text) == pytest.approx(own.encode_document(text), abs=1e-5)


def test_questions_are_embedded_with_the_models_own_prompt_for_them(model: Path) -> None:
    from sentence_transformers import SentenceTransformer

    own, embedder = SentenceTransformer(str(model), local_files_only=True), embedder_of(model)
    assert not isinstance(embedder, str)
    assert embedder is not None
    asked = embedder.query("ferry")[0]
    assert asked == pytest.approx(own.encode("any ferry"), abs=1e-5)
    assert asked != pytest.approx(embedder.texts(["ferry"])[0], abs=1e-3)


def test_a_mount_with_the_model_uses_the_cubes_vectors_and_finds_by_meaning(
    client: Client, model: Path, embedded: Embedded
) -> None:
    assert embedded.count == 3
    with client.mount("alice/harbour:1.0.0", embedder=str(model)) as memory:
        assert memory.search("a boat", 1)[0].record.text == "The ferry leaves at nine."
        assert memory.search("drink", 1)[0].record.text == "Coffee is in the cupboard."
        assert memory.search("frozen", 1)[0].record.text == "The road over the sea is frozen."
    with client.mount("alice/harbour:1.0.0") as memory:
        assert memory.search("boat") == []
    assert f"the cube's own, by the embedder named ({NAME})" in said_by(client, model)


def test_a_model_with_other_weights_under_the_same_name_is_noticed(
    client: Client, embedded: Embedded, other: Path
) -> None:
    assert other.name == embedded.embedder
    why = said_by(client, other)
    assert f"vectors by {NAME}, made here: the cube's are by {NAME}, which embeds otherwise" in why


def test_an_index_of_the_model_before_is_built_anew(
    tmp_path: Path, model: Path, other: Path
) -> None:
    for folder in (model, other):
        embedder = embedder_of(folder)
        assert not isinstance(embedder, str)
        assert embedder is not None
        with PlaintextIndex.open(
            tmp_path, Digest.of(b"c"), lambda: RECORDS, embedder=embedder
        ) as index:
            assert index.search("a boat", 1)[0].record.text == "The ferry leaves at nine."


def test_a_model_of_another_width_does_not_pass_for_the_cubes(
    client: Client, embedded: Embedded, model: Path, wider: Path
) -> None:
    one, two = embedder_of(model), embedder_of(wider)
    assert not isinstance(one, str)
    assert not isinstance(two, str)
    assert one is not None
    assert two is not None
    assert probe(two).shape == (3, 2 * WIDTH)
    assert not is_alike(probe(one), probe(two))
    assert embedded.embedder == wider.name
    assert "which embeds otherwise" in said_by(client, wider)


def test_a_question_of_another_width_than_the_index_is_refused(
    tmp_path: Path, model: Path, wider: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    texts = SentenceTransformer(str(model), local_files_only=True).encode
    questions = SentenceTransformer(str(wider), local_files_only=True).encode
    mixed = FunctionEmbedder(texts, name="mixed", query=questions)
    with (
        PlaintextIndex.open(tmp_path, Digest.of(b"c"), lambda: RECORDS, embedder=mixed) as index,
        pytest.raises(InvalidError, match=f"have {2 * WIDTH} numbers, those of the index {WIDTH}"),
    ):
        index.search("a boat")
