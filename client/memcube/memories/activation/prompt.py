"""What a KV memory is made of: a text, a chat, or token ids, and how text became ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Final

from memcube_protocol.errors import InvalidConfigError
from memcube_protocol.values import frozen

from memcube.memories.activation.chat import Message, chat_template_hash, render_chat
from memcube.memories.activation.key import special_tokens
from memcube.memories.control_tokens import require_words

GIVEN: Final = "given"
"""The special-token policy of a memory that was made from token ids."""
BARE: Final = "bare"
"""The policy of a text that is tokenised as it stands, a chat among them: its template wrote all tokens."""


@frozen
class Prompt:
    """Token ids, the text that they stand for where there is one, and the policy that made them.

    `information` is for people: it goes into the manifest and decides nothing.
    """

    ids: tuple[int, ...]
    policy: str = GIVEN
    text: str | None = None
    information: Mapping[str, Any] = field(default_factory=dict[str, Any])


def prompt_of(
    tokenizer: Any,
    *,
    text: str | None = None,
    token_ids: Sequence[int] | None = None,
    messages: Sequence[Message] | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_special_tokens: bool = True,
    control_tokens: bool = False,
) -> Prompt:
    """The prompt that is given: exactly one of a text, token ids, and the messages of a chat.

    `control_tokens` takes a text that spells some: a chat template wrote it.

    Raises:
        InvalidConfigError: none or several are given, the messages cannot be rendered, or the text spells
            a control token.
        UnsupportedError: the tokenizer has no chat template.
    """
    if sum(each is not None for each in (text, token_ids, messages)) != 1:
        raise InvalidConfigError(
            "a KV memory is made from a text, from token ids, or from the messages of a chat",
            hint="give exactly one of them",
        )
    if token_ids is not None:
        return Prompt(tuple(token_ids))
    if messages is not None:
        rendered = render_chat(tokenizer, messages, tools=tools)
        told = {"chatTemplate": str(chat_template_hash(tokenizer, tools=tools))}
        return Prompt(ids_of_text(tokenizer, rendered, BARE), BARE, rendered, told)
    assert text is not None
    if not control_tokens:
        require_words(text, tokenizer)
    policy = special_tokens(tokenizer, added=add_special_tokens)
    return Prompt(ids_of_text(tokenizer, text, policy), policy, text)


def ids_of_text(tokenizer: Any, text: str, policy: str) -> tuple[int, ...]:
    """The token ids of `text` under the special-token `policy` of a key."""
    return tuple(tokenizer(text, add_special_tokens=policy != BARE)["input_ids"])
