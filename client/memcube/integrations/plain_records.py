"""Records as plain values for other frameworks, whose prompts are not ours to fence."""

from __future__ import annotations

from typing import Any

from memcube_protocol.records import Record, to_json

from memcube.memories.plaintext.context import neutralise


def plain(record: Record) -> dict[str, Any]:
    """What `record` says, as JSON, without its id and what other systems keep in it.

    Every text is made harmless for a prompt: control tokens broken, hidden characters shown.
    """
    said = {name: value for name, value in to_json(record).items() if name not in _LEFT_OUT}
    harmless: dict[str, Any] = _harmless(said)
    return harmless


_LEFT_OUT = ("id", "extensions")


def _harmless(value: Any) -> Any:
    if isinstance(value, str):
        return neutralise(value)
    if isinstance(value, list | tuple):
        return [_harmless(one) for one in value]
    if isinstance(value, dict):
        return {name: _harmless(one) for name, one in value.items()}
    return value
