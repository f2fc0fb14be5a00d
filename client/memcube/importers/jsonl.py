"""Records from JSON Lines: MIP records as they are, and objects of any other making.

An object that is not a record needs a text (`text`, `content` or `memory`); an id is made from the
text where there is none, and fields without a place go under `extensions.jsonl`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from memcube_protocol.errors import InvalidRecordError, MemcubeError, NotFoundError
from memcube_protocol.records import TYPES, Record, parse_record, split_lines

from memcube.importers.foreign import Foreign, clean, id_of_text, record_id
from memcube.importers.report import Imported, ImportReport

SYSTEM: Final = "jsonl"
_TEXTS: Final = ("text", "content", "memory")
_TIMES: Final = ("created_at", "updated_at", "valid_from", "valid_to", "recorded_at", "expires_at")


def read_jsonl(path: Path, chosen: Sequence[Path] | None = None) -> Imported:
    """Records of the file `path`, or of every `*.jsonl` below the folder `path`, in order of names.

    `chosen` are files below `path` to read instead, whatever they are called.

    Raises:
        NotFoundError: there is no such file, or none in the folder.
        InvalidRecordError: a line holds no record and cannot become one; it names the line.
        LimitExceededError: a line of more than 1 MiB.
    """
    found = chosen if chosen is not None else path.rglob("*.jsonl")
    files = sorted(found) if path.is_dir() else [path]
    files = [file for file in files if file.is_file() and not file.is_symlink()]
    if not files:
        raise NotFoundError(f"{path} holds no .jsonl file", hint="look at the path")
    report = ImportReport(SYSTEM)
    return Imported(_records(files, report), report)


def _records(files: list[Path], report: ImportReport) -> Iterator[Record]:
    for file in files:
        with file.open("rb") as lines:
            for number, line in enumerate(split_lines(lines, what=file.name), 1):
                if not line.strip():
                    continue
                try:
                    record = _record(line, report)
                except MemcubeError as error:
                    raise type(error)(
                        f"{file.name}, line {number}: {error}", hint=error.hint
                    ) from None
                report.records += 1
                yield record


def _record(line: bytes, report: ImportReport) -> Record:
    try:
        return parse_record(line)
    except MemcubeError:
        adopted = _adopted(line, report)
        if adopted is None:
            raise
        return adopted


def _adopted(line: bytes, report: ImportReport) -> Record | None:
    """A record made from an object of another system, or None if it has no text."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    foreign = Foreign(SYSTEM, values, report)
    key = next((key for key in _TEXTS if isinstance(values.get(key), str) and values[key]), None)
    if key is None:
        return None
    if key != "text":
        report.note(f"{key} is taken for the text")
    return _mapped(foreign, clean(foreign.take(key)))


def _mapped(foreign: Foreign, text: str) -> Record:
    own_id = foreign.take("id")
    if isinstance(own_id, int) and not isinstance(own_id, bool):
        own_id = str(own_id)
    if own_id is not None and not isinstance(own_id, str):
        raise InvalidRecordError("its id is not a string", hint="write ids as strings")
    identity = record_id(own_id) if own_id else id_of_text(text)
    kind = foreign.take("type")
    if not isinstance(kind, str) or kind not in TYPES:
        foreign.keep("type", kind)
        kind = "fact"
    fields: dict[str, Any] = {key: foreign.time(key) for key in _TIMES}
    return Record(
        id=identity,
        text=text,
        type=kind,
        subject=foreign.text("subject"),
        tags=foreign.texts("tags"),
        entities=foreign.texts("entities"),
        confidence=foreign.confidence("confidence"),
        extensions=foreign.extensions(identity),
        **fields,
    )
