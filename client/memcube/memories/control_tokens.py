"""Control tokens that a text spells: a model would read them as the frame of a turn, not as words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from memcube_protocol.errors import InvalidConfigError

from memcube.memories.plaintext.context import neutralise

_THOUGHTS: Final = frozenset({"<think>", "</think>"})
"""What assistants write themselves: the messages of an honest chat may hold them."""
_BROKEN: Final = {"<": "‹", "[": "⁅"}


def control_tokens(tokenizer: Any) -> frozenset[str]:
    """The tokens of `tokenizer` that frame turns: those that have a role, and those that were added as special.

    Many models add the frames of tools as ordinary tokens: those count by their looks.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    frames = (str(token) for token in added if token.special or _is_frame(str(token)))
    return frozenset({*tokenizer.all_special_tokens, *frames} - {""})


def _is_frame(token: str) -> bool:
    """Whether a token looks as the control tokens of chat templates do, and frames no thoughts."""
    return token not in _THOUGHTS and neutralise(token) != token


def find_control_token(text: str, control: Iterable[str]) -> str | None:
    """The first of `control`, in the order of the alphabet, that `text` spells."""
    return next((token for token in sorted(control) if token in text), None)


def require_words(text: str, tokenizer: Any) -> None:
    """Refuse a text that spells a control token of `tokenizer`.

    Raises:
        InvalidConfigError: names the token.
    """
    if found := find_control_token(text, control_tokens(tokenizer)):
        raise InvalidConfigError(
            f"the text spells the control token {found!r}: the model would read it as the frame of a turn",
            hint="take it out; if a chat template wrote it, say so with --control-tokens "
            "(control_tokens=True), or give the chat itself",
        )


def without_control_tokens(text: str, control: Iterable[str]) -> str:
    """`text` where every control token that it spells is broken, and reads nearly as before.

    Not those of one character, which some models have: they stand in every text.
    """
    for token in control:
        if len(token) > 1 and token in text:
            text = text.replace(token, _BROKEN.get(token[0], f"{token[0]} ") + token[1:])
    return text
