"""A model and its tokenizer from the folder of a checkpoint, safetensors only."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from memcube_protocol.errors import InvalidRequestError, MissingDependencyError, NotFoundError

_CONFIG: Final = "config.json"


def load_checkpoint(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer of the checkpoint in `folder`.

    Raises:
        NotFoundError: there is no such folder, or no checkpoint in it.
        InvalidRequestError: transformers cannot load it.
        MissingDependencyError: torch or transformers is not installed.
    """
    if not folder.is_dir():
        raise NotFoundError(
            f"no such folder: {str(folder)[:200]}", hint="--model takes the folder of a checkpoint"
        )
    if not (folder / _CONFIG).is_file():
        raise NotFoundError(
            f"{str(folder)[:200]} holds no model: it has no {_CONFIG}",
            hint="name the folder of a checkpoint, as save_pretrained of transformers writes it",
        )
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"a model needs the package {error.name!r}", hint="pip install 'memcube[torch]'"
        ) from None
    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # a bar is for people; in a log it is noise
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
        return model, AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        why = str(error).strip().partition("\n")[0][:400]
        raise InvalidRequestError(
            f"the model in {str(folder)[:200]} cannot be loaded: {why}",
            hint="it takes config.json, safetensors and a tokenizer, of a kind that transformers knows",
        ) from error
