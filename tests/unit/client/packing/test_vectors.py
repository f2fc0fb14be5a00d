"""Vectors that are no numbers are refused where a cube is packed, and the record is named."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from memcube.packing import vectors as packed_vectors
from memcube.packing.contents import Contents
from memcube.packing.layout import Layout
from memcube.packing.scan import FoundFile, scan
from memcube.store import Store
from memcube_protocol import tensors, vectors
from memcube_protocol.digest import Digest
from memcube_protocol.errors import ConflictError, InvalidTensorsError
from memcube_protocol.records import Record, write_record
from memcube_protocol.vectors import VectorFile

RECORDS = [Record(id=f"r{n}", text=text) for n, text in enumerate(("tea", "coffee", "a walk"))]
NONE = (float("nan"), float("inf"), float("-inf"))


class Refusing:
    """A store of a folder that is refused before anything of it is kept."""

    def add(self, content: object) -> tuple[Digest, int]:
        raise AssertionError("nothing is kept")


def folder_of(root: Path, rows: list[list[float]], *, probe: float = 1.0) -> Path:
    """A cube folder with a vector of two numbers for each of `RECORDS`, in the order of their keys."""
    place = root / "cube" / "plaintext" / "vectors"
    place.mkdir(parents=True)
    lines = b"\n".join(map(write_record, RECORDS))
    (place.parent / "records.jsonl").write_bytes(lines)
    keys = sorted(vectors.key_of(vectors.indexed_text(record)) for record in RECORDS)
    described = [
        ("keys", "U8", (len(keys), 16)),
        ("vectors", "F32", (len(rows), 2)),
        ("probe", "F32", (3, 2)),
    ]
    start = tensors.write_header(described, {"memcube.vectors": "1", "embedder": "mine"})
    numbers = [number for row in rows for number in row] + [probe] * 6
    content = start + b"".join(keys) + struct.pack(f"<{len(numbers)}f", *numbers)
    (place / "mine.safetensors").write_bytes(content)
    return root / "cube"


def refusal(folder: Path) -> InvalidTensorsError:
    with pytest.raises(InvalidTensorsError) as caught:
        Contents(Refusing(), {}).add_folder(Layout.of(scan(folder)), lambda _: None)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize("number", NONE, ids=str)
def test_a_vector_that_is_no_number_is_not_packed_and_its_record_is_named(
    tmp_path: Path, number: float
) -> None:
    by_key = sorted(RECORDS, key=lambda record: vectors.key_of(vectors.indexed_text(record)))
    error = refusal(folder_of(tmp_path, [[1.0, 2.0], [3.0, number], [5.0, 6.0]]))
    assert f"the vector of {by_key[1].id} holds NaN or infinity" in str(error)
    assert str(error).startswith("plaintext/vectors/mine.safetensors: ")
    assert "embed that text anew" in str(error.hint)


def test_what_an_embedder_is_known_by_is_looked_through_too(tmp_path: Path) -> None:
    error = refusal(folder_of(tmp_path, [[1.0, 2.0]] * 3, probe=float("nan")))
    assert "row 0 of probe" in str(error)


@pytest.mark.parametrize("piece_bytes", [1 << 20, 16])
@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1), (0, 1, 1)], ids=str)
def test_keys_that_do_not_ascend_are_not_packed(
    tmp_path: Path, order: tuple[int, ...], piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_vectors, "_PIECE_BYTES", piece_bytes)
    folder = folder_of(tmp_path, [[1.0, 2.0]] * 3)
    path = folder / "plaintext" / "vectors" / "mine.safetensors"
    content = path.read_bytes()
    start = tensors.parse_header(content).data_start
    keys = [content[start + 16 * place : start + 16 * (place + 1)] for place in order]
    path.write_bytes(content[:start] + b"".join(keys) + content[start + 48 :])
    error = refusal(folder)
    assert "keys do not ascend" in str(error)
    assert "sort the rows" in str(error.hint)


def test_terms_of_an_embedder_ascend_by_their_numbers(tmp_path: Path) -> None:
    for terms, sound in (((1, 255, 256), True), ((256, 255, 257), False)):
        folder = folder_of(tmp_path / str(sound), [[1.0, 2.0]] * 3)
        described = [
            ("keys", "U8", (0, 16)),
            ("vectors", "F16", (0, 1)),
            ("lsa.terms", "U32", (3,)),
            ("lsa.weights", "F16", (3, 1)),
        ]
        start = tensors.write_header(described, {"memcube.vectors": "1", "embedder": "lsa"})
        path = folder / "plaintext" / "vectors" / "mine.safetensors"
        path.write_bytes(start + struct.pack("<3I3e", *terms, 1.0, 2.0, 3.0))
        if sound:
            packed_vectors.require_sound(
                FoundFile("mine", path, path.stat().st_size),
                VectorFile.of(tensors.parse_header(path.read_bytes())),
                RECORDS,
            )
        else:
            assert "lsa.terms do not ascend" in str(refusal(folder))


def test_a_file_that_gets_shorter_while_it_is_looked_through_is_refused(tmp_path: Path) -> None:
    path = folder_of(tmp_path, [[1.0, 2.0]] * 3) / "plaintext" / "vectors" / "mine.safetensors"
    content = path.read_bytes()
    header = tensors.parse_header(content)
    for left in (header.data_start, header.data_start + 20):
        path.write_bytes(content[:left])
        with pytest.raises(InvalidTensorsError, match="ends within its keys"):
            packed_vectors.require_sound(
                FoundFile("mine", path, len(content)), VectorFile.of(header), RECORDS
            )


def test_a_file_that_changes_between_its_check_and_its_copy_is_not_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, check = folder_of(tmp_path, [[1.0, 2.0]] * 3), packed_vectors.require_sound

    def cut_afterwards(file: FoundFile, *given: Any) -> None:
        check(file, *given)
        file.location.write_bytes(file.location.read_bytes()[:-4])

    monkeypatch.setattr(packed_vectors, "require_sound", cut_afterwards)
    contents = Contents(Store(tmp_path / "store").blobs, {})
    with pytest.raises(ConflictError, match=r"mine\.safetensors was changed"):
        contents.add_folder(Layout.of(scan(folder)), lambda _: None)
