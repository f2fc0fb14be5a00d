"""Records from a folder of Markdown: one for each section, with an id that stays while its heading does.

`notes/tea.md` with the headings `# Tea` and `## Green` gives `notes/tea.md#tea` and
`notes/tea.md#tea/green`. Front matter between lines of `---` may hold `tags`, `title` and more.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from memcube_protocol import limits
from memcube_protocol.errors import NotFoundError
from memcube_protocol.records import Record, Source
from memcube_protocol.values import frozen

from memcube.importers.foreign import Foreign, record_id
from memcube.importers.report import Imported, ImportReport

SYSTEM: Final = "markdown"
_FILE_BYTES: Final = 64 * limits.MIB
_SECTION_CHARS: Final = 200_000
_HEADING: Final = re.compile(r" {0,3}(#{1,6})[ \t]+(\S.*)")
_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})")
_PAIR: Final = re.compile(r"([A-Za-z_][\w -]*):(?:[ \t]+(.*))?")
_ITEM: Final = re.compile(r"[ \t]*-[ \t]+(.*)")
_BLANKS: Final = " \t"
_NOT_SLUG: Final = re.compile(r"[^\w]+")


@frozen
class Section:
    """A heading's path from the file's top, and the lines below it."""

    headings: tuple[str, ...]
    body: str


def read_markdown_folder(path: Path, chosen: Sequence[Path] | None = None) -> Imported:
    """Records of every `*.md` below the folder `path` (or of that one file), in order of names.

    `chosen` are files below `path` to read instead, whatever they are called.

    Hidden files and links are left out.

    Raises:
        NotFoundError: there is no Markdown file.
    """
    root = path if path.is_dir() else path.parent
    found = chosen if chosen is not None else path.rglob("*.md")
    files = sorted(found) if path.is_dir() else [path]
    files = [file for file in files if _is_wanted(file.relative_to(root), root)]
    if not files:
        raise NotFoundError(f"{path} holds no Markdown file", hint="look at the path")
    report = ImportReport(SYSTEM)
    return Imported(_records(files, root, report), report)


def sections(text: str) -> Iterator[Section]:
    """Sections of Markdown `text`; headings inside code fences are text."""
    headings: list[tuple[int, str]] = []
    lines: list[str] = []
    fence = ""
    for line in text.splitlines():
        mark = _FENCE.match(line)
        if mark and (not fence or line.strip().startswith(fence)):
            fence = "" if fence else mark[1]
        heading = None if fence else _HEADING.fullmatch(line.rstrip(_BLANKS))
        if heading is None:
            lines.append(line)
            continue
        yield Section(tuple(title for _, title in headings), "\n".join(lines).strip())
        lines = []
        depth = len(heading[1])
        headings = [(level, title) for level, title in headings if level < depth]
        headings.append((depth, _title(heading[2])))
    yield Section(tuple(title for _, title in headings), "\n".join(lines).strip())


def front_matter(text: str) -> tuple[dict[str, Any], str]:
    """Front matter and the rest of `text`: lines `key: value`, lists in brackets or with dashes."""
    lines = text.split("\n")
    if lines[0].strip() != "---":
        return {}, text
    end = next((at for at, line in enumerate(lines[1:], 1) if line.strip() == "---"), None)
    if end is None:
        return {}, text
    values: dict[str, Any] = {}
    key = ""
    for line in lines[1:end]:
        item, pair = _ITEM.fullmatch(line), _PAIR.fullmatch(line)
        if item and key and isinstance(values[key] or [], list):
            values[key] = values[key] or []
            values[key].append(_bare(item[1]))
        elif pair:
            key = pair[1]
            values[key] = _value(pair[2] or "")
    return values, "\n".join(lines[end + 1 :])


def _title(text: str) -> str:
    """The heading's `text` without the # that may close it."""
    without = text.rstrip("#")
    return without.rstrip(_BLANKS) if without != text and without.endswith((" ", "\t")) else text


def _is_wanted(relative: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in relative.parts)
    links = any((root / part).is_symlink() for part in (relative, *relative.parents[:-1]))
    return not hidden and not links and (root / relative).is_file()


def _records(files: list[Path], root: Path, report: ImportReport) -> Iterator[Record]:
    for file in files:
        name = file.relative_to(root).as_posix()
        content = _content(file, name, report)
        if content is not None:
            yield from _records_of(name, content, report)


def _content(file: Path, name: str, report: ImportReport) -> str | None:
    if file.stat().st_size > _FILE_BYTES:
        report.skip(f"{name}: larger than {_FILE_BYTES} bytes")
        return None
    try:
        return file.read_text("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        report.skip(f"{name}: not text in UTF-8")
        return None


def _records_of(name: str, content: str, report: ImportReport) -> Iterator[Record]:
    matter, text = front_matter(content)
    if isinstance(matter.get("tags"), str):
        matter["tags"] = re.split(r"[,\s]+", matter["tags"].strip(", "))
    seen: dict[str, int] = {}
    for section in sections(text):
        if not section.body:
            continue
        slug = "/".join(map(_slug, section.headings))
        seen[slug] = seen.get(slug, 0) + 1
        again = f"~{seen[slug]}" if seen[slug] > 1 else ""
        base = f"{name}#{slug}{again}" if slug or again else name
        foreign = Foreign(SYSTEM, matter, report)
        fields: dict[str, Any] = {
            "tags": tuple(tag.lstrip("#") for tag in foreign.texts("tags") if tag.strip("#")),
            "subject": foreign.text("title") or _subject(section),
            "created_at": foreign.time("created") or foreign.time("date"),
            "updated_at": foreign.time("updated"),
            "source": Source(system=SYSTEM, uri=name, author=foreign.text("author")),
            "extensions": foreign.extensions(name),
        }
        for part, chunk in enumerate(_chunks(section)):
            report.records += 1
            identity = record_id(base if not part else f"{base}~part{part + 1}")
            yield Record(id=identity, text=chunk, type="context", **fields)


def _subject(section: Section) -> str | None:
    return section.headings[0][:200] if section.headings else None


def _chunks(section: Section) -> Iterator[str]:
    """Text of `section` below its heading; a huge one in several pieces, cut between lines."""
    title = " › ".join(section.headings)
    text = f"{title}\n\n{section.body}" if title else section.body
    while len(text) > _SECTION_CHARS:
        cut = text.rfind("\n", 1, _SECTION_CHARS)
        cut = cut if cut > 0 else _SECTION_CHARS
        yield text[:cut]
        text = text[cut:].lstrip("\n")
    if text:
        yield text


def _slug(heading: str) -> str:
    text = unicodedata.normalize("NFKC", heading).casefold()
    return _NOT_SLUG.sub("-", text).strip("-_") or "-"


def _value(text: str) -> Any:
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        return [_bare(item) for item in text[1:-1].split(",") if item.strip()]
    return _bare(text) or None


def _bare(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text
