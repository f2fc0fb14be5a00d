"""MemDumper: writes memories into a cube folder: from texts, chats, a live model, a PeftModel.

dumper = MemDumper("my-cube", name="alice/notes")
dumper.add_records(["Ada is vegetarian."])
dumper.add_kv(model, tokenizer, memory_id="handbook", text=handbook)
dumper.add_kv(model, tokenizer, memory_id="monday", messages=chat)
dumper.add_lora(peft_model, memory_id="style")
memcube.push("my-cube")
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from memcube_protocol import canonical_json
from memcube_protocol.errors import InvalidRecordError, NotFoundError
from memcube_protocol.records import Record, parse_record, write_record

from memcube.importers.foreign import id_of_text
from memcube.memories.plaintext.embedders import LSA
from memcube.packing.contents import read_files
from memcube.packing.draft import FILE_NAME, Draft
from memcube.packing.embedding import VECTORS, Embedded, Embedding
from memcube.packing.kinds import DEFAULT_VERSION, name_of_folder
from memcube.packing.layout import Layout
from memcube.packing.scan import scan
from memcube.store.files import replace_file, storage_errors

RECORDS: Final = "plaintext/records.jsonl"
Told = Record | Mapping[str, Any] | str
"""A record, the fields of one, or a bare text."""


class MemDumper:
    """Writes into the cube folder `folder`, which is made where it is absent.

    `name` and `version` go into a new `memcube.toml`; an existing one is left as it is.

    Raises:
        InvalidConfigError: `name` or `version` is malformed, or the existing file is.
        StorageError: the folder cannot be written.
    """

    def __init__(
        self, folder: Path | str, *, name: str | None = None, version: str = DEFAULT_VERSION
    ) -> None:
        self.folder = Path(folder)
        toml = self.folder / FILE_NAME
        with storage_errors(f"{self.folder} cannot be written"):
            self.folder.mkdir(parents=True, exist_ok=True)
            if not toml.exists():
                name = name or name_of_folder(self.folder)
                text = f"name = {json.dumps(name)}\nversion = {json.dumps(version)}\n"
                Draft.parse(text.encode())
                replace_file(toml, text.encode())
        Draft.parse(toml.read_bytes())

    def add_records(self, told: Iterable[Told]) -> Path:
        """Add records to `plaintext/records.jsonl`; one of the same id replaces what is there.

        Raises:
            InvalidRecordError, InvalidJsonError, LimitExceededError: one breaks a rule; none is added.
        """
        # A text is an iterable of texts, its letters, and a mapping one of its keys.
        if isinstance(told, str | Mapping):
            raise InvalidRecordError(
                "records are added as a list, and this is a single one",
                hint="write add_records([…])",
            )
        path = self.folder / RECORDS
        records = {record.id: record for record in _read(path)}
        records |= {record.id: record for record in map(record_of, told)}
        lines = b"".join(write_record(record) + b"\n" for record in records.values())
        with storage_errors(f"{path} cannot be written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, lines)
        return path

    def add_kv(self, model: Any, tokenizer: Any, *, memory_id: str, **options: Any) -> Path:
        """Add the KV cache of a text, a chat, token ids, or a live cache of one of them.

        See `memories.activation.dump.dump_kv`.
        """
        from memcube.memories.activation.dump import dump_kv

        return dump_kv(model, tokenizer, folder=self.folder, memory_id=memory_id, **options)

    def add_lora(self, source: Any, *, memory_id: str, **options: Any) -> Path:
        """Add the adapter of a PeftModel or of a PEFT folder; see `memories.parametric.dump.dump_lora`."""
        from memcube.memories.parametric.dump import dump_lora

        return dump_lora(source, self.folder, memory_id=memory_id, **options)

    def add_vectors(self, embedder: object = LSA) -> Embedded:
        """Embed the folder's records; the vectors go into `plaintext/vectors`.

        `embedder` is an embedder, or what `memories.plaintext.plugins.embedder_of` takes. LSA, which
        needs no model, is fitted to the records and travels along with the vectors.

        Raises:
            InvalidConfigError: the folder is no cube folder that would pack.
            NotFoundError: the folder has no records, or there is no such embedder.
            InvalidError: the embedder makes no vectors; or the records share too few words for LSA.
            MissingDependencyError: what the embedder needs is not installed.
            RuleRefusedError: the cube's texts are to stay on this machine, and the embedder is elsewhere.
        """
        draft = Draft.parse((self.folder / FILE_NAME).read_bytes())
        found = Layout.of(scan(self.folder, ignore=draft.ignore)).records
        if not found:
            raise NotFoundError(f"{self.folder} holds no records", hint=f"write some to {RECORDS}")
        return Embedding(embedder).write(self.folder / VECTORS, draft, lambda: read_files(found))


def record_of(told: Told) -> Record:
    """The record that `told` is or describes; a text gets an id made of its words.

    Raises:
        InvalidRecordError, InvalidJsonError, LimitExceededError: it breaks a rule.
    """
    if isinstance(told, Record):
        return replace(told)
    if isinstance(told, str):
        return Record(id=id_of_text(told), text=told)
    if not isinstance(told, Mapping):
        raise InvalidRecordError(
            f"a record is a text or a mapping of fields, not {type(told).__name__}",
            hint="see docs/spec/records.md for every field of a record",
        )
    return parse_record(canonical_json.dump(dict(told)))


def _read(path: Path) -> Iterable[Record]:
    from memcube_protocol.records import read_lines

    from memcube.packing.scan import open_plain

    try:
        with open_plain(path) as stream:
            yield from read_lines(stream, what=RECORDS)
    except NotFoundError:
        return
