"""Whatever is done to an overlay in whatever order, every view of it says what a dictionary would."""

from __future__ import annotations

import errno
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube.overlay import Overlay
from memcube.store import files
from memcube_protocol.errors import DiskFullError
from memcube_protocol.records import read_lines

words = st.sampled_from(["cat", "dog", "owl", "elk"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("remember"), words),
        st.tuples(st.just("replace"), words, st.integers(0, 3)),
        st.tuples(st.just("forget"), st.integers(0, 3)),
        st.tuples(st.just("write by hand"), words),
        st.tuples(st.just("move"), st.just(0)),
    ),
    max_size=10,
)


class Folder:
    """A folder with two overlays open, used in turn, and what should be in it."""

    def __init__(self, root: Path) -> None:
        self.views = [Overlay.open(root), Overlay.open(root)]
        self.known: dict[str, str] = {}
        self.turn = 0
        self.root = root

    def do(self, act: str, word: str | int, at: int = 0) -> None:
        self.turn += 1
        view, ids = self.views[self.turn % 2], sorted(self.known)
        if act == "remember":
            if word not in self.known.values():
                record = view.remember(str(word))
                self.known[record.id] = str(word)
            else:
                assert view.remember(str(word)).id in self.known
        elif act == "replace" and at < len(ids):
            record = view.remember(str(word), replaces=ids[at])
            del self.known[ids[at]]
            self.known[record.id] = str(word)
        elif act == "forget" and int(word) < len(ids):
            view.forget(ids[int(word)])
            del self.known[ids[int(word)]]
        elif act == "write by hand":
            path = self.root / f"plaintext/hand-{self.turn}.jsonl"
            path.write_text(f'{{"id": "hand-{self.turn}", "text": "{word}"}}')
            self.known[f"hand-{self.turn}"] = str(word)
        elif act == "move":
            for path in sorted(self.root.glob("plaintext/*.jsonl"))[:1]:
                path.rename(path.with_name(f"moved-{self.turn}.jsonl"))

    def check(self) -> None:
        for view in (*self.views, Overlay.open(self.root)):
            assert {record.id: record.text for record in view.records()} == self.known
            for word in ("cat", "dog"):
                found = {hit.record.id for hit in view.search(word, 100)}
                assert found == {one for one, text in self.known.items() if text == word}
        packed = [
            record.id
            for path in self.root.glob("plaintext/*.jsonl")
            for record in read_lines(path.read_bytes().splitlines(keepends=True))
        ]
        assert sorted(packed) == sorted(self.known)


@settings(max_examples=20)
@given(steps)
def test_every_view_agrees_after_every_step(done: list[tuple]) -> None:
    root = Path(tempfile.mkdtemp())
    try:
        folder = Folder(root / "notes")
        for step in done:
            folder.do(*step)
            folder.check()
    finally:
        shutil.rmtree(root)


def test_threads_and_views_of_one_process_lose_nothing(tmp_path: Path) -> None:
    views = [Overlay.open(tmp_path / "notes") for _ in range(2)]
    with ThreadPoolExecutor(4) as threads:
        kept = list(
            threads.map(lambda number: views[number % 2].remember(f"note {number}").id, range(16))
        )
    assert {record.id for record in views[0].records()} == set(kept)
    assert len(set(kept)) == 16


def test_a_full_disk_changes_nothing_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = Overlay.open(tmp_path / "notes")
    record = overlay.remember("before")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files, "write_all", full)
        for act in (
            lambda: overlay.remember("more"),
            lambda: overlay.remember("other", replaces=record.id),
        ):
            with pytest.raises(DiskFullError):
                act()
    assert [one.id for one in Overlay.open(overlay.folder).records()] == [record.id]
    assert [path.name for path in overlay.folder.glob("plaintext/*")] == ["memory-000001.jsonl"]
    overlay.remember("more")
