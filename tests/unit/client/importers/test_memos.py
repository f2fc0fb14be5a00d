from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube.importers import is_memos, read_memos
from memcube.importers.memos import decode
from memcube_protocol.errors import InvalidJsonError, NotFoundError, UnsafePathError
from memcube_protocol.records import Record, Relation, Source, parse_record, write_record

DATA = Path(__file__).parents[5] / "shared/data/memos"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the shared MemOS cubes are not here")

METADATA = {
    "user_id": "u",
    "session_id": "s",
    "status": "activated",
    "type": "fact",
    "confidence": 95.0,
    "source": "conversation",
    "tags": ["a"],
    "entities": ["Ada"],
    "visibility": "private",
    "updated_at": "2025-06-03T17:14:18",
    "version": 2,
}


def cube(
    folder: Path, memory: object, config: object = None, name: str = "textual_memory.json"
) -> Path:
    (folder / name).write_text(json.dumps(memory))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def read(folder: Path) -> list[Record]:
    records = list(read_memos(folder).records)
    for record in records:
        assert parse_record(write_record(record)) == record
    return records


EXPECTED = Record(
    id="m-1",
    text="Ada likes tea.",
    type="fact",
    updated_at="2025-06-03T17:14:18Z",
    source=Source(system="memos", conversation="s", method="conversation"),
    tags=("a",),
    entities=("Ada",),
    confidence=0.95,
    sensitivity="confidential",
    status="active",
    version=2,
    extensions={"memos": {"user_id": "u", "confidence": 95.0, "updated_at": "2025-06-03T17:14:18"}},
)
ITEM: dict[str, Any] = {"id": "m-1", "memory": "Ada likes tea.", "metadata": METADATA}


@pytest.mark.parametrize(
    "memory",
    [
        [ITEM],
        [{"id": "m-1", "vector": [0.1, 0.2], "payload": ITEM}],
        {"nodes": [ITEM], "edges": [], "total_nodes": 1, "total_edges": 0},
        {"collection": [ITEM]},
    ],
    ids=["naive", "general", "tree", "preference"],
)
def test_every_shape_gives_the_same_record(tmp_path: Path, memory: object) -> None:
    assert read(cube(tmp_path, memory)) == [EXPECTED]


def test_edges_become_relations_and_sources_are_decoded(tmp_path: Path) -> None:
    said = {"type": "chat", "content": "tea?"}
    metadata = {"sources": [json.dumps(json.dumps(said)), json.dumps(said)], "embedding": [0.5]}
    memory = {
        "edges": [
            {"source": "m-1", "target": "m-2", "type": "PARENT"},
            {"source": "m-1", "target": "m-2", "type": "PARENT"},
            {"source": "m-1", "type": "CAUSE"},
        ],
        "nodes": [
            {"id": "m-1", "memory": "one", "metadata": metadata},
            {"id": "m-2", "memory": "two"},
        ],
    }
    imported = read_memos(cube(tmp_path, memory))
    one, two = imported.records
    assert one.relations == (Relation(type="parent", target="m-2"),)
    assert one.extensions == {"memos": {"sources": [said, said]}}
    assert two.relations == ()
    assert imported.report.vectors == 1
    assert imported.report.skipped == [
        "textual_memory.json: an edge without source, target and type"
    ]


def test_words_that_we_do_not_know_are_kept(tmp_path: Path) -> None:
    metadata = {
        "status": "dormant",
        "type": "Tool Trajectory",
        "visibility": "friends",
        "confidence": 700,
        "created_at": "yesterday",
        "version": "v2",
        "memory_type": "LongTermMemory",
    }
    (record,) = read(
        cube(tmp_path, [{"id": "a b", "memory": "x", "metadata": metadata, "extra": 1}])
    )
    assert record.id == "a%20b"
    assert record.type == "memos:tool-trajectory"
    assert record.status is record.confidence is record.version is record.sensitivity is None
    assert record.extensions["memos"] == {
        **metadata,
        "item.extra": 1,
        "item.id": "a b",
    }


def test_items_without_text_are_skipped_and_named(tmp_path: Path) -> None:
    memory = [{"id": "a", "memory": " "}, "text", {"id": "b"}, {"payload": []}, ITEM]
    imported = read_memos(cube(tmp_path, memory))
    assert len(list(imported.records)) == 1
    assert [line.split(":")[0] for line in imported.report.skipped] == [
        f"textual_memory.json, item {n}" for n in range(4)
    ]


