"""Numbers that are none are found in the tensors of a folder, and an adapter with one is not packed."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube.packing import tensor_files
from memcube.packing.contents import Contents
from memcube.packing.layout import Layout
from memcube.packing.scan import scan
from memcube.packing.tensor_files import find_not_finite
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidTensorsError
from support.lora import A, config_bytes, lora_file


class Refusing:
    """A store of a folder that is refused before anything of it is kept."""

    def add(self, content: object) -> tuple[Digest, int]:
        raise AssertionError("nothing is kept")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_an_adapter_whose_training_came_to_nothing_is_not_packed(
    tmp_path: Path, value: str
) -> None:
    folder = tmp_path / "cube" / "parametric" / "style"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_bytes(config_bytes())
    (folder / "adapter_model.safetensors").write_bytes(lora_file(value=float(value)))
    with pytest.raises(InvalidTensorsError, match="holds NaN or infinity") as caught:
        Contents(Refusing(), {}).add_folder(  # type: ignore[arg-type]
            Layout.of(scan(tmp_path / "cube")), lambda _: None
        )
    assert f"parametric/style/adapter_model.safetensors: {A} " in str(caught.value)
    assert "train it anew" in str(caught.value.hint)


@given(
    st.lists(st.floats(width=16), min_size=1, max_size=40),
    st.sampled_from([("F16", "e"), ("F32", "f"), ("F64", "d"), ("BF16", "f")]),
)
def test_the_first_number_that_is_none_is_found(
    numbers: list[float], kind: tuple[str, str]
) -> None:
    dtype, letter = kind
    content = struct.pack(f"<{len(numbers)}{letter}", *numbers)
    if dtype == "BF16":  # the upper half of each float
        content = b"".join(content[at + 2 : at + 4] for at in range(0, len(content), 4))
    wanted = next((at for at, one in enumerate(numbers) if one - one != 0), None)
    assert find_not_finite(BytesIO(b"head" + content), 4, 4 + len(content), dtype) == wanted


def test_large_numbers_are_numbers_and_places_count_through_all_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tensor_files, "_PIECE_BYTES", 8)
    largest = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
    numbers = [largest, -largest, 1.5, largest, float("inf")]
    content = struct.pack("<5f", *numbers)
    assert find_not_finite(BytesIO(content), 0, 16, "F32") is None
    assert find_not_finite(BytesIO(content), 0, 20, "F32") == 4
    assert find_not_finite(BytesIO(b"\xff" * 16), 0, 16, "U8") is None
