"""The cube config: canonical, closed, and checked the same way from bytes and from code."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol import canonical_json, limits
from memcube_protocol.config import (
    KINDS,
    PLAINTEXT,
    RELATIONS,
    CubeConfig,
    Lineage,
    Memory,
    Parent,
)
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidConfigError, LimitExceededError, MemcubeError
from memcube_protocol.governance import (
    ACCESS,
    PERSONAL_DATA,
    PRIORITIES,
    PROCESSING,
    REDISTRIBUTIONS,
    SENSITIVITIES,
    USES,
    WATERMARKS,
    Descriptive,
    Governance,
    Source,
)

LAYER = Digest.of(b"layer")
MOMENT = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)


def a_config(**changes: Any) -> CubeConfig:
    values: dict[str, Any] = {
        "name": "alice/notes",
        "version": "1.0.0",
        "created_at": MOMENT,
        "memories": (Memory("plaintext", PLAINTEXT, (LAYER,), records=3),),
    }
    return CubeConfig(**{**values, **changes})


def as_json(**changes: Any) -> dict[str, Any]:
    return {**a_config().to_json(), **changes}


lines = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), min_size=1, max_size=40
)
words = st.text(st.sampled_from("abcdefghijk-0123"), min_size=1, max_size=20)
digests = st.binary(max_size=4).map(Digest.of)
moments = st.datetimes(
    datetime(1980, 1, 1),  # noqa: DTZ001 - the strategy adds the zone
    datetime(2200, 1, 1),  # noqa: DTZ001 - the strategy adds the zone
    timezones=st.just(UTC),
).map(lambda moment: moment.replace(microsecond=0))
governances = st.builds(
    Governance,
    licence=st.sampled_from(["NOASSERTION", "CC-BY-4.0", "MIT", "GPL-2.0+"]),
    access=st.sampled_from(ACCESS),
    sensitivity=st.sampled_from(SENSITIVITIES),
    personal_data=st.sampled_from(PERSONAL_DATA),
    allowed_uses=st.lists(st.sampled_from(USES), unique=True).map(tuple),
    redistribution=st.sampled_from(REDISTRIBUTIONS),
    processing=st.sampled_from(PROCESSING),
    expires_at=st.none() | moments,
    retention_days=st.none() | st.integers(1, 36_525),
    priority=st.sampled_from(PRIORITIES),
    watermark=st.sampled_from(WATERMARKS),
)
configs = st.builds(
    CubeConfig,
    name=st.sampled_from(["notes", "alice/notes", "a.b/c_d/e-f"]),
    version=st.sampled_from(["0.1.0", "1.2.3-rc.1", "1.2.3+b1"]),
    created_at=moments,
    title=st.none() | lines,
    summary=st.none() | lines,
    descriptive=st.builds(
        Descriptive,
        languages=st.lists(st.sampled_from(["en", "zh-Hans", "de"]), unique=True).map(tuple),
        tags=st.lists(words, unique=True, max_size=3).map(tuple),
        sources=st.lists(st.builds(Source, name=lines), max_size=2).map(tuple),
    ),
    governance=governances,
    lineage=st.builds(
        Lineage,
        parents=st.lists(
            st.builds(
                Parent,
                origin=st.just("hub.example/alice/notes"),
                digest=digests,
                relation=st.sampled_from(RELATIONS),
            ),
            max_size=2,
        ).map(tuple),
        supersedes=st.none() | digests,
    ),
    memories=st.lists(
        st.one_of(
            st.builds(
                Memory,
                id=words.filter(lambda word: word[0] != "-" and word[-1] != "-"),
                kind=st.just(PLAINTEXT),
                layers=st.lists(digests, max_size=3).map(tuple),
                title=st.none() | lines,
                records=st.integers(0, 2**53 - 1),
            ),
            st.builds(
                Memory,
                id=words.filter(lambda word: word[0] != "-" and word[-1] != "-"),
                kind=st.sampled_from(KINDS[1:]),
                layers=st.lists(digests, max_size=3).map(tuple),
                compatibility=st.dictionaries(words, st.integers(0, 99), max_size=3),
            ),
        ),
        max_size=3,
        unique_by=lambda memory: memory.id,
    ).map(tuple),
    extensions=st.dictionaries(words, lines, max_size=2),
)


@settings(max_examples=60)
@given(configs)
def test_every_config_reads_back_what_it_writes(config: CubeConfig) -> None:
    assert CubeConfig.parse(config.write()) == config


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_random_bytes_raise_only_our_errors(raw: bytes) -> None:
    with pytest.raises(MemcubeError):
        CubeConfig.parse(raw)


@settings(max_examples=100)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(sorted(as_json(title="t", governance={}, lineage={}, descriptive={}))),
)
def test_any_value_in_any_field_is_read_or_refused_by_name(value: Any, key: str) -> None:
    try:
        raw = canonical_json.dump(as_json(**{key: value}))
        config = CubeConfig.parse(raw)
    except MemcubeError:
        return
    assert config.write() == raw


@pytest.mark.parametrize(
    "changes",
    [
        {"mipVersion": "2.0"},
        {"name": "Alice/Notes"},
        {"name": "hub.example:5000/alice/notes"},
        {"version": "1.0"},
        {"version": "1.0.0_b1"},
        {"createdAt": "2026-11-20T09:30:00+01:00"},
        {"createdAt": "2026-02-30T09:30:00Z"},
        {"createdAt": 1},
        {"title": ""},
        {"title": "x" * 201},
        {"title": "two\nlines"},
        {"title": "\x1b[31mred"},
        {"title": "\u202eevil"},
        {"unknown": 1},
        {"governance": {"licence": "LicenseRef-mine"}},
        {"governance": {"licence": "not a licence"}},
        {"governance": {"sensitivity": "secret"}},
        {"governance": {"allowedUses": ["anything"]}},
        {"governance": {"allowedUses": ["research", "research"]}},
        {"governance": {"retentionDays": 0}},
        {"governance": {"retentionDays": True}},
        {"governance": {"licence": "NOASSERTION"}},
        {"descriptive": {"languages": ["english"]}},
        {"descriptive": {"sources": [{"name": "a", "url": "javascript:alert(1)"}]}},
        {"lineage": {"parents": [{"origin": "alice/notes", "digest": str(LAYER)}]}},
        {"lineage": {"supersedes": "sha256:00"}},
        {"memories": []},
        {"memories": [{"id": "cube", "kind": "plaintext", "layers": [], "records": 0}]},
        {"memories": [{"id": "a/b", "kind": "plaintext", "layers": [], "records": 0}]},
        {"memories": [{"id": "a", "kind": "visual", "layers": []}]},
        {"memories": [{"id": "a", "kind": "plaintext", "layers": []}]},
        {"memories": [{"id": "a", "kind": "parametric", "layers": [], "records": 1}]},
        {"memories": [{"id": "a", "kind": "parametric"}]},
        {"memories": [{"id": "a", "kind": "parametric", "layers": [1]}]},
        {"memories": [{"id": "a", "kind": "parametric", "layers": []}] * 2},
        {"memories": {}},
    ],
    ids=str,
)
def test_a_field_that_breaks_its_rule_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MemcubeError):
        CubeConfig.parse(canonical_json.dump(as_json(**changes)))


def test_an_unknown_field_is_named_with_the_one_that_was_meant() -> None:
    with pytest.raises(InvalidConfigError, match="unknown field 'sensitivty'") as caught:
        CubeConfig.parse(canonical_json.dump(as_json(governance={"sensitivty": "public"})))
    assert caught.value.hint == "did you mean 'sensitivity'?"


def test_json_that_is_not_canonical_is_refused() -> None:
    raw = a_config().write()
    with pytest.raises(InvalidConfigError, match="canonical"):
        CubeConfig.parse(raw.replace(b",", b", "))


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 1),  # noqa: DTZ001 - what is refused
        datetime(2026, 1, 1, microsecond=1, tzinfo=UTC),
    ],
)
def test_a_time_that_would_not_read_back_is_refused_in_code(moment: datetime) -> None:
    with pytest.raises(InvalidConfigError):
        a_config(created_at=moment)


def test_a_time_of_another_zone_is_written_in_utc() -> None:
    zone = timezone(timedelta(hours=2))
    config = a_config(created_at=datetime(2026, 11, 20, 11, 30, tzinfo=zone))
    assert config.write() == a_config().write()


def test_a_config_beyond_its_limit_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(LimitExceededError):
        CubeConfig.parse(b"{" * (limits.CONFIG_BYTES + 1))


def test_a_memory_is_found_by_its_id() -> None:
    config = a_config()
    assert config.memory("plaintext") == config.memories[0]
    assert config.memory("other") is None
