"""A folder that is no checkpoint is refused in words that help; a log gets no progress bars."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from memcube.memories.checkpoint import load_checkpoint
from memcube_protocol.errors import InvalidRequestError, NotFoundError
from support.models import model_of, tokenizer_of

pytest.importorskip("torch")


def test_a_folder_without_a_model_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such folder"):
        load_checkpoint(tmp_path / "absent")
    (tmp_path / "notes.md").write_text("tea")
    with pytest.raises(NotFoundError, match=r"no config\.json") as caught:
        load_checkpoint(tmp_path)
    assert "save_pretrained" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "config",
    [{}, {"model_type": "of-another-world"}, {"model_type": "qwen3"}],
    ids=["no-kind", "unknown-kind", "no-weights"],
)
def test_a_checkpoint_that_cannot_be_loaded_says_why(
    tmp_path: Path, config: dict[str, str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidRequestError, match=r"cannot be loaded: \S") as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)
    assert "safetensors" in (caught.value.hint or "")


def test_no_bars_are_written_where_no_terminal_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model_of(num_hidden_layers=1).save_pretrained(tmp_path)
    tokenizer_of().save_pretrained(tmp_path)
    capfd.readouterr()
    model, tokenizer = load_checkpoint(tmp_path)
    assert model.config.num_hidden_layers == 1
    assert len(tokenizer) > 0
    assert "Loading" not in capfd.readouterr().err
