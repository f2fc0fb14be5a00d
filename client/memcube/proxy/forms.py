"""The three forms of a request to a model, and where memory goes in each.

    chat/completions   prefix: first system message      records: last message of the user
    responses          prefix: start of `instructions`   records: last input of the user
    completions        prefix, records, then the prompt

The records stand with the question that they were looked up for, not before it in the system
message: so everything up to the last question stays as it was in the turn before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from memcube_protocol import limits
from memcube_protocol.errors import InvalidRequestError

from memcube.proxy.addition import Addition

Json = dict[str, Any]
Form = Callable[[Json, Addition], Json]
"""A request with what is added to it; the one given is left as it is."""

QUESTION_CHARS: Final = 8192
"""Of a longer question, records are looked up for its end."""

PROMPTS: Final = 256
"""Prompts of one request: each is looked up for."""

_LEADING_ROLES: Final = ("system", "developer")
_PLAIN, _TYPED = "text", "input_text"


def chat(request: Json, addition: Addition) -> Json:
    """See the module; a caller's own system message follows the prefix.

    Raises:
        InvalidRequestError: `messages` are none.
    """
    messages = _messages(request.get("messages"), "messages")
    if addition.prefix:
        if messages and messages[0].get("role") in _LEADING_ROLES:
            messages[0] = _with_text(messages[0], addition.prefix, _PLAIN)
        else:
            messages.insert(0, {"role": "system", "content": addition.prefix})
    return {**request, "messages": _with_records(messages, addition, _PLAIN)}


def responses(request: Json, addition: Addition) -> Json:
    """See the module.

    Raises:
        InvalidRequestError: `input` or `instructions` are of another kind.
    """
    given = request.get("input")
    if isinstance(given, str):
        changed: Any = _joined(_looked_up(given, addition), given)
    elif given is None:
        changed = None
    else:
        changed = _with_records(_messages(given, "input"), addition, _TYPED)
    request = {**request} if changed is None else {**request, "input": changed}
    if addition.prefix:
        own = request.get("instructions")
        if own is not None and not isinstance(own, str):
            raise _invalid("instructions is not a text")
        request["instructions"] = _joined(addition.prefix, own or "")
    return request


def completion(request: Json, addition: Addition) -> Json:
    """See the module; each of several prompts gets its own records.

    Raises:
        InvalidRequestError: the prompt is made of token ids, to which no text can be added.
        LimitExceededError: more than 256 prompts: others would wait for the records of all of them.
    """
    prompt = request.get("prompt")
    several: list[Any] = prompt if isinstance(prompt, list) else [prompt]
    limits.require_at_most("request", len(several), PROMPTS, unit="prompts")
    if not several or not all(isinstance(one, str) for one in several):
        raise _invalid("prompt is not a text, nor a list of texts")
    made = [_joined(addition.prefix, _looked_up(one, addition), one) for one in several]
    return {**request, "prompt": made if isinstance(prompt, list) else made[0]}


FORMS: Final[Mapping[str, Form]] = {
    "chat/completions": chat,
    "completions": completion,
    "responses": responses,
}


def _with_records(messages: list[Json], addition: Addition, part_type: str) -> list[Json]:
    """`messages`, the last one of the user with the records that answer it."""
    place = max(
        (at for at, message in enumerate(messages) if message.get("role") == "user"), default=None
    )
    if place is not None:
        records = _looked_up(_text_of(messages[place].get("content")), addition)
        if records:
            messages[place] = _with_text(messages[place], records, part_type)
    return messages


def _looked_up(question: str, addition: Addition) -> str:
    return addition.look_up(question[-QUESTION_CHARS:]) if question.strip() else ""


def _with_text(message: Json, text: str, part_type: str) -> Json:
    """`message` with `text` before its content, which is a text or a list of parts."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return {**message, "content": _joined(text, content or "")}
    if isinstance(content, list):
        return {**message, "content": [{"type": part_type, "text": f"{text}\n\n"}, *content]}
    raise _invalid("a message's content is neither a text nor a list of parts")


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


def _messages(value: Any, name: str) -> list[Json]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise _invalid(f"{name} is not a list of messages")
    return list(value)


def _joined(*texts: str) -> str:
    return "\n\n".join(filter(None, texts))


def _invalid(why: str) -> InvalidRequestError:
    return InvalidRequestError(why, hint="send what the OpenAI API takes at this address")
