"""Plaintext memories of a MemOS cube folder: naive_text, general_text, tree_text and pref_text.

The shapes are told apart by their content. `textual_memory.json` and the preference file are read;
the activation pickle is named in the report and never opened; vectors stay out.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from memcube_protocol import limits
from memcube_protocol.errors import (
    InvalidJsonError,
    MemcubeError,
    NotFoundError,
    UnsafePathError,
)
from memcube_protocol.paths import require_safe
from memcube_protocol.records import TYPES, Record, Relation, Source

from memcube.importers.foreign import Foreign, clean, id_of_text, record_id, without_secrets
from memcube.importers.json_items import items
from memcube.importers.report import Imported, ImportReport

SYSTEM: Final = "memos"
CONFIG: Final = "config.json"
_TEXT_FILE: Final = "textual_memory.json"
_STATUSES: Final = {
    "activated": "active",
    "resolving": "pending",
    "archived": "archived",
    "deleted": "deleted",
}
_SENSITIVITIES: Final = {"public": "public", "session": "internal", "private": "confidential"}
_PICKLES: Final = (".pickle", ".pkl", ".pt", ".bin")
_SLUG: Final = re.compile(r"[^a-z0-9._-]+")
_DECODE_DEPTH: Final = 8

_Edges = Mapping[str, tuple[Relation, ...]]


def is_memos(folder: Path) -> bool:
    """Whether `folder` looks like a MemOS cube."""
    return (folder / _TEXT_FILE).is_file()


def read_memos(folder: Path) -> Imported:
    """Records of the MemOS cube in `folder`, in the order of its files.

    Raises:
        NotFoundError: the folder holds no textual memory.
        InvalidJsonError, LimitExceededError: a file is damaged or not of MemOS.
        UnsafePathError: its config names a file outside the folder.
    """
    report = ImportReport(SYSTEM)
    config = _read_config(folder, report)
    files = _memory_files(folder, config)
    if not files:
        raise NotFoundError(
            f"{folder} holds no textual memory of MemOS",
            hint=f"choose the folder with {CONFIG} and {_TEXT_FILE}",
        )
    for path in sorted(folder.iterdir()):
        _report_unread(path, files, report)
    return Imported(_records(files, report), report)


def decode(value: Any, depth: int = 0) -> Any:
    """`value` with JSON inside strings decoded, however often it was encoded (8 times at most)."""
    if isinstance(value, list):
        return [decode(item, depth) for item in value]
    if not isinstance(value, str) or value[:1] not in ('"', "{", "[") or depth >= _DECODE_DEPTH:
        return value
    try:
        return decode(json.loads(value), depth + 1)
    except (ValueError, RecursionError):
        return value


def _read_config(folder: Path, report: ImportReport) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        content = file.read(limits.CONFIG_BYTES + 1)
    limits.require_at_most(CONFIG, len(content), limits.CONFIG_BYTES)
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidJsonError(
            f"{CONFIG} is not JSON: {str(error)[:200]}", hint="export the cube once more"
        ) from None
    if not isinstance(config, dict):
        raise InvalidJsonError(f"{CONFIG} is not an object", hint="export the cube once more")
    report.settings = without_secrets(config, report, CONFIG)
    return report.settings


def _memory_files(folder: Path, config: Mapping[str, Any]) -> list[Path]:
    """Files of text and preference memories that exist: as the config names them, else by default."""
    names: dict[str, None] = {}
    for part in ("text_mem", "pref_mem"):
        settings = config.get(part)
        inner = settings.get("config") if isinstance(settings, dict) else None
        name = inner.get("memory_filename") if isinstance(inner, dict) else None
        if isinstance(name, str):
            names[require_safe(name)] = None
    names.setdefault(_TEXT_FILE)
    found: list[Path] = []
    for name in names:
        path = folder / name
        if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
            raise UnsafePathError(
                f"{name} is a link out of the folder", hint="copy the file into the folder"
            )
        if path.is_file():
            found.append(path)
    return found


def _report_unread(path: Path, files: list[Path], report: ImportReport) -> None:
    if path in files or path.name == CONFIG:
        return
    if path.suffix in _PICKLES:
        report.refuse(
            f"{path.name}: a pickle runs code when it is opened, so it never is; "
            "dump the KV cache anew from its text and model"
        )
    else:
        report.skip(f"{path.name}: not a plaintext memory")


def _records(files: list[Path], report: ImportReport) -> Iterator[Record]:
    for path in files:
        edges = _read_edges(path, report)
        for position, (key, item) in enumerate(items(path)):
            if key not in ("", "nodes", "collection"):
                continue
            record = _record(item, edges, f"{path.name}, item {position}", report)
            if record is not None:
                report.records += 1
                yield record


def _read_edges(path: Path, report: ImportReport) -> _Edges:
    """Relations by the id of the record that they start from."""
    edges: dict[str, list[Relation]] = defaultdict(list)
    for key, item in items(path):
        if key != "edges":
            continue
        try:
            relation = Relation(type=item["type"].lower(), target=record_id(item["target"]))
            known = edges[record_id(item["source"])]
        except (TypeError, KeyError, AttributeError):
            report.skip(f"{path.name}: an edge without source, target and type")
            continue
        if relation not in known:
            known.append(relation)
    return {source: tuple(relations) for source, relations in edges.items()}


def _record(item: Any, edges: _Edges, where: str, report: ImportReport) -> Record | None:
    """The record of one item, or None, with the reason in the report."""
    fields = item.get("payload", item) if isinstance(item, dict) else None
    if not isinstance(fields, dict):
        report.skip(f"{where}: not an object")
        return None
    text = fields.get("memory")
    if not isinstance(text, str) or not text.strip():
        report.skip(f"{where}: no text")
        return None
    if item is not fields and isinstance(item.get("vector"), list):
        report.vectors += 1
    try:
        return _mapped(fields, clean(text), edges, report)
    except MemcubeError as error:
        report.skip(f"{where}: {error}")
        return None


def _mapped(fields: Mapping[str, Any], text: str, edges: _Edges, report: ImportReport) -> Record:
    metadata = fields.get("metadata")
    foreign = Foreign(SYSTEM, metadata if isinstance(metadata, dict) else {}, report)
    for key, value in fields.items():
        if key not in ("id", "memory", "metadata"):
            foreign.keep(f"item.{key}", value)
    own_id = fields.get("id")
    identity = record_id(own_id) if isinstance(own_id, str) and own_id else id_of_text(text)
    if isinstance(own_id, str) and own_id != identity:
        foreign.keep("item.id", own_id)
    if foreign.take("embedding"):
        report.vectors += 1
    sources = foreign.take("sources")
    if sources:
        foreign.keep("sources", decode(sources))
    values = _values(foreign)
    relations = edges.get(identity, ())
    return Record(
        id=identity,
        text=text,
        relations=relations,
        extensions=foreign.extensions(identity),
        **values,
    )


def _values(foreign: Foreign) -> dict[str, Any]:
    """Fields of a record that MemOS's metadata fills."""
    source = Source(
        system=SYSTEM, conversation=foreign.text("session_id"), method=foreign.text("source")
    )
    return {
        "type": _type(foreign),
        "created_at": foreign.time("created_at"),
        "updated_at": foreign.time("updated_at"),
        "source": source,
        "tags": foreign.texts("tags"),
        "entities": foreign.texts("entities"),
        "confidence": foreign.confidence("confidence"),
        "sensitivity": _translated(foreign, "visibility", _SENSITIVITIES),
        "status": _translated(foreign, "status", _STATUSES),
        "version": _version(foreign),
    }


def _type(foreign: Foreign) -> str:
    value = foreign.text("type")
    if value is None:
        return "fact"
    if value in TYPES:
        return value
    slug = _SLUG.sub("-", value.lower()).strip("-._")[:64]
    if slug != value:
        foreign.keep("type", value)
    return f"{SYSTEM}:{slug}" if slug else "fact"


def _translated(foreign: Foreign, key: str, words: Mapping[str, str]) -> str | None:
    """Our word for MemOS's; a word that we do not know is kept as it is."""
    value = foreign.text(key)
    if value is not None and value not in words:
        foreign.keep(key, value)
    return words.get(value or "")


def _version(foreign: Foreign) -> int | None:
    value = foreign.take("version")
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**53:
        return value
    foreign.keep("version", value)
    return None
