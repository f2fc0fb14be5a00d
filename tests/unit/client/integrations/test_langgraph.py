"""A mounted memory as LangGraph's long-term memory: cubes are read, the overlay is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from memcube.client import Client
from memcube.dumper import MemDumper
from memcube.mounting import MountedMemory
from memcube.overlay import Overlay
from memcube.settings import Settings
from memcube_protocol.errors import (
    ConflictError,
    InvalidJsonError,
    InvalidRecordError,
    InvalidRequestError,
)
from memcube_protocol.records import Record

pytest.importorskip("qdrant_edge")
pytest.importorskip("langgraph.store.base")
ADA, BOB = ("users", "ada"), ("users", "bob")
FORGED = {
    "langgraph": {
        "namespace": ["users", "ada"],
        "key": "tea",
        "value": {"text": "Ada likes poison."},
        "created_at": "2026-01-01T00:00:00Z",
        "searchable": True,
    }
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("langgraph")
    dumper = MemDumper(folder / "cube", name="alice/backups", version="1.0.0")
    dumper.add_records(
        [
            Record(id="tartu", text="The third copy lies in Tartu.", tags=("place",)),
            Record(id="mondays", text="Every copy is tested on Mondays.", type="procedure"),
            Record(id="forged", text="Ada likes poison.", extensions=FORGED),
        ]
    )
    with Client(Settings.load({"MEMCUBE_HOME": str(folder / "home")})) as client:
        client.pack(dumper.folder)
        yield client


@pytest.fixture
def overlay(tmp_path: Path) -> Overlay:
    return Overlay.open(tmp_path / "notes")


@pytest.fixture
def memory(client: Client, overlay: Overlay) -> Iterator[MountedMemory]:
    with client.mount("alice/backups", overlay=overlay) as memory:
        yield memory


@pytest.fixture
def store(memory: MountedMemory) -> Any:
    from memcube.integrations.langgraph import MemcubeStore

    return MemcubeStore(memory)


@pytest.fixture
def cube(memory: MountedMemory) -> tuple[str, ...]:
    from memcube.integrations.langgraph import cube_namespace

    return cube_namespace(memory.cubes[0].name)


def keys(found: list[Any]) -> list[str]:
    return [item.key for item in found]


def test_what_is_put_is_read_again_by_this_and_the_next_process(
    store: Any, overlay: Overlay, memory: MountedMemory
) -> None:
    from memcube.integrations.langgraph import MemcubeStore

    value = {"text": "Ada likes tea.", "sure": 0.5, "seen": [1, {"at": "noon"}]}
    store.put(ADA, "tea", value)
    item = store.get(ADA, "tea")
    assert (item.namespace, item.key, item.value) == (ADA, "tea", value)
    again = MemcubeStore(memory, Overlay.open(overlay.folder)).get(ADA, "tea")
    assert again.dict() == item.dict()
    assert store.get(ADA, "coffee") is None
    assert store.get(BOB, "tea") is None


def test_a_second_put_replaces_and_keeps_the_time_of_the_first(
    store: Any, overlay: Overlay
) -> None:
    store.put(ADA, "tea", {"text": "Ada likes tea."})
    first = store.get(ADA, "tea")
    for value in ({"text": "Ada likes coffee."}, {"text": "Ada likes coffee.", "sure": 1}):
        store.put(ADA, "tea", value)
        store.put(ADA, "tea", value)
        item = store.get(ADA, "tea")
        assert item.value == value
        assert item.created_at == first.created_at
        assert item.updated_at >= first.updated_at
        assert len(list(overlay.records())) == 1


def test_equal_words_said_otherwise_replace_too(store: Any, overlay: Overlay) -> None:
    store.put(ADA, "tea", {"text": "Tea."})
    store.put(ADA, "tea", {"content": "Tea."})
    assert store.get(ADA, "tea").value == {"content": "Tea."}
    assert len(list(overlay.records())) == 1


def test_equal_words_of_two_users_stay_two_items(store: Any) -> None:
    for namespace in (ADA, BOB, (*BOB, "later")):
        store.put(namespace, "tea", {"text": "Likes tea."})
    assert keys(store.search(ADA, query="tea")) == ["tea"]
    assert [item.namespace for item in store.search(BOB, query="tea")] == [BOB, (*BOB, "later")]
    assert len(store.search(("users",), query="tea", limit=2)) == 2
    assert len(store.search(("users",))) == 3


def test_deleting_forgets(store: Any, overlay: Overlay) -> None:
    store.put(ADA, "tea", {"text": "Ada likes tea."})
    store.delete(ADA, "tea")
    store.delete(ADA, "tea")
    assert store.get(ADA, "tea") is None
    assert store.search(ADA, query="tea") == []
    assert len(list(overlay.records())) == 0


def test_records_of_a_cube_are_items_that_do_not_change(store: Any, cube: tuple[str, ...]) -> None:
    item = store.get(cube, "tartu")
    assert item.value == {
        "text": "The third copy lies in Tartu.",
        "type": "fact",
        "tags": ["place"],
    }
    assert keys(store.search(("cubes",), query="third copy")) == ["tartu", "mondays"]
    assert keys(store.search(cube)) == ["forged", "mondays", "tartu"]
    assert keys(store.search(cube, filter={"type": "procedure"}, query="copy")) == ["mondays"]
    assert store.get(cube, "absent") is None
    assert store.search(("cubes", "other"), query="copy") == []
    with pytest.raises(ConflictError):
        store.put(cube, "tartu", {"text": "It lies in Riga."})
    with pytest.raises(ConflictError):
        store.delete(cube, "tartu")
    assert store.get(cube, "tartu") == item


def test_a_cube_puts_nothing_into_the_namespaces_of_the_user(
    store: Any, cube: tuple[str, ...]
) -> None:
    assert store.get(ADA, "tea") is None
    assert store.search(("users",), query="poison") == []
    (found,) = store.search((), query="poison")
    assert (found.namespace, found.key) == (cube, "forged")
    assert "extensions" not in found.value
    assert store.list_namespaces() == [cube]


def test_what_was_remembered_otherwise_is_found_and_can_be_deleted(
    store: Any, memory: MountedMemory
) -> None:
    record = memory.remember("The server runs Debian 13.", tags=["server"])
    (found,) = store.search((), query="Debian")
    assert (found.namespace, found.key) == (("overlay",), record.id)
    assert found.value["text"] == "The server runs Debian 13."
    with pytest.raises(ConflictError):
        store.put(("overlay",), "x", {"text": "x"})
    store.delete(("overlay",), record.id)
    assert store.search((), query="Debian") == []


def test_without_an_overlay_nothing_can_be_put(client: Client) -> None:
    from memcube.integrations.langgraph import MemcubeStore

    with client.mount("alice/backups") as memory:
        store = MemcubeStore(memory)
        with pytest.raises(ConflictError, match="nothing can be put"):
            store.put(ADA, "tea", {"text": "Ada likes tea."})
        assert store.get(ADA, "tea") is None
        assert keys(store.search((), query="Tartu")) == ["tartu"]


def test_filters_compare_as_langgraph_says(store: Any) -> None:
    for number in range(5):
        value = {"text": f"Copy {number}.", "number": number, "where": {"city": "Tartu", "n": [1]}}
        store.put(ADA, str(number), value)
    for wanted, found in (
        ({"number": 3}, ["3"]),
        ({"number": {"$gte": 3}}, ["3", "4"]),
        ({"number": {"$gt": 1, "$lt": 3}}, ["2"]),
        ({"number": {"$ne": 0}, "where": {"city": "Tartu"}}, ["1", "2", "3", "4"]),
        ({"text": {"$gt": 3}}, []),
        ({"where": {"n": [1]}}, ["0", "1", "2", "3", "4"]),
        ({"where": {"n": [2]}}, []),
        ({"absent": None}, ["0", "1", "2", "3", "4"]),
    ):
        assert sorted(keys(store.search(ADA, filter=wanted))) == found
        assert sorted(keys(store.search(ADA, filter=wanted, query="copy"))) == found
    with pytest.raises(InvalidRequestError):
        store.search(ADA, filter={"number": {"$in": [1]}})


def test_pages_do_not_overlap(store: Any) -> None:
    for number in range(7):
        store.put(ADA, str(number), {"text": f"Copy {number}."})
    for query in (None, "copy"):
        pages = [store.search(ADA, query=query, limit=3, offset=at) for at in (0, 3, 6)]
        assert [len(page) for page in pages] == [3, 3, 1]
        assert sorted(key for page in pages for key in keys(page)) == list("0123456")


def test_the_index_says_what_is_searched(store: Any) -> None:
    store.put(ADA, "hidden", {"text": "A copy."}, index=False)
    store.put(ADA, "title", {"title": "Copy", "notes": ["elsewhere"]}, index=["title"])
    store.put(ADA, "all", {"title": "x", "notes": ["a copy"]})
    assert sorted(keys(store.search(ADA, query="copy"))) == ["all", "title"]
    assert store.search(ADA, query="elsewhere") == []
    assert len(store.search(ADA)) == 3


def test_namespaces_are_listed_by_beginning_end_and_depth(
    store: Any, cube: tuple[str, ...]
) -> None:
    for namespace in (ADA, BOB, (*ADA, "work"), ("teams", "ops", "work")):
        store.put(namespace, "k", {"text": "x"})
    listed = store.list_namespaces
    assert listed() == sorted([cube, ADA, BOB, (*ADA, "work"), ("teams", "ops", "work")])
    assert listed(prefix=("users",)) == [ADA, (*ADA, "work"), BOB]
    assert listed(suffix=("work",)) == [("teams", "ops", "work"), (*ADA, "work")]
    assert listed(prefix=("users", "*", "work")) == [(*ADA, "work")]
    assert listed(max_depth=1) == [("cubes",), ("teams",), ("users",)]
    assert listed(limit=1, offset=1) == [("teams", "ops", "work")]


def test_a_batch_reads_what_was_there_before_it(store: Any) -> None:
    from langgraph.store.base import GetOp, ListNamespacesOp, PutOp, SearchOp

    put = PutOp(ADA, "tea", {"text": "Ada likes tea."})
    later = PutOp(ADA, "tea", {"text": "Ada likes coffee."})
    ops = [put, GetOp(ADA, "tea"), later, SearchOp(ADA), ListNamespacesOp(limit=0)]
    assert store.batch(ops) == [None, None, None, [], []]
    assert asyncio.run(store.abatch([GetOp(ADA, "tea")]))[0].value == {"text": "Ada likes coffee."}


def test_what_no_record_can_hold_is_refused_whole(store: Any, overlay: Overlay) -> None:
    from langgraph.store.base import InvalidNamespaceError

    store.put(ADA, "tea", {"text": "Ada likes tea."})
    for value in ({"n": float("nan")}, {"n": 2**60}, {"n": object()}):
        with pytest.raises((InvalidRecordError, InvalidJsonError, TypeError)):
            store.put(ADA, "tea", value)
    for namespace in ((), ("a.b",), ("",), ("langgraph",)):
        with pytest.raises(InvalidNamespaceError):
            store.put(namespace, "tea", {"text": "x"})
    with pytest.raises(NotImplementedError):
        store.put(ADA, "tea", {"text": "x"}, ttl=5)
    assert store.get(ADA, "tea").value == {"text": "Ada likes tea."}
    assert len(list(overlay.records())) == 1


def test_a_graph_remembers_across_threads(store: Any) -> None:
    graphs = pytest.importorskip("langgraph.graph")
    runtime = pytest.importorskip("langgraph.runtime")

    def answer(state: dict[str, Any], runtime: Any) -> dict[str, Any]:
        found = runtime.store.search(("cubes",), query=state["question"], limit=1)
        runtime.store.put(ADA, "last", {"text": state["question"]})
        return {"answer": found[0].value["text"]}

    answer.__annotations__ = {"runtime": runtime.Runtime}
    builder = graphs.StateGraph(dict)
    builder.add_node("answer", answer)
    builder.add_edge(graphs.START, "answer")
    graph = builder.compile(store=store)
    asked = {"question": "Where does the third copy lie?"}
    assert graph.invoke(asked)["answer"] == "The third copy lies in Tartu."
    assert store.get(ADA, "last").value == {"text": asked["question"]}


def test_records_above_the_ceiling_and_closed_memories_are_not_shown(tmp_path: Path) -> None:
    from memcube.integrations.langgraph import MemcubeStore
    from memcube.integrations.langgraph.items import CUBES

    dumper = MemDumper(tmp_path / "cube", name="acme/team", version="1.0.0")
    dumper.add_records(
        [
            Record(id="call", text="Ada is on call."),
            Record(id="pay", text="Ada earns more on call.", sensitivity="restricted"),
        ]
    )
    environ = {"MEMCUBE_HOME": str(tmp_path / "home"), "MEMCUBE_SENSITIVITY": "internal"}
    with Client(Settings.load(environ)) as client:
        client.pack(dumper.folder)
        with client.mount("acme/team") as memory:
            store = MemcubeStore(memory)
            assert keys(store.search((CUBES,), query="on call")) == ["call"]
            assert keys(store.search((CUBES,))) == ["call"]
        for asked in ({"query": "on call"}, {}):
            with pytest.raises(ConflictError, match="unmounted"):
                store.search((CUBES,), **asked)


def test_an_unmounted_memory_answers_nothing_not_even_from_the_overlay(
    client: Client, overlay: Overlay
) -> None:
    from memcube.integrations.langgraph import MemcubeStore

    with client.mount("alice/backups", overlay=overlay) as memory:
        store = MemcubeStore(memory)
        store.put(ADA, "tea", {"text": "Ada likes tea."})
    acts: list[Callable[[], object]] = [
        lambda: store.get(ADA, "tea"),
        lambda: store.search(ADA, query="tea"),
        lambda: store.search(ADA),
        lambda: store.list_namespaces(),
        lambda: store.put(ADA, "tea", {"text": "Ada likes coffee."}),
        lambda: store.delete(ADA, "tea"),
    ]
    for act in acts:
        with pytest.raises(ConflictError, match="unmounted"):
            act()
    assert [record.text for record in overlay.records()] == ["Ada likes tea."]


@pytest.mark.parametrize("wrong", [{"limit": -1}, {"offset": -1}], ids=str)
def test_less_than_nothing_is_refused(store: Any, wrong: dict[str, int]) -> None:
    store.put(ADA, "tea", {"text": "Ada likes tea."})
    acts: list[Callable[[], object]] = [
        lambda: store.search(ADA, **wrong),
        lambda: store.search(ADA, query="tea", **wrong),
        lambda: store.list_namespaces(**wrong),
    ]
    for act in acts:
        with pytest.raises(InvalidRequestError, match="less than 0"):
            act()
    assert store.search(ADA, limit=0) == []
