"""Vectors, servers and disks that are hostile, damaged or full: an error of ours, and no wrong record."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from memcube.demo.corpus import handbook
from memcube.memories.plaintext import vectors as plaintext_vectors
from memcube.memories.plaintext.edge import EdgeEngines
from memcube.memories.plaintext.embedders import FunctionEmbedder
from memcube.memories.plaintext.engine import Engine, Entry, Match
from memcube.memories.plaintext.index import Filters, PlaintextIndex
from memcube.memories.plaintext.lsa import LsaEmbedder
from memcube.memories.plaintext.vectors import CarriedVectors, write_vectors
from memcube.packing.contents import Contents
from memcube.packing.layout import Layout
from memcube.packing.scan import scan
from memcube_protocol import tensors
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    InvalidError,
    InvalidTensorsError,
    MemcubeError,
    NetworkError,
    StorageError,
)
from memcube_protocol.text import query_weights, term_id
from memcube_protocol.vectors import indexed_text
from support.memories import note

pytest.importorskip("qdrant_edge")
pytest.importorskip("scipy")
np = pytest.importorskip("numpy")

CUBE = Digest.of(b"a cube")
TEXTS = ["tea", "coffee", "a walk by the sea"]


def lengths(texts: list[str]) -> list[list[float]]:
    return [[float(len(text)), float(text.count("e")), 1.0] for text in texts]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A file by a model, and one that carries its embedder."""
    folder = tmp_path_factory.mktemp("made")
    write_vectors(folder / "model", FunctionEmbedder(lengths, name="model"), TEXTS)
    lsa = LsaEmbedder.fit(handbook())
    write_vectors(folder / "lsa", lsa, map(indexed_text, handbook()))
    return {name: (folder / name).read_bytes() for name in ("model", "lsa")}


def overwritten(content: bytes, tensor: str, first: bytes) -> bytes:
    header = tensors.parse_header(content)
    start, _ = header.range_of(header.tensor(tensor))
    return content[:start] + first + content[start + len(first) :]


