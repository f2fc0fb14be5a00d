"""What kind of folder somebody wants to pack: a cube folder, PEFT's, MemOS's, or notes.

| it holds | kind | becomes |
|---|---|---|
| memcube.toml | cube folder | what the file and the layout say |
| adapter_config.json | PEFT | one parametric memory |
| config.json of MemOS, or textual_memory.json | MemOS | its plaintext memory |
| JSON Lines, Markdown or plain text | notes | one plaintext memory; other files stay behind |

Notes may have a memcube.toml as well, and then attachments/.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from memcube_protocol import limits
from memcube_protocol.errors import InvalidConfigError, NotFoundError
from memcube_protocol.shards import Reuse
from memcube_protocol.values import frozen

from memcube.packing.contents import Contents
from memcube.packing.draft import FILE_NAME, Draft
from memcube.packing.layout import CARD, PARAMETRIC_FILES, Layout, require_attachment
from memcube.packing.scan import FoundFile, open_plain, refuse_pickle, scan

# What other systems write is read by code of its own, which a cube folder does without.
if TYPE_CHECKING:
    from memcube.importers import Imported, ImportReport
    from memcube.packing.sorting import RecordSorter

DEFAULT_VERSION: Final = "0.1.0"
_PICKLED_ADAPTER: Final = "adapter_model.bin"
_TEXTS: Final = frozenset((".md", ".txt"))
_NOTES: Final = _TEXTS | {".jsonl"}
_PLACES: Final = ("plaintext", "activation", "parametric")
_ATTACHED: Final = "attachments/"
_NAMED: Final = 20


@frozen
class Folder:
    """A folder about to be packed: its draft, and what fills a cube's contents from it.

    `notes` tell the user what was left out and why, once the contents are filled. `is_written` says
    that a memcube.toml holds the draft; else its version, too, may be a default.
    """

    draft: Draft
    fill: Callable[[Contents, Reuse], None]
    notes: Callable[[], tuple[str, ...]]
    is_written: bool = False


def open_folder(path: Path, *, name: str | None = None, version: str | None = None) -> Folder:
    """The folder at `path`, of whatever kind; `name` and `version` win over what it says.

    Raises:
        NotFoundError: there is no such folder.
        InvalidError, LimitExceededError: it is of no kind that can be packed, or breaks a rule.
    """
    if not path.is_dir():
        raise _no_folder(path)
    if (path / FILE_NAME).is_symlink() or (path / FILE_NAME).exists():
        return _cube_folder(path, name, version)
    draft = Draft(name or name_of_folder(path), version or DEFAULT_VERSION)
    names = {entry.name for entry in path.iterdir()}
    if PARAMETRIC_FILES[0] in names:
        return _peft_folder(path, draft)
    from memcube.importers import is_memos, read_memos

    if is_memos(path):
        return _imported(path, draft, (read_memos(path),))
    files = scan(path)
    if any(_suffix(file) in _NOTES for file in files):
        left_out = [file.path for file in files if _suffix(file) not in _NOTES]
        return _imported(path, draft, _notes(path, files), _left_behind(left_out))
    holds = f"holds {files[0].path}, but" if files else "is empty: it holds"
    raise InvalidConfigError(
        f"{path} {holds} no notes (.md, .txt, .jsonl) and no {FILE_NAME}, and is no PEFT folder or MemOS cube",
        hint=f"add notes, or write a {FILE_NAME} with: memcube init {path}",
    )


def _no_folder(path: Path) -> NotFoundError:
    if path.exists():
        return NotFoundError(
            f"{path} is a file, and a cube is packed from a folder",
            hint=f"put it into a folder of its own, or name the one it lies in: {path.parent}",
        )
    return NotFoundError(f"there is no folder {path}", hint="`memcube init DIR` makes one")


def name_of_folder(path: Path) -> str:
    """A cube's name made of a folder's."""
    words = re.findall(r"[a-z0-9]+", path.resolve().name.lower())
    return "-".join(words) or "cube"


def _cube_folder(path: Path, name: str | None, version: str | None) -> Folder:
    with open_plain(path / FILE_NAME) as stream:
        content = stream.read(limits.CONFIG_BYTES + 1)
    draft = Draft.parse(content)
    draft = replace(draft, name=name or draft.name, version=version or draft.version)
    files = scan(path, ignore=draft.ignore)
    if _are_notes(files):
        return replace(_notes_with_config(path, draft, files), is_written=True)
    layout = Layout.of(files)
    return replace(_laid_out(draft, layout, _promised(path, layout)), is_written=True)


def _are_notes(files: Sequence[FoundFile]) -> bool:
    """Whether files beside a memcube.toml are notes as people write them, none in a cube's places."""
    placed = any(file.path.partition("/")[0] in _PLACES for file in files)
    return not placed and any(
        _suffix(file) in _TEXTS and file.path != CARD and not file.path.startswith(_ATTACHED)
        for file in files
    )


