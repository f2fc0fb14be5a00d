"""Embedders that are named: endpoints over HTTP, folders, entry points, functions; and what is refused."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from memcube.memories.plaintext import plugins as plaintext_plugins
from memcube.memories.plaintext.embedders import FunctionEmbedder, probe
from memcube.memories.plaintext.endpoint import TEXT_CHARS, TOKEN_VARIABLE, EndpointEmbedder
from memcube.memories.plaintext.index import PlaintextIndex
from memcube.memories.plaintext.plugins import embedder_of, places_of
from memcube.settings import Settings
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ForbiddenError,
    InvalidError,
    InvalidSettingError,
    MemcubeError,
    MissingDependencyError,
    NetworkError,
    NotFoundError,
    UnauthenticatedError,
)
from support.memories import note

pytest.importorskip("qdrant_edge")


def lengths(texts: list[str]) -> list[list[float]]:
    return [[float(len(text)), float("tea" in text), 1.0] for text in texts]


class Endpoint(BaseHTTPRequestHandler):
    """Embeds by `lengths`, or answers what `answer` says; keeps what it was asked."""

    def do_POST(self) -> None:
        server: Any = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server.asked.append((self.path, dict(self.headers), body))
        status, content = server.answer or (200, self.embedded(body["input"]))
        self.send_response(status)
        if status == 307:
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    @staticmethod
    def embedded(texts: list[str]) -> bytes:
        data = [{"index": n, "embedding": vector} for n, vector in enumerate(lengths(texts))]
        return json.dumps({"data": list(reversed(data)), "model": "m"}).encode()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def served() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_port}/v1#m"
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def endpoint(served: Any) -> Any:
    served.asked, served.answer = [], None
    return served


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load({"MEMCUBE_HOME": str(tmp_path), "MEMCUBE_KEYRING": "0"})


def test_an_endpoint_embeds_records_and_questions(
    endpoint: Any, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMCUBE_EMBEDDER_TOKEN", "secret")
    embedder = EndpointEmbedder(endpoint.url, settings)
    records = [note(n, f"tea {'x' * n}") for n in range(100)]
    with PlaintextIndex.open(
        tmp_path / "i", Digest.of(b"c"), lambda: records, embedder=embedder
    ) as index:
        assert index.search("tea")
        assert f"m at 127.0.0.1:{endpoint.server_port}" in index.searched_with
    paths, headers, bodies = zip(*endpoint.asked, strict=True)
    assert set(paths) == {"/v1/embeddings"}
    assert {head["Authorization"] for head in headers} == {"Bearer secret"}
    assert {body["model"] for body in bodies} == {"m"}
    assert max(len(body["input"]) for body in bodies) <= 64
    assert bodies[-1]["input"] == ["tea"]
    assert not embedder.remote


def test_a_text_of_a_mebibyte_is_sent_in_part(endpoint: Any, settings: Settings) -> None:
    EndpointEmbedder(endpoint.url, settings).texts(["tea " * 250_000])
    ((_, _, body),) = endpoint.asked
    assert len(body["input"][0]) == TEXT_CHARS


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((200, b"<html>"), NetworkError),
        ((200, b"{}"), NetworkError),
        ((200, b'{"data": [{"index": 5, "embedding": [1]}]}'), NetworkError),
        ((200, b'{"data": [{"index": 0, "embedding": [1, NaN]}]}'), NetworkError),
        ((200, b'{"data": [{"index": 0, "embedding": ["x"]}]}'), InvalidError),
        ((200, b'{"data": [{"index": 0, "embedding": []}]}'), InvalidError),
        ((200, b'{"data": [{"index": 0, "embedding": [1e400]}]}'), MemcubeError),
        ((307, b""), MemcubeError),
        ((401, b"no"), UnauthenticatedError),
        ((403, b"no"), ForbiddenError),
    ],
)
def test_what_an_endpoint_answers_is_checked(
    endpoint: Any, settings: Settings, answer: tuple[int, bytes], error: type[MemcubeError]
) -> None:
    endpoint.answer = answer
    with pytest.raises(error) as caught:
        EndpointEmbedder(endpoint.url, settings).query("tea")
    assert caught.value.hint
    assert (TOKEN_VARIABLE in caught.value.hint) == (answer[0] in (401, 403))


@pytest.mark.parametrize(
    "url",
    [
        "http://models.example/v1#m",
        "https://models.example/v1",
        "https://user:word@models.example/v1#m",
        "https:///v1#m",
    ],
)
def test_an_address_that_would_give_records_away_is_refused(url: str, settings: Settings) -> None:
    with pytest.raises(InvalidSettingError):
        EndpointEmbedder(url, settings)


def test_texts_that_leave_this_machine_are_told_of(settings: Settings) -> None:
    far = "https://models.example/v1#m"
    assert EndpointEmbedder(far, settings).remote
    assert places_of(far, settings) == ("the embedder m at models.example",)
    assert places_of(EndpointEmbedder(far, settings)) == places_of(far, settings)
    for near in (None, "lsa", "./absent", Path("absent"), "http://127.0.0.1:9/v1#m", lengths):
        assert places_of(near, settings) == ()


def test_offline_asks_no_endpoint(endpoint: Any, tmp_path: Path) -> None:
    offline = Settings.load({"MEMCUBE_HOME": str(tmp_path), "MEMCUBE_OFFLINE": "1"})
    with pytest.raises(NetworkError, match="offline"):
        EndpointEmbedder(endpoint.url, offline).query("tea")
    assert endpoint.asked == []


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda texts: [[1.0]] * (len(texts) + 1), "shape"),
        (lambda texts: [1.0] * len(texts), "shape"),
        (lambda texts: [[float("nan")]] * len(texts), "NaN"),
        (lambda texts: [[1.0, float("inf")]] * len(texts), "NaN"),
        (lambda texts: [[1.0] * (1 + n % 2) for n in range(len(texts))], "one width"),
        (lambda texts: None, "shape"),
        (lambda texts: [["one"]] * len(texts), "numbers"),
    ],
)
def test_vectors_of_another_width_or_of_no_numbers_are_refused(made: Any, why: str) -> None:
    with pytest.raises(InvalidError, match=why):
        probe(FunctionEmbedder(made, name="broken"))


def test_a_width_that_changes_on_the_way_is_refused_and_leaves_no_index(tmp_path: Path) -> None:
    def growing(texts: list[str]) -> list[list[float]]:
        return [[1.0] * (2 if text.startswith("tea") else 3) for text in texts]

    with pytest.raises(InvalidError, match=r"shape|numbers"):
        PlaintextIndex.open(tmp_path, Digest.of(b"c"), lambda: [note(1, "tea")], embedder=growing)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_an_entry_point_makes_an_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("acme", f"{__name__}:made_by_plugin", plaintext_plugins.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: made_by_plugin if self is point else None)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point])
    assert getattr(embedder_of("acme:large"), "name", "") == "large"
    assert getattr(embedder_of("acme"), "name", "") == "small"
    with pytest.raises(NotFoundError, match="other"):
        embedder_of("other")


def made_by_plugin(size: str = "small") -> FunctionEmbedder:
    return FunctionEmbedder(lengths, name=size)


def test_a_folder_without_sentence_transformers_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependencyError, match="sentence-transformers"):
        embedder_of(tmp_path)


@pytest.mark.parametrize("given", ["", "tests", "./nowhere", "/nowhere/model"])
def test_a_name_that_names_nothing_is_not_found(given: str) -> None:
    with pytest.raises(NotFoundError):
        embedder_of(given)


@pytest.mark.parametrize("given", [7, b"lsa", ["lsa"]])
def test_what_is_no_embedder_is_refused(given: object) -> None:
    with pytest.raises(InvalidError, match="neither"):
        embedder_of(given)
