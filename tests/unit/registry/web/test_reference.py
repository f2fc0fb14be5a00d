"""The API's reference page."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from memcube_registry.app import create_app
from memcube_registry.settings import Settings
from memcube_registry.web import reference


class Seen(HTMLParser):
    """What a page holds: tags in order, ids, links."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.ids += [found["id"]] if found.get("id") else []
        self.links += [value for name in ("href", "src") if (value := found.get(name))]


@pytest.fixture
def document(tmp_path: Path, sqlite_url: str) -> dict[str, object]:
    app = create_app(Settings(data_dir=tmp_path, database_url=sqlite_url))
    return dict(app.openapi_schema.to_schema())


def test_every_operation_has_a_section_that_the_contents_link_to(
    document: dict[str, dict[str, dict[str, object]]],
) -> None:
    seen = Seen(reference.page(document, style_url="/s.css", document_url="/o.json"))
    operations = [
        entry["operationId"]
        for methods in document["paths"].values()
        for entry in methods.values()
        if isinstance(entry, dict)
    ]
    assert len(operations) >= 16
    assert sorted(seen.ids) == sorted(operations)
    assert {f"#{name}" for name in operations} <= set(seen.links)


def test_the_page_runs_no_script_and_asks_no_foreign_host(document: dict[str, object]) -> None:
    page = reference.page(document, style_url="/s.css", document_url="/o.json")
    seen = Seen(page)
    assert "script" not in seen.tags
    assert all(link.startswith(("/", "#")) for link in seen.links)
    assert "style=" not in page


def test_text_of_the_document_is_escaped() -> None:
    hostile = "<script>alert(1)</script>"
    operation = {"operationId": hostile, "description": hostile, "responses": {}}
    document = {
        "info": {"title": hostile, "version": "1"},
        "paths": {f"/{hostile}": {"get": operation}},
    }
    assert "<script" not in reference.page(document, style_url="/s", document_url="/o")


def test_the_api_document_leaves_the_distribution_api_out(document: dict[str, object]) -> None:
    paths = document["paths"]
    assert isinstance(paths, dict)
    assert all(path.startswith("/api/v1/") for path in paths)


def test_the_style_sheet_is_part_of_the_package() -> None:
    assert "body" in reference.stylesheet()
    assert "@import" not in reference.stylesheet()
    assert "url(" not in reference.stylesheet()
