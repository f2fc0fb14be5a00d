"""Which place each file of a folder has in a cube (docs/spec/folder.md).

memcube.toml                          what a person edits; becomes the config
README.md                             the card
plaintext/*.jsonl, *.jsonl.zst        records; all of them are the memory `plaintext`
plaintext/vectors/<model>.safetensors vectors of those records
activation/<id>/                      manifest.json  tokens.u32  kv.safetensors
parametric/<id>/                      adapter_config.json  adapter_model.safetensors
attachments/                          images, audio, documents
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from memcube_protocol.config import PLAINTEXT
from memcube_protocol.cube import ATTACHMENT_TYPES
from memcube_protocol.errors import ForbiddenMediaTypeError, InvalidConfigError
from memcube_protocol.fields import closest

from memcube.packing.draft import FILE_NAME
from memcube.packing.scan import FoundFile

CARD: Final = "README.md"
ACTIVATION_FILES: Final = ("manifest.json", "tokens.u32", "kv.safetensors")
PARAMETRIC_FILES: Final = ("adapter_config.json", "adapter_model.safetensors")

_FOLDERS: Final = ("plaintext", "activation", "parametric", "attachments")
_PEFT_EXTRAS: Final = frozenset({"README.md", "training_args.json", "trainer_state.json"})
_SPLIT_ADAPTER: Final = "adapter_model.safetensors.index.json"


@dataclass(slots=True)
class Layout:
    """The files of a cube folder, each in its place; `left_out` are those that stay behind."""

    card: FoundFile | None = None
    records: list[FoundFile] = field(default_factory=list[FoundFile])
    vectors: list[FoundFile] = field(default_factory=list[FoundFile])
    activation: dict[str, dict[str, FoundFile]] = field(
        default_factory=lambda: defaultdict[str, dict[str, FoundFile]](dict)
    )
    parametric: dict[str, dict[str, FoundFile]] = field(
        default_factory=lambda: defaultdict[str, dict[str, FoundFile]](dict)
    )
    attachments: list[FoundFile] = field(default_factory=list[FoundFile])
    left_out: list[str] = field(default_factory=list[str])

    @classmethod
    def of(cls, files: Iterable[FoundFile]) -> Layout:
        """Layout of a cube folder.

        Raises:
            InvalidConfigError: a file has no place, a memory lacks one, or an id is used twice.
            ForbiddenMediaTypeError: an attachment of a kind that no cube may hold.
        """
        layout = cls()
        for file in files:
            layout._place(file)
        layout._require_whole()
        return layout

    def _place(self, file: FoundFile) -> None:
        parts = file.path.split("/")
        if file.path == FILE_NAME:
            return
        if file.path == CARD:
            self.card = file
        elif parts[0] == "attachments" and len(parts) > 1:
            require_attachment(file.path)
            self.attachments.append(file)
        elif parts[0] == "plaintext":
            self._place_plaintext(file, parts)
        elif parts[0] == "activation" and len(parts) == 3 and parts[2] in ACTIVATION_FILES:
            self.activation[parts[1]][parts[2]] = file
        elif parts[0] == "parametric" and len(parts) == 3:
            self._place_parametric(file, parts[1], parts[2])
        else:
            raise _homeless(file.path)

    def _place_plaintext(self, file: FoundFile, parts: list[str]) -> None:
        if len(parts) == 3 and parts[1] == "vectors" and file.path.endswith(".safetensors"):
            self.vectors.append(file)
        elif len(parts) == 2 and file.path.endswith((".jsonl", ".jsonl.zst")):
            self.records.append(file)
        else:
            raise _homeless(file.path)

    def _place_parametric(self, file: FoundFile, memory_id: str, name: str) -> None:
        if name in PARAMETRIC_FILES:
            self.parametric[memory_id][name] = file
        elif name in _PEFT_EXTRAS:
            self.left_out.append(file.path)
        elif name == _SPLIT_ADAPTER:
            raise InvalidConfigError(
                f"{file.path} splits the adapter over several files",
                hint="save it in one: model.save_pretrained(folder, max_shard_size='100GB')",
            )
        else:
            raise _homeless(file.path)

    def _require_whole(self) -> None:
        for folder, memories, wanted in (
            ("activation", self.activation, ACTIVATION_FILES),
            ("parametric", self.parametric, PARAMETRIC_FILES),
        ):
            for memory_id, files in memories.items():
                if missing := [name for name in wanted if name not in files]:
                    raise InvalidConfigError(
                        f"{folder}/{memory_id} lacks {', '.join(missing)}",
                        hint=f"a memory in {folder}/ is made of: {', '.join(wanted)}",
                    )
        ids = [*self.activation, *self.parametric] + [PLAINTEXT] * bool(self.records)
        if twice := sorted({memory_id for memory_id in ids if ids.count(memory_id) > 1}):
            raise InvalidConfigError(
                f"two memories are called {twice[0]!r}",
                hint="rename one folder: a memory's id is its folder's name, `plaintext` the records",
            )
        if not ids:
            raise InvalidConfigError(
                "the folder holds no memory",
                hint="put records into plaintext/records.jsonl, or see: memcube init --help",
            )
        if self.vectors and not self.records:
            raise InvalidConfigError(
                "plaintext/vectors holds vectors of records that are absent",
                hint="put the records into plaintext/records.jsonl",
            )


def require_attachment(path: str) -> str:
    """The media type of the attachment `path`, by its suffix.

    Raises:
        ForbiddenMediaTypeError: a kind that no cube may hold.
    """
    suffix = PurePosixPath(path).suffix.lower()
    if suffix not in ATTACHMENT_TYPES:
        raise ForbiddenMediaTypeError(
            f"{path} is not a kind of attachment that a cube may hold",
            hint=f"allowed: {' '.join(ATTACHMENT_TYPES)}",
        )
    return ATTACHMENT_TYPES[suffix]


def _homeless(path: str) -> InvalidConfigError:
    first = path.partition("/")[0]
    close = closest(first, _FOLDERS)
    meant = f"did you mean the folder {close!r}? " if close and close != first else ""
    if not meant and path.endswith(".jsonl"):
        meant = "move records into plaintext/; "
    return InvalidConfigError(
        f"{path} has no place in a cube",
        hint=f"{meant}move it into attachments/, or add it to `ignore` in {FILE_NAME}",
    )