def swapped(content: bytes, tensor: str, width: int) -> bytes:
    """`content` with the first two rows of `tensor`, of `width` bytes each, in the other order."""
    header = tensors.parse_header(content)
    start, _ = header.range_of(header.tensor(tensor))
    first, second = content[start : start + width], content[start + width : start + 2 * width]
    return overwritten(content, tensor, second + first)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("model", lambda held: swapped(held, "keys", 16)),
        ("model", lambda held: overwritten(held, "keys", held[-400:][:0] + b"\xff" * 16)),
        ("model", lambda held: overwritten(held, "probe", b"\x00\x00\xc0\x7f")),
        ("model", lambda held: held[:-1]),
        ("model", lambda held: held[:200]),
        ("model", lambda held: b""),
        ("model", lambda held: b"\x80\x04" + held),
        ("lsa", lambda held: swapped(held, "lsa.terms", 4)),
        ("lsa", lambda held: overwritten(held, "lsa.weights", b"\x00\x7e")),
        ("lsa", lambda held: overwritten(held, "lsa.weights", b"\x00\x7c")),
    ],
)
def test_a_damaged_file_of_vectors_is_refused_before_an_index_is_built(
    tmp_path: Path, made: dict[str, bytes], file: str, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "vectors"
    path.write_bytes(damage(made[file]))
    with pytest.raises(InvalidTensorsError) as caught:
        PlaintextIndex.open(
            tmp_path / "indexes",
            CUBE,
            handbook,
            vectors=[path],
            embedder=FunctionEmbedder(lengths, name="model") if file == "model" else None,
        )
    assert caught.value.hint
    assert [place for place in (tmp_path / "indexes").glob("*") if place.is_dir()] == []


@pytest.mark.parametrize("number", [b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\x00\x00\x80\xff"])
def test_a_vector_that_is_no_number_is_refused(
    tmp_path: Path, made: dict[str, bytes], number: bytes
) -> None:
    path = tmp_path / "vectors"
    path.write_bytes(overwritten(made["model"], "vectors", number))
    with CarriedVectors(path) as carried, pytest.raises(InvalidTensorsError, match="NaN"):
        [carried.find(text) for text in TEXTS]


def test_weights_that_add_up_to_infinity_for_a_question_of_their_choice_are_refused(
    tmp_path: Path,
) -> None:
    """The probes know none of the two words, so that nothing shows before somebody asks for them."""
    lsa = LsaEmbedder.fit(handbook())
    chosen = np.isin(lsa.terms, [*map(term_id, query_weights("radar zero"))])
    held = {
        "keys": np.zeros((0, 16), np.uint8),
        "vectors": np.zeros((0, lsa.width), np.float32),
        "lsa.terms": lsa.terms.astype("<u4"),
        "lsa.weights": np.where(chosen[:, None], np.float32(3e38), lsa.weights),
    }
    path = tmp_path / "vectors"
    plaintext_vectors._write(path, "lsa", held)
    with pytest.raises(InvalidTensorsError, match="beyond"):
        PlaintextIndex.open(tmp_path / "indexes", CUBE, handbook, vectors=[path])


def test_vectors_of_another_width_than_the_embedder_makes_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    write_vectors(
        path, FunctionEmbedder(lambda texts: [[1.0, 2.0]] * len(texts), name="two"), TEXTS
    )
    embedder = FunctionEmbedder(lengths, name="two")
    with PlaintextIndex.open(
        tmp_path / "i", CUBE, handbook, vectors=[path], embedder=embedder
    ) as index:
        assert "which embeds otherwise" in index.searched_with
        assert index.search("radar")


def test_a_file_that_holds_no_vectors_is_not_packed(tmp_path: Path) -> None:
    folder = tmp_path / "cube"
    (folder / "plaintext" / "vectors").mkdir(parents=True)
    (folder / "plaintext" / "records.jsonl").write_text('{"id":"a","text":"tea"}\n')
    start = tensors.write_header([("anything", "F32", (2,))])
    (folder / "plaintext" / "vectors" / "a.safetensors").write_bytes(start + bytes(8))

    class Refused:
        def add(self, content: object) -> tuple[Digest, int]:
            raise AssertionError("nothing is kept of a folder that is refused")

    with pytest.raises(InvalidTensorsError, match=r"plaintext/vectors/a\.safetensors"):
        Contents(Refused(), {}).add_folder(Layout.of(scan(folder)), lambda _: None)  # type: ignore[arg-type]


class LyingEngine:
    """A server that finds what it was not asked for: hidden, expired, or not there at all."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers

    def by_terms(self, *_: object) -> list[Match]:
        return [Match(number, float("nan") if number == 3 else 9.0) for number in self.numbers]

    by_vector = by_terms

    def holding(self, *_: object) -> list[int]:
        return self.numbers

    def close(self) -> None:
        """Nothing to do."""


class LyingEngines(EdgeEngines):
    variant = "server-liar"

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers

    def has(self, name: str) -> bool:
        return True

    def build(
        self, name: str, folder: Path, entries: Iterator[Entry], width: int
    ) -> frozenset[str]:
        return frozenset(field for entry in entries for field in entry.fields)

    def open(self, name: str, folder: Path) -> Engine:
        return LyingEngine(self.numbers)  # type: ignore[return-value]


def test_a_server_that_lies_shows_nothing_that_the_filters_keep_back(tmp_path: Path) -> None:
    records = [
        note(0, "tea"),
        note(1, "tea", sensitivity="restricted"),
        note(2, "tea", expires_at="2020-01-01T00:00:00Z"),
        note(3, "tea", tags=("wanted",)),
    ]
    now = datetime(2026, 1, 1, tzinfo=UTC)
    engines = LyingEngines([0, 1, 2, 3])
    with PlaintextIndex.open(tmp_path, CUBE, lambda: records, server=engines) as index:
        shown = index.search("tea", filters=Filters(sensitivity="public"), now=now)
        assert [hit.record.id for hit in shown] == [records[0].id, records[3].id]
        tagged = index.search("tea", filters=Filters(tags=["wanted"]), now=now)
        assert [hit.record for hit in tagged] == [records[3]]
        assert index.neighbours(note(0).id, now=now) == []


def test_a_server_that_names_what_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    for numbers in ([7], [-1], [2**63]):
        engines = LyingEngines(numbers)
        with (
            PlaintextIndex.open(tmp_path, CUBE, lambda: [note(0, "tea")], server=engines) as index,
            pytest.raises(StorageError),
        ):
            index.search("tea")


def test_lsa_that_is_fitted_here_is_not_searched_where_others_put_theirs(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="each machine"):
        PlaintextIndex.open(tmp_path, CUBE, handbook, embedder="lsa", server=LyingEngines([0]))


def test_a_server_that_does_not_answer_is_an_error_of_ours(tmp_path: Path) -> None:
    pytest.importorskip("qdrant_client")
    with pytest.raises(NetworkError) as caught:
        PlaintextIndex.open(tmp_path, CUBE, handbook, server="http://127.0.0.1:9")
    assert "MEMCUBE_QDRANT_TOKEN" in str(caught.value.hint)


@pytest.mark.parametrize(
    "url", ["http://qdrant.example:6333", "qdrant.example", "https://a:b@qdrant.example"]
)
def test_a_server_that_would_be_asked_unencrypted_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(MemcubeError, match="refused"):
        PlaintextIndex.open(tmp_path, CUBE, handbook, server=url)


FILLER = """
import json, sys
from pathlib import Path
from memcube.memories.plaintext.index import PlaintextIndex
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MemcubeError
from memcube_protocol.records import Record

def records():
    for number in range(400):
        yield Record(id=f"n-{number:05d}", text=" ".join(f"w{number * 7 + n}" for n in range(300)))

try:
    PlaintextIndex.open(Path(sys.argv[1]), Digest.of(b"a cube"), records).close()
except MemcubeError as error:
    print(json.dumps([error.code, error.hint]))
"""


def test_a_disk_that_fills_up_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=66m,mode=0700", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(["mount", *options], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("this machine has no mount")
    if mounted.returncode:
        pytest.skip("this user may not mount a tmpfs")
    try:
        said = subprocess.run(
            [sys.executable, "-c", FILLER, str(disk)], capture_output=True, text=True, check=True
        )
        assert json.loads(said.stdout)[0] == "disk-full"
        assert [path for path in disk.iterdir() if path.is_dir()] == []
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
