"""memcube.toml is read strictly, and says what was meant where it is wrong."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube.packing.draft import Draft
from memcube.packing.templates import TEMPLATES, write_template
from memcube_protocol import limits
from memcube_protocol.config import Memory
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidConfigError, LimitExceededError, MemcubeError

LEAST = 'name = "alice/notes"\nversion = "1.0.0"\n'
NOW = datetime(2026, 1, 1, tzinfo=UTC)
WHOLE = """
name = "alice/notes"
version = "1.0.0+b1"
created_at = 2026-11-20T10:30:00+01:00
title = "Notes"
summary = "What Alice knows"
ignore = ["drafts/*"]
[descriptive]
languages = ["en", "zh-Hans"]
semantic_types = ["fact"]
sources = [{ name = "Wiki", url = "https://example.org/wiki", licence = "CC0-1.0" }]
[governance]
licence = "LicenseRef-mine"
licence_url = "https://example.org/licence"
personal_data = "pseudonymous"
allowed_uses = ["research"]
expires_at = 2027-01-01
[[lineage.parents]]
origin = "hub.example/bob/notes"
digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
[memories.plaintext]
title = "Records"
[extensions.acme]
shelf = 7
"""


def a_memory(memory_id: str = "plaintext") -> Memory:
    return Memory(memory_id, "plaintext", (Digest.of(b""),), records=1)


def test_every_field_reaches_the_config() -> None:
    draft = Draft.parse(WHOLE.encode())
    config = draft.config([a_memory()], NOW)
    assert config.created_at == datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
    assert config.governance.expires_at == datetime(2027, 1, 1, tzinfo=UTC)
    assert config.governance.licence_url == "https://example.org/licence"
    assert config.descriptive.semantic_types == ("fact",)
    assert config.lineage.parents[0].relation == "derived-from"
    assert config.extensions == {"acme": {"shelf": 7}}
    assert draft.ignore == ("drafts/*",)
    assert draft.titles == {"plaintext": "Records"}


def test_name_and_version_are_enough() -> None:
    assert Draft.parse(LEAST.encode()).config([], NOW).created_at == NOW


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ('titel = "x"', "did you mean 'title'?"),
        ('[governance]\nlicense = "MIT"', "did you mean 'licence'?"),
        ("[governance]\nexpiresAt = 2027-01-01", "did you mean 'expires_at'?"),
        ('[memories.plaintext]\ntitel = "x"', "did you mean 'title'?"),
    ],
)
def test_an_unknown_key_is_answered_with_the_one_that_was_meant(wrong: str, hint: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        Draft.parse((LEAST + wrong).encode())
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    "text",
    [
        "",
        'name = "alice/notes"',
        'version = "1.0.0"',
        'name = "Alice"\nversion = "1.0.0"',
        'name = "alice/notes"\nversion = "1.0"',
        'name = "alice/notes"\nversion = 1',
        LEAST + "created_at = 2026-11-20T10:30:00",
        LEAST + "ignore = 1",
        LEAST + "memories = 1",
        LEAST + "[memories]\nplaintext = 1",
        LEAST + LEAST,
        "\x00",
        "name = ",
    ],
)
def test_what_is_not_a_draft_is_refused(text: str) -> None:
    with pytest.raises(MemcubeError):
        Draft.parse(text.encode())


def test_bytes_that_are_not_utf_8_are_refused() -> None:
    with pytest.raises(InvalidConfigError, match="not TOML"):
        Draft.parse(b"name = '\xff'")


def test_a_file_beyond_the_limit_is_refused() -> None:
    with pytest.raises(LimitExceededError):
        Draft.parse(b"#" * (limits.CONFIG_BYTES + 1))


def test_a_title_for_a_memory_that_is_absent_is_refused() -> None:
    draft = Draft.parse((LEAST + '[memories.style]\ntitle = "x"').encode())
    with pytest.raises(InvalidConfigError, match="style"):
        draft.config([a_memory()], NOW)


@settings(max_examples=80)
@given(st.binary(max_size=120))
def test_random_bytes_raise_only_our_errors(content: bytes) -> None:
    with pytest.raises(MemcubeError):
        Draft.parse(content)


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_every_template_is_a_draft(template: str, tmp_path) -> None:
    write_template(tmp_path / "cube", template, "alice/notes")
    draft = Draft.parse((tmp_path / "cube" / "memcube.toml").read_bytes())
    assert draft.name == "alice/notes"
