"""The folders that `memcube init` writes: each packs as it is and says what to change next."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from memcube_protocol.errors import ConflictError
from memcube_protocol.records import parse_record

from memcube.packing.draft import FILE_NAME, Draft
from memcube.store.files import storage_errors


class Template(NamedTuple):
    """What a new folder is for: its title, its records, and the next steps on its card.

    `promises` is a folder that is made empty for the memory still to come.
    """

    title: str
    records: tuple[Mapping[str, object], ...]
    steps: str
    promises: str | None = None


AGENT: Final = "agent"
"""The template of what is about a person."""

TEMPLATES: Final[Mapping[str, Template]] = {
    "expert": Template(
        "What an expert knows",
        (
            {
                "id": "backup-rule",
                "type": "fact",
                "text": "Keep three copies of important data, on two kinds of media, one elsewhere.",
                "tags": ["backup"],
            },
            {
                "id": "restore-drill",
                "type": "procedure",
                "text": "Test a backup by restoring it on another machine, and compare checksums.",
                "tags": ["backup"],
            },
        ),
        "Put one record a line into plaintext/records.jsonl: facts, procedures, skills.",
    ),
    AGENT: Template(
        "What an agent remembers of its user",
        (
            {
                "id": "answers-short",
                "type": "preference",
                "text": "The user wants short answers with the command first.",
                "subject": "user",
            },
            {
                "id": "moved-to-debian",
                "type": "event",
                "text": "The user moved the server to Debian 12.",
                "subject": "user",
                "created_at": "2026-01-15T10:00:00Z",
            },
        ),
        "Replace the records by your agent's own; see governance in memcube.toml before publishing.",
    ),
    "kv": Template(
        "A text that a model has read already",
        (
            {
                "id": "text",
                "type": "context",
                "text": "The text whose KV cache this cube carries, kept for models it does not fit.",
            },
        ),
        "Compute the cache with memcube.dump_kv(model, tokenizer, text=..., folder=...), into\n"
        "activation/<id>: manifest.json, tokens.u32 and kv.safetensors.",
        promises="activation",
    ),
    "lora": Template(
        "What a model was trained to know",
        (
            {
                "id": "text",
                "type": "context",
                "text": "What the adapter was trained on, kept for models it does not fit.",
            },
        ),
        "Save the adapter with model.save_pretrained('parametric/<id>'): it writes\n"
        "adapter_config.json and adapter_model.safetensors there.",
        promises="parametric",
    ),
}

_TOML: Final = """\
# What this cube says of itself. Every field: docs/spec/folder.md
name = {name}
version = "0.1.0"
title = {title}
# summary = "One or two sentences for the catalogue."

[descriptive]
languages = ["en"]
tags = []

[governance]
licence = "CC-BY-4.0"         # an SPDX id, or LicenseRef-… with licence_url
sensitivity = {sensitivity}      # public, internal, confidential, restricted
personal_data = {personal_data}        # none, pseudonymous, personal, special-category
redistribution = "allowed"    # allowed, same-licence, forbidden
# allowed_uses = ["research"]  # and expires_at, processing = "local": docs/spec/rules.md
"""

_RECORDS_TITLE: Final = """
[memories.plaintext]
title = "Records"
"""


def write_template(folder: Path, template: str, name: str) -> tuple[str, ...]:
    """Write the folder of `template` for the cube `name`; the paths written.

    A folder that holds something gets a memcube.toml and nothing else.

    Raises:
        ConflictError: `folder` holds a memcube.toml already.
        InvalidConfigError: `name` is not a cube's name.
        StorageError: it cannot be written.
    """
    is_filled = folder.is_dir() and any(folder.iterdir())
    if is_filled and os.path.lexists(folder / FILE_NAME):
        raise ConflictError(
            f"{folder} holds a {FILE_NAME} already", hint="edit that file, or name a new folder"
        )
    contents = _contents(TEMPLATES[template], template, name)
    if is_filled:
        contents = {FILE_NAME: _config(name, name, personal=template == AGENT)}
    Draft.parse(contents[FILE_NAME].encode())
    with storage_errors(f"{folder} cannot be written"):
        _write_all(folder, contents)
        if (promised := TEMPLATES[template].promises) and not is_filled:
            (folder / promised).mkdir()
    return tuple(contents)


def _write_all(folder: Path, contents: Mapping[str, str]) -> None:
    """Write each file, or none: half a template could not be begun again."""
    written: list[Path] = []
    try:
        for path, text in contents.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("x", encoding="utf-8", newline="\n") as stream:
                written.append(target)
                stream.write(text)
    except OSError:
        for target in written:
            target.unlink(missing_ok=True)
        raise


def agent_config(name: str) -> str:
    """The memcube.toml of the cube `name` that an agent fills: confidential, about a person."""
    return _config(name, name, personal=True)


def _config(name: str, title: str, *, personal: bool) -> str:
    return _TOML.format(
        name=json.dumps(name),
        title=json.dumps(title),
        sensitivity='"confidential"' if personal else '"public"',
        personal_data='"personal"' if personal else '"none"',
    )


def _contents(template: Template, kind: str, name: str) -> dict[str, str]:
    toml = _config(name, template.title, personal=kind == AGENT) + _RECORDS_TITLE
    card = (
        f"# {template.title}\n\nWhat this memory is, where it comes from, what it is good for.\n\n"
        f"## Next\n\n{template.steps}\n\nThen: `memcube push .`\n"
    )
    lines = [json.dumps(record, ensure_ascii=False) for record in template.records]
    for line in lines:
        parse_record(line.encode())
    return {
        FILE_NAME: toml,
        "README.md": card,
        "plaintext/records.jsonl": "\n".join(lines) + "\n",
    }