def _notes_with_config(path: Path, draft: Draft, files: Sequence[FoundFile]) -> Folder:
    attached = [file for file in files if file.path.startswith(_ATTACHED)]
    others = [file for file in files if file not in attached and file.path != FILE_NAME]
    notes = [file for file in others if _suffix(file) in _NOTES]
    left_out = [file.path for file in others if _suffix(file) not in _NOTES]
    for file in attached:
        require_attachment(file.path)
    return _imported(path, draft, _notes(path, notes), _left_behind(left_out), attached)


def _promised(path: Path, layout: Layout) -> tuple[str, ...]:
    """Notes on the folders for memories that are there and empty, as templates make them."""
    return tuple(
        f"warning: {folder}/ is empty: the cube has no {folder} memory yet (see {CARD})"
        for folder, memories in (
            ("activation", layout.activation),
            ("parametric", layout.parametric),
        )
        if not memories and (path / folder).is_dir()
    )


def _left_behind(left_out: Sequence[str]) -> tuple[str, ...]:
    lines = [
        f"left out {name}: put it under {_ATTACHED} of a folder with {FILE_NAME}"
        for name in left_out[:_NAMED]
    ]
    more = len(left_out) - _NAMED
    return (*lines, f"left out {more} more files") if more > 0 else tuple(lines)


def _peft_folder(path: Path, draft: Draft) -> Folder:
    """A folder that PEFT or a trainer saved: the adapter and its card; all else is left out.

    Trainers save optimisers and arguments as pickles beside the adapter: they are not even read.
    """
    memory_id = name_of_folder(path)[:64].strip("-")
    names = sorted(entry.name for entry in path.iterdir())
    others = [name for name in names if name not in (*PARAMETRIC_FILES, CARD)]
    adapter = scan(path, ignore=map(glob.escape, others))
    if _PICKLED_ADAPTER in others and PARAMETRIC_FILES[1] not in names:
        refuse_pickle(FoundFile(_PICKLED_ADAPTER, path / _PICKLED_ADAPTER, 0))
    layout = Layout.of(
        replace(file, path=f"parametric/{memory_id}/{file.path}")
        for file in adapter
        if file.path != CARD
    )
    layout.card = _card(path)
    layout.left_out += [name for name in others if not name.startswith(".")]
    return _laid_out(draft, layout)


def _laid_out(draft: Draft, layout: Layout, warnings: tuple[str, ...] = ()) -> Folder:
    notes = (*warnings, *(f"left out: {path}" for path in layout.left_out))
    return Folder(draft, lambda contents, reuse: contents.add_folder(layout, reuse), lambda: notes)


def _imported(
    path: Path,
    draft: Draft,
    imports: Iterable[Imported],
    left_out: tuple[str, ...] = (),
    attached: Sequence[FoundFile] = (),
) -> Folder:
    """A folder whose records are read by importers; its README.md is the card as well."""
    imports = tuple(imports)

    def fill(contents: Contents, reuse: Reuse) -> None:
        contents.add_folder(Layout(card=_card(path)), reuse)
        contents.add_records(sort, reuse)
        contents.add_folder(Layout(attachments=list(attached)), reuse)

    def sort(sorter: RecordSorter) -> None:
        for imported in imports:
            sorter.add(imported.records, origin=str(path))

    def notes() -> tuple[str, ...]:
        read = (line for imported in imports for line in _lines(imported.report))
        return (*left_out, *read)

    return Folder(draft, fill, notes)


def _notes(path: Path, files: Sequence[FoundFile]) -> Iterator[Imported]:
    from memcube.importers import read_jsonl, read_markdown_folder

    if lines := [file.location for file in files if _suffix(file) == ".jsonl"]:
        yield read_jsonl(path, lines)
    if texts := [file.location for file in files if _suffix(file) in _TEXTS]:
        yield read_markdown_folder(path, texts)


def _lines(report: ImportReport) -> Iterator[str]:
    """What a user should know of an import."""
    for what, lines in (
        ("never read", report.refused),
        ("secret dropped", report.secrets),
        ("skipped", report.skipped),
        ("note", report.notes),
    ):
        yield from (f"{what}: {line}" for line in lines)
    if report.unlisted:
        yield f"and {report.unlisted} more"


def _card(path: Path) -> FoundFile | None:
    card = path / CARD
    if card.is_symlink() or not card.is_file():
        return None
    return FoundFile(CARD, card, card.stat().st_size)


def _suffix(file: FoundFile) -> str:
    return PurePosixPath(file.path).suffix.lower()
