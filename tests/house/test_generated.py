"""What is written from the code is up to date, and says something of everything."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from house import generate
from memcube_protocol import errors, limits, media_types


@pytest.mark.parametrize("path", sorted(generate.pages()), ids=str)
def test_a_generated_file_is_what_the_code_says(path: Path) -> None:
    written = (generate.ROOT / path).read_text("utf-8")
    assert written == generate.pages()[path](), f"{path} is out of date: run `make docs`"


def test_no_schema_is_left_over() -> None:
    folder = generate.ROOT / generate.SPEC / "schemas"
    assert {path.stem for path in folder.iterdir()} == set(generate.SCHEMAS)


@pytest.mark.parametrize("module", [limits, media_types], ids=lambda module: module.__name__)
def test_every_constant_has_a_meaning(module: object) -> None:
    bare = [known.name for known in generate.constants(module) if not known.meaning]
    assert set(bare) <= {"KIB", "MIB", "LAYERS"}


def test_every_error_has_one_code_one_outcome_and_a_line_in_the_tree() -> None:
    kinds = list(generate._kinds(errors.MemcubeError))
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)
    assert set(codes) == set(errors.OUTCOMES)
    tree = errors.__doc__ or ""
    named = re.findall(r"[├└]── (\w+)", tree)
    assert sorted(named) == sorted(kind.__name__ for kind in kinds[1:])
    for kind in kinds[1:]:
        depth = len(kind.__mro__) - len(errors.MemcubeError.__mro__)
        line = next(line for line in tree.splitlines() if f"── {kind.__name__} " in line)
        assert line.index("──") == 4 * (depth - 1) + 1, line


PAGES = sorted((generate.ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(generate.ROOT).as_posix())
def test_links_inside_the_documentation_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", page.read_text("utf-8")):
        if "://" not in target and not target.startswith("mailto:"):
            led = page.parent / target if target else page
            assert led.exists(), target
            assert not anchor or led.suffix != ".md" or anchor in _anchors(led), (
                f"{target}#{anchor}"
            )


@cache
def _anchors(page: Path) -> frozenset[str]:
    """What links into `page` can name: its headings, as GitHub writes them."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings)


def test_pages_of_the_specification_that_the_code_cites_are_there() -> None:
    cited = set()
    for folder in ("protocol", "signing", "client", "registry"):
        for path in (generate.ROOT / folder).rglob("*.py"):
            cited |= set(re.findall(r"docs/spec/[a-z-]+\.md", path.read_text("utf-8")))
    missing = sorted(name for name in cited if not (generate.ROOT / name).exists())
    assert not missing
