"""The examples of the specification are what they claim to be."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from memcube.packing.draft import Draft
from memcube_protocol import canonical_json, media_types, text
from memcube_protocol.config import CubeConfig
from memcube_protocol.digest import Digest
from memcube_protocol.records import parse_record, write_record
from memcube_protocol.reference import Reference

SPEC = Path(__file__).parents[2] / "docs/spec"


def examples(page: str, language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", (SPEC / page).read_text("utf-8"), re.DOTALL)
    assert found, page
    return [re.sub(r"sha256:[0-9a-f]*…", str(Digest.of(b"")), example) for example in found]


def test_the_record_is_canonical() -> None:
    line = examples("records.md", "json")[0].strip().encode()
    assert write_record(parse_record(line, canonical=True)) == line


def test_the_config_is_read_and_holds_no_defaults() -> None:
    raw = canonical_json.dump(json.loads(examples("config.md", "json")[0]))
    assert CubeConfig.parse(raw).write() == raw


def test_the_folder_s_toml_is_read() -> None:
    draft = Draft.parse(examples("folder.md", "toml")[0].encode())
    assert draft.titles.keys() == {"plaintext"}


def test_the_manifest_has_the_media_types_of_a_cube() -> None:
    value = json.loads(examples("cube.md", "json")[0])
    assert value["artifactType"] == media_types.CUBE
    assert value["config"]["mediaType"] == media_types.CONFIG
    for layer in value["layers"]:
        assert layer["mediaType"] in media_types.LAYERS
        assert layer["annotations"].keys() == {
            media_types.TITLE,
            media_types.FILEPATH,
            media_types.MEMORY,
        }


def test_the_reference_is_read() -> None:
    line = (SPEC / "references.md").read_text("utf-8").splitlines()[2].strip()
    assert str(Reference.parse(line)) == line


def test_the_terms_are_those_of_the_tokenizer() -> None:
    page = (SPEC / "records.md").read_text("utf-8")
    match = re.search(r'^    "(.+)"  →  (.+)$', page, re.MULTILINE)
    assert match
    assert text.terms(match[1]) == match[2].split()


def test_the_digest_is_that_of_abc() -> None:
    line = (SPEC / "content.md").read_text("utf-8").splitlines()[2].split()[0]
    assert Digest.parse(line) == Digest.of(b"abc")


@pytest.mark.parametrize("page", sorted(SPEC.glob("*.md")), ids=lambda page: page.name)
def test_every_page_starts_with_a_title_and_ends_with_security(page: Path) -> None:
    content = re.sub(r"^<!--.*-->\n", "", page.read_text("utf-8"))
    assert content.startswith("# ")
    assert re.search(r"^## Security", content, re.MULTILINE), page.name
