"""A chat as text, by the model's own template: what a KV memory of a running conversation is made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    IncompatibleError,
    InvalidConfigError,
    MissingDependencyError,
    UnsupportedError,
)

from memcube.memories.control_tokens import control_tokens, find_control_token

Message = Mapping[str, Any]
"""One turn: `role`, `content`, and what else the template knows, such as `tool_calls`."""
_SHOWN_CHARS: Final = 200


def render_chat(
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = False,
) -> str:
    """The text of `messages` in the template of `tokenizer`, with the control tokens of its turns.

    Raises:
        UnsupportedError: the tokenizer has no template.
        InvalidConfigError: the template refuses these messages, or one spells a control token: it would
            begin a turn that nobody took.
        MissingDependencyError: jinja2, which templates are written in, is not installed.
    """
    chat_template_hash(tokenizer, tools=tools)
    _require_messages(messages)
    _require_plain(tokenizer, messages, tools)
    try:
        from jinja2.exceptions import TemplateError
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"chat templates need the package {error.name!r}", hint="pip install jinja2"
        ) from None
    try:
        text: str = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tools=list(tools) if tools else None,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
    except (TemplateError, ValueError, TypeError) as error:
        raise InvalidConfigError(
            f"the chat template refuses these messages: {str(error)[:_SHOWN_CHARS]}",
            hint="give the roles and fields that the model's template knows, in its order",
        ) from error
    return text


def next_turn(
    tokenizer: Any,
    before: str,
    messages: Sequence[Message],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> str:
    """What follows `before`, the text of a chat memory, when the chat has gone on to `messages`.

    It ends where the model's answer begins. Its ids, without special tokens, follow those of the memory.

    Raises:
        IncompatibleError: the chat does not begin with `before`, or the template writes its beginning
            otherwise now that more follows.
    """
    text = render_chat(tokenizer, messages, tools=tools, add_generation_prompt=True)
    if not text.startswith(before):
        raise IncompatibleError(
            "this chat does not begin as the memory does",
            hint="give all messages of the memory and then the new ones; some templates drop thoughts of "
            "earlier turns: dump such a chat without its last answer",
        )
    return text[len(before) :]


def chat_template_hash(
    tokenizer: Any, *, tools: Sequence[Mapping[str, Any]] | None = None
) -> Digest:
    """SHA-256 of the template that `tokenizer` renders chats with.

    Raises:
        UnsupportedError: it has none, or several and none of them is the default.
    """
    try:
        template: str = tokenizer.get_chat_template(tools=list(tools) if tools else None)
    except (AttributeError, ValueError):
        raise UnsupportedError(
            "this tokenizer has no chat template",
            hint="use the tokenizer of a chat model, or dump the text of the chat as you render it",
        ) from None
    return Digest.of(template.encode())


def _require_messages(messages: Sequence[Message]) -> None:
    shaped = all(isinstance(one, Mapping) and isinstance(one.get("role"), str) for one in messages)
    if isinstance(messages, str | bytes) or not messages or not shaped:
        raise InvalidConfigError(
            "a chat is a list of messages, each with a role and a content",
            hint='for example [{"role": "user", "content": "Hello"}]',
        )


def _require_plain(tokenizer: Any, messages: Sequence[Message], tools: object) -> None:
    """Refuse words that the tokenizer would take for the frame of the chat."""
    control = control_tokens(tokenizer)
    for position, message in enumerate([*messages, tools]):
        for words in _strings(message):
            if found := find_control_token(words, control):
                where = f"message {position}" if position < len(messages) else "a tool"
                raise InvalidConfigError(
                    f"{where} spells the control token {found!r}",
                    hint="take it out: the model would read it as the frame of a turn",
                )


def _strings(value: object) -> Iterator[str]:
    """Every string in `value`, names of fields too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _strings(name)
            yield from _strings(item)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for item in value:
            yield from _strings(item)
