"""The store: reads from the mounted cubes and the overlay, puts into the overlay."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from threading import RLock
from typing import Any, Final

from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    PutOp,
    SearchItem,
    SearchOp,
    validate_op_namespace,
)
from memcube_protocol.errors import ConflictError, InvalidRequestError, NotFoundError

from memcube.integrations.langgraph.items import (
    CUBES,
    OVERLAY,
    Entry,
    Namespace,
    cube_namespace,
    entry_of_cube,
    entry_of_overlay,
    fields_of,
    require_own,
    subject_of,
    text_of,
)
from memcube.integrations.langgraph.matching import fits, lies_on
from memcube.mounting import MountedCube, MountedMemory, Overlay

FIRST_LOOK: Final = 50
LAST_LOOK: Final = 1000
"""Of each cube, so many hits are looked through for those that a search's filters let pass."""


class MemcubeStore(BaseStore):
    """LangGraph's long-term memory over a mounted `memory`, and the overlay that was mounted with it.

    Without an overlay nothing can be put; `overlay` is another one than the memory's own. Items have no time to live. Searching is the mounted
    memory's own, by words; `index` says which fields are searched. Safe for several threads.
    """

    __slots__ = ("_lock", "_memory", "_overlay")

    def __init__(self, memory: MountedMemory, overlay: Overlay | None = None) -> None:
        self._memory = memory
        self._overlay = overlay or memory.overlay
        self._lock = RLock()

    def batch(self, ops: Iterable[Any]) -> list[Any]:
        """See `BaseStore.batch`: what is read was there before the batch; of two puts the last one counts.

        Raises:
            ConflictError: the memory was unmounted, there is no overlay to put into, or the namespace is
                not the graphs'.
            RuleRefusedError: the rules of a cube end its use.
            InvalidRequestError: a limit or an offset is less than none.
            InvalidNamespaceError: a label that LangGraph does not allow.
            MemcubeError: the overlay does not keep it.
        """
        asked = list(ops)
        for op in asked:
            validate_op_namespace(op)
            _require_countable(op)
        with self._lock:
            self._memory.require_mounted()
            answers = [self._answer(op) for op in asked]
            puts = {(op.namespace, op.key): op for op in asked if isinstance(op, PutOp)}
            for op in puts.values():
                self._put(op)
        return answers

    async def abatch(self, ops: Iterable[Any]) -> list[Any]:
        """See `batch`; the event loop goes on meanwhile."""
        return await asyncio.to_thread(self.batch, list(ops))

    def _answer(self, op: Any) -> Item | list[SearchItem] | list[Namespace] | None:
        if isinstance(op, GetOp):
            entry = self._find(op.namespace, op.key)
            return entry.item() if entry else None
        if isinstance(op, SearchOp):
            return self._search(op)
        if isinstance(op, ListNamespacesOp):
            return self._namespaces(op)
        return None

    def _find(self, namespace: Namespace, key: str) -> Entry | None:
        if namespace[:1] != (CUBES,):
            return self._find_own(namespace, key)
        for cube in self._cubes(namespace):
            if namespace == cube_namespace(cube.name):
                try:
                    record = self._memory.read(key, cube.name).record
                except NotFoundError:
                    return None
                return _entry(record, cube)
        return None

    def _find_own(self, namespace: Namespace, key: str) -> Entry | None:
        subject = subject_of(namespace, key)
        for record in self._overlay.records() if self._overlay else ():
            if record.subject == subject or (namespace == (OVERLAY,) and record.id == key):
                entry = entry_of_overlay(record)
                if (entry.namespace, entry.key) == (namespace, key):
                    return entry
        return None

    def _search(self, op: SearchOp) -> list[SearchItem]:
        end = op.offset + op.limit
        if op.query:
            return self._found(op, end)[op.offset : end]
        entries = (
            entry
            for entry in self._all(op.namespace_prefix)
            if fits(entry.value, op.filter) and _below(entry.namespace, op.namespace_prefix)
        )
        return [entry.item() for entry in islice(entries, op.offset, end)]

    def _found(self, op: SearchOp, wanted: int) -> list[SearchItem]:
        """The first `wanted` items that answer the query, or all there are among `LAST_LOOK` hits."""
        limit = max(FIRST_LOOK, wanted)
        while True:
            ranked = self._ranked(op, limit)
            passed = [
                entry.item(score)
                for entry, score in _merged(ranked)
                if entry.searchable
                and fits(entry.value, op.filter)
                and _below(entry.namespace, op.namespace_prefix)
            ]
            exhausted = all(len(hits) < limit for _, hits in ranked)
            if len(passed) >= wanted or exhausted or limit >= LAST_LOOK:
                return passed
            limit = LAST_LOOK

    def _ranked(self, op: SearchOp, limit: int) -> list[_Ranked]:
        """The hits of everything that the namespace may lie in, each with its priority."""
        prefix, query = op.namespace_prefix, op.query or ""
        ranked: list[_Ranked] = []
        if self._overlay is not None and prefix[:1] != (CUBES,):
            hits = self._overlay.search(query, limit, None)
            ranked.append((1, [(entry_of_overlay(hit.record), hit.score) for hit in hits]))
        for cube in self._cubes(prefix):
            hits = self._memory.search_in(cube, query, limit)
            found = [(_entry(hit.record, cube), hit.score) for hit in hits]
            ranked.append((cube.priority, found))
        return ranked

    def _namespaces(self, op: ListNamespacesOp) -> list[Namespace]:
        own = {entry.namespace for entry in self._own()}
        known = own | {cube_namespace(cube.name) for cube in self._cubes(()) if cube.records}
        found = [one for one in known if lies_on(one, op.match_conditions or ())]
        if op.max_depth is not None:
            found = list({one[: op.max_depth] for one in found})
        return sorted(found)[op.offset : op.offset + op.limit]

    def _put(self, op: PutOp) -> None:
        overlay, old = self._writable(), self._find(op.namespace, op.key)
        if op.value is None:
            if old is not None and op.namespace[:1] == (CUBES,):
                require_own(op.namespace)
            if old is not None:
                overlay.forget(old.record.id)
            return
        require_own(op.namespace)
        fields = fields_of(op, old.created_at if old else datetime.now(UTC))
        text = text_of(op.value, op.index)
        kept = overlay.remember(text, replaces=old.record.id if old else None, **fields)
        if dict(kept.extensions) != fields["extensions"]:
            # The same words of the same subject are known: what else the value says has changed.
            overlay.remember(text, replaces=kept.id, **fields)

    def _writable(self) -> Overlay:
        if self._overlay is None:
            raise ConflictError(
                "nothing can be put here: mounted cubes do not change",
                hint="mount with overlay=FOLDER, a cube of your own",
            )
        return self._overlay

    def _all(self, prefix: Namespace) -> Iterator[Entry]:
        """Every item that the namespace may lie in: own ones, then cube by cube."""
        if prefix[:1] != (CUBES,):
            yield from self._own()
        for cube in self._cubes(prefix):
            yield from (_entry(hit.record, cube) for hit in self._memory.records_in(cube))

    def _own(self) -> Iterator[Entry]:
        return map(entry_of_overlay, self._overlay.records() if self._overlay else ())

    def _cubes(self, prefix: Namespace) -> Iterator[MountedCube]:
        """The mounted cubes whose namespace may begin with `prefix`."""
        for cube in self._memory.cubes:
            if cube_namespace(cube.name)[: len(prefix)] == prefix[:2]:
                yield cube


_Ranked = tuple[int, list[tuple[Entry, float]]]
"""A priority, and entries with their scores, best first."""


def _merged(ranked: list[_Ranked]) -> Iterator[tuple[Entry, float]]:
    """All entries in fair shares (see `mounting.hits`); equal texts under two keys stay two items."""
    queue = [
        (rank / priority, -priority, position, entry, score)
        for position, (priority, hits) in enumerate(ranked)
        for rank, (entry, score) in enumerate(hits, 1)
    ]
    for *_, entry, score in sorted(queue, key=lambda one: one[:3]):
        yield entry, score


def _entry(record: Any, cube: MountedCube) -> Entry:
    return entry_of_cube(record, cube.name, cube.verified.cube.config.created_at)


def _require_countable(op: Any) -> None:
    """Refuse to give less than nothing: LangGraph's own store would leave out the last ones then."""
    if isinstance(op, SearchOp | ListNamespacesOp) and min(op.limit, op.offset) < 0:
        raise InvalidRequestError(
            f"limit={op.limit}, offset={op.offset}: neither can be less than 0",
            hint="take a limit that is large enough to get all",
        )


def _below(namespace: Namespace, prefix: Namespace) -> bool:
    return namespace[: len(prefix)] == prefix
