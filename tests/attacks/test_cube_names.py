"""Files whose names say something else than their types: other programs go by the name."""

import pytest
from memcube_protocol import media_types
from memcube_protocol.cube import CubeFile
from memcube_protocol.digest import Digest
from memcube_protocol.errors import ForbiddenMediaTypeError, UnsafePathError


def named(path: str, media_type: str) -> CubeFile:
    return CubeFile(path, media_type, Digest.of(b"x"), 1)


@pytest.mark.parametrize("media_type", sorted(media_types.LAYERS))
@pytest.mark.parametrize(
    "name",
    [
        "parametric/a/adapter_model.bin",
        "parametric/a/adapter_model.pt",
        "parametric/a/modeling_evil.py",
        "parametric/a/tokenizer.pkl",
        "attachments/run.sh",
        "attachments/page.html",
        "attachments/picture.svg",
        "attachments/sheet.xlsm",
        "Makefile",
        "sitecustomize.py",
        "safetensors",
    ],
)
def test_no_type_lets_a_file_be_called_what_other_programs_would_run(
    name: str, media_type: str
) -> None:
    with pytest.raises(ForbiddenMediaTypeError) as caught:
        named(name, media_type)
    assert caught.value.hint


@pytest.mark.parametrize(
    "path", [".git/config.json", ".vscode/tasks.json", "a/.mcp.json", ".hidden/README.md"]
)
def test_nothing_hidden_is_in_a_cube(path: str) -> None:
    with pytest.raises(UnsafePathError, match="hidden"):
        named(path, media_types.ATTACHMENT)


def test_types_are_not_swapped() -> None:
    with pytest.raises(ForbiddenMediaTypeError):
        named("parametric/a/adapter_model.safetensors", media_types.LORA_CONFIG)
    with pytest.raises(ForbiddenMediaTypeError):
        named("parametric/a/adapter_config.json", media_types.LORA)
