"""A model and its tokenizer from the folder of a checkpoint, safetensors only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from memcube_protocol.errors import MissingDependencyError, NotFoundError


def load_checkpoint(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer of the checkpoint in `folder`.

    Raises:
        NotFoundError: there is no such folder.
        MissingDependencyError: torch or transformers is not installed.
    """
    if not folder.is_dir():
        raise NotFoundError(
            f"no such folder: {str(folder)[:200]}", hint="--model takes the folder of a checkpoint"
        )
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"a model needs the package {error.name!r}", hint="pip install 'memcube[torch]'"
        ) from None
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    return model, AutoTokenizer.from_pretrained(folder)