def test_secrets_of_the_config_are_dropped_and_reported_without_their_values(
    tmp_path: Path,
) -> None:
    config = {
        "text_mem": {
            "config": {
                "memory_filename": "textual_memory.json",
                "extractor_llm": {"config": {"api_key": "sk-1", "max_tokens": 8}},
                "graph_db": {"password": "hunter2", "uri": "bolt://neo4j:hunter2@host:7687"},
                "backup_api_key": "",
            }
        }
    }
    item = {"id": "a", "memory": "x", "metadata": {"info": {"access_token": "sk-2", "n": 1}}}
    imported = read_memos(cube(tmp_path, [item], config))
    (record,) = imported.records
    report = imported.report
    assert report.secrets == [
        "config.json.text_mem.config.extractor_llm.config.api_key",
        "config.json.text_mem.config.graph_db.password",
        "config.json.text_mem.config.graph_db.uri (user and password of a URL)",
        "a.info.access_token",
    ]
    for secret in ("sk-1", "sk-2", "hunter2"):
        assert secret not in repr(report)
        assert secret not in repr(record)
    inner = report.settings["text_mem"]["config"]
    assert inner["extractor_llm"] == {"config": {"max_tokens": 8}}
    assert inner["graph_db"]["uri"] == "bolt://host:7687"
    assert record.extensions == {"memos": {"info": {"n": 1}}}


def test_a_pickle_is_refused_with_a_hint_and_never_opened(tmp_path: Path) -> None:
    cube(tmp_path, [ITEM])
    pickle = tmp_path / "activation_memory.pickle"
    os.mkfifo(pickle)  # opening it would wait for ever
    (report,) = [read_memos(tmp_path).report]
    assert report.refused[0].startswith("activation_memory.pickle: a pickle runs code")


@pytest.mark.parametrize("name", ["../secret.json", "/etc/passwd", "a\\b"])
def test_a_config_cannot_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    config = {"text_mem": {"config": {"memory_filename": name}}}
    with pytest.raises(UnsafePathError):
        read_memos(cube(tmp_path, [ITEM], config))


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cube"
    folder.mkdir()
    cube(tmp_path, [ITEM], name="elsewhere.json")
    (folder / "textual_memory.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(UnsafePathError):
        read_memos(folder)


def test_a_folder_of_something_else_is_no_import(tmp_path: Path) -> None:
    assert not is_memos(tmp_path)
    with pytest.raises(NotFoundError):
        read_memos(tmp_path)


@pytest.mark.parametrize("content", ["", "[", "3", '[{"id":"a"', "[1] 2", "{1:2}", "[" * 100_000])
def test_damaged_files_raise_our_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "textual_memory.json").write_text(content)
    with pytest.raises(InvalidJsonError):
        list(read_memos(tmp_path).records)


def test_decoding_stops_where_a_string_is_only_text() -> None:
    assert decode('"[not json') == '"[not json'
    assert decode("plain") == "plain"
    assert decode('"\\"{\\\\\\"a\\\\\\": 1}\\""') == {"a": 1}


@needs_data
def test_the_real_general_cube_is_read() -> None:
    imported = read_memos(DATA / "mem_cube_2")
    records = list(imported.records)
    assert [record.text for record in records] == [
        "The user loves the Eiffel Tower.",
        "The user is a professor.",
    ]
    assert [record.confidence for record in records] == [1.0, 0.9]
    assert imported.report.vectors == 2
    assert "pickle" in imported.report.refused[0]
    assert imported.report.settings["cube_id"] == "Ki-Seki/mem_cube_2"


@needs_data
def test_the_real_tree_cube_is_read() -> None:
    imported = read_memos(DATA / "mem_cube_tree")
    records = list(imported.records)
    assert len(records) == imported.report.vectors == 4
    assert records[0].created_at == "2026-01-13T20:51:42.39487Z"
    assert records[0].extensions["memos"]["sources"][0]["role"] == "user"
    assert imported.report.skipped == []


KEYS = st.sampled_from(
    [
        *(
            "id",
            "memory",
            "metadata",
            "vector",
            "payload",
            "status",
            "type",
            "confidence",
            "source",
        ),
        *(
            "sources",
            "tags",
            "entities",
            "visibility",
            "created_at",
            "updated_at",
            "version",
            "key",
        ),
        *("session_id", "embedding", "api_key", "x"),
    ]
)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=12)
    | st.sampled_from(
        ["activated", "fact", "public", "2026-01-01T00:00:00Z", '"{}"', "\ud800", ""]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
)
ITEMS = st.fixed_dictionaries(
    {"memory": st.text(max_size=9)},
    optional={
        "id": ANYTHING,
        "metadata": st.dictionaries(KEYS, ANYTHING, max_size=8),
        "x": ANYTHING,
    },
)


@settings(max_examples=80, deadline=None)
@given(st.lists(ITEMS | ANYTHING, max_size=4), st.lists(ANYTHING, max_size=2))
def test_whatever_a_cube_holds_gives_valid_records_or_a_line_in_the_report(
    tmp_path_factory: pytest.TempPathFactory, nodes: list[Any], edges: list[Any]
) -> None:
    folder = cube(tmp_path_factory.mktemp("cube"), {"nodes": nodes, "edges": edges})
    imported = read_memos(folder)
    records = list(imported.records)
    for record in records:
        assert parse_record(write_record(record)) == record
    assert imported.report.records == len(records)
