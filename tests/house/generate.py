"""Writes the parts of docs/ that follow from the code anew: `make docs`.

A test fails while a file differs from what this module would write.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from memcube.cli import reference
from memcube_protocol import errors, limits, media_types
from memcube_registry import settings

from .schemas import SCHEMAS, document

ROOT: Final = Path(__file__).parents[2]
SPEC: Final = Path("docs/spec")
_NOTICE: Final = "<!-- Written by `make docs` from {source}; edit that instead. -->\n"


class Constant(NamedTuple):
    """A module's constant: its name, value, and the string that stands below it."""

    name: str
    value: Any
    meaning: str


def constants(module: Any) -> Iterator[Constant]:
    """Public constants of `module` in the order of its source."""
    body = ast.parse(Path(module.__file__).read_text("utf-8")).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        meaning = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            meaning = " ".join(str(after.value.value).split())
        name = node.target.id
        if not name.startswith("_"):
            yield Constant(name, getattr(module, name), meaning)


def limits_page() -> str:
    """docs/spec/limits.md."""
    rows = "".join(
        f"| `{name}` | {_size(name, value)} | {meaning} |\n"
        for name, value, meaning in constants(limits)
        if meaning
    )
    return _fill("limits", limits, rows)


def media_types_page() -> str:
    """docs/spec/media-types.md."""
    known = list(constants(media_types))
    types = "".join(
        f"| `{value}` | {'layer' if value in media_types.LAYERS else ''} | {meaning} |\n"
        for _, value, meaning in known
        if isinstance(value, str) and "/" in value
    )
    annotations = "".join(
        f"| `{value}` | {meaning} |\n"
        for _, value, meaning in known
        if isinstance(value, str) and "/" not in value
    )
    return _fill("media-types", media_types, types, annotations)


def errors_page() -> str:
    """docs/spec/errors.md."""
    rows = []
    for kind in _kinds(errors.MemcubeError):
        outcome = errors.OUTCOMES[kind.code]
        meaning = (kind.__doc__ or "").strip().split("\n\n")[0]
        parent = kind.__mro__[1]
        under = f"`{parent.code}`" if issubclass(parent, errors.MemcubeError) else ""
        rows.append(
            f"| `{kind.code}` | {under} | {outcome.http_status} | {outcome.exit_code} "
            f"| {' '.join(meaning.split())} |\n"
        )
    return _fill("errors", errors, "".join(rows))


def schema_page(name: str) -> str:
    """docs/spec/schemas/`name`.json."""
    return json.dumps(document(name), indent=2, ensure_ascii=False) + "\n"


def pages() -> dict[Path, Callable[[], str]]:
    """Every generated file, relative to the root, and what makes its content."""
    made: dict[Path, Callable[[], str]] = {
        SPEC / "errors.md": errors_page,
        SPEC / "limits.md": limits_page,
        SPEC / "media-types.md": media_types_page,
        Path("docs/guide/cli.md"): reference.reference,
        Path("docs/guide/settings.md"): settings.guide,
    }
    for name in SCHEMAS:
        made[SPEC / "schemas" / f"{name}.json"] = lambda name=name: schema_page(name)
    return made


def _kinds(kind: type[errors.MemcubeError]) -> Iterator[type[errors.MemcubeError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from _kinds(below)


def _size(name: str, value: int) -> str:
    if not name.endswith("_BYTES"):
        return f"{value:,}".replace(",", " ")
    for unit, size in (("MiB", limits.MIB), ("KiB", limits.KIB)):
        if value % size == 0:
            return f"{value // size} {unit}"
    return f"{value} bytes"


def _fill(name: str, module: Any, *tables: str) -> str:
    """The template of page `name` with each `<!-- table -->` line followed by the next of `tables`."""
    source = Path(module.__file__).relative_to(ROOT).as_posix()
    content = (Path(__file__).parent / "templates" / f"{name}.md").read_text("utf-8")
    for table in tables:
        content = content.replace("<!-- table -->\n", table, 1)
    return _NOTICE.format(source=source) + content


def main() -> None:
    """Write every generated file."""
    for path, make in pages().items():
        target = ROOT / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(make(), "utf-8")


if __name__ == "__main__":
    main()
