"""Memory in use: what `memcube.mount` returns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from memcube_protocol.config import PLAINTEXT
from memcube_protocol.errors import ConflictError, NotFoundError
from memcube_protocol.governance import SENSITIVITIES
from memcube_protocol.records import Record
from memcube_protocol.values import frozen

from memcube.closing import Closing
from memcube.consuming.verifying import Verified
from memcube.context import CONTEXT_TOKENS
from memcube.memories.plaintext.hit import Hit
from memcube.memories.turns import Shared, changing, turn, unmounted
from memcube.mounting.baseline import uninterrupted
from memcube.mounting.forgotten import ForgottenRecord
from memcube.mounting.hits import Hits
from memcube.mounting.shelf import Shelf
from memcube.mounting.sources import Findable, Overlay
from memcube.mounting.steps import MountStep, Step
from memcube.trust import location_of
from memcube.usage import Usage, Use

if TYPE_CHECKING:
    from memcube_signing.predicates.scan import Scan

    from memcube.memories.activation.mounted import Prefix
    from memcube.memories.parametric.adapters import Adapters
    from memcube.memories.plaintext.index import Filters
    from memcube.memories.plaintext.ranking import Diversity
    from memcube.memories.plaintext.relations import Neighbour

ANSWER_TOKENS: Final = 128
OVERLAY_PRIORITY: Final = 2
"""What the user's own memories weigh beside those of cubes: as much as a cube of normal priority."""

_CONTEXT_HITS: Final = 50
_WHOLE: Final = frozenset({Step.MOUNTED, Step.REBUILT, Step.PREFIX})


@frozen
class MountedCube:
    """One cube in use: its priority among the mounted ones, and its records where it has some."""

    verified: Verified
    priority: int
    records: Findable | None = None

    def __repr__(self) -> str:
        """Its name and priority; a manifest is no line to read."""
        return f"<MountedCube: {self.name}, priority {self.priority}>"

    @property
    def name(self) -> str:
        """The reference's text: what hits call the cube."""
        return str(self.verified.reference)

    @property
    def scan(self) -> Scan | None:
        """What the publisher's scan of the cube found; None where there is none."""
        from memcube.scanning.findings import attested_scan

        return attested_scan(self.verified)


@frozen
class Parts:
    """What a mounting put together; `undo` takes it apart again."""

    cubes: tuple[MountedCube, ...]
    steps: tuple[MountStep, ...]
    model: Any
    tokenizer: Any
    adapters: Adapters | None
    cache: Prefix | None
    prefix_text: str
    overlay: Overlay | None
    undo: ExitStack


_Act = TypeVar("_Act", bound=Callable[..., Any])


def _in_use(act: _Act) -> _Act:
    """`act` of a memory, which is not unmounted meanwhile: whoever does waits for the end of it."""

    @wraps(act)
    def held(memory: MountedMemory, *given: Any, **options: Any) -> Any:
        with memory._shared.using():
            return act(memory, *given, **options)

    return cast("_Act", held)


class MountedMemory(Closing):
    """The memories of one or several cubes in use; a context manager that takes them off again.

    `budget_tokens` bounds what `context` gives, over all cubes together. `usage` hears which records
    are found and which are put before a model. Records above the sensitivity `ceiling` stay out,
    whatever filters ask for. `rules` are asked at each use: a cube may expire while it is mounted, and
    then every act but `close` raises `RuleRefusedError`.
    """

    def __init__(
        self,
        parts: Parts,
        budget_tokens: int = CONTEXT_TOKENS,
        *,
        usage: Usage | None = None,
        ceiling: str = SENSITIVITIES[-1],
        rules: Sequence[Callable[[], None]] = (),
    ) -> None:
        self._parts: Parts | None = parts
        self._shared = Shared()
        self._rules = tuple(rules)
        self.cubes = parts.cubes
        self.steps: Sequence[MountStep] = parts.steps
        self.budget_tokens = budget_tokens
        self._usage = usage or Usage(None)
        self._ceiling = ceiling
        self._locations = {cube.name: location_of(cube.verified.reference) for cube in self.cubes}
        self._always = [
            Use.of_memory(self._locations[step.cube], step.memory)
            for step in self.steps
            if step.kind != PLAINTEXT and step.step in _WHOLE
        ]
        for cube in self.cubes:
            self._usage.mounted(self._locations[cube.name], str(cube.verified.cube.digest))

    def require_mounted(self) -> None:
        """Refuse whoever goes past this memory, as an overlay that is asked by itself does.

        Raises:
            ConflictError: the memories were unmounted.
            RuleRefusedError: the rules of a cube end its use.
        """
        self._open()

    @property
    def has_model(self) -> bool:
        """Whether there is a model to ask."""
        parts = self._open()
        return parts.model is not None and parts.tokenizer is not None

    @property
    def overlay(self) -> Overlay | None:
        """Where `remember` writes, if anywhere."""
        return self._open().overlay

    @property
    def adapters(self) -> Adapters:
        """The mounted LoRA adapters, to list, switch, combine and route; none without a model."""
        from memcube.memories.parametric.adapters import Adapters

        return self._open().adapters or Adapters()

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """The token ids that every prompt starts with: those of the mounted KV cache."""
        cache = self._open().cache
        return cache.token_ids if cache else ()

    @property
    def prefix_text(self) -> str:
        """The text that every prompt starts with, the same to the byte as long as it is mounted.

        With a KV cache, what that was made from, if it carries it. Without a model, the texts that the
        plan put there, between delimiters that they cannot close. Else empty.
        """
        return self._open().prefix_text

    @_in_use
    def search(
        self,
        query: str,
        limit: int = 10,
        filters: Filters | None = None,
        *,
        diversity: Diversity | None = None,
    ) -> list[Hit]:
        """The records that answer `query`, best first, of all cubes in fair shares; see `hits.fuse`.

        `diversity` bounds how much they may repeat one another, across all cubes. A cube gives 1000 at most.
        """
        hits = Hits(self._shelf().search(query, limit, filters, diversity))
        self._usage.found(self._used(hits))
        return hits

    @_in_use
    def neighbours(
        self,
        record_id: str,
        cube: str | None = None,
        *,
        types: Collection[str] = (),
        depth: int = 1,
        limit: int = 50,
        filters: Filters | None = None,
    ) -> list[Neighbour]:
        """Records around one by their relations, in both directions, nearest first; see `read`.

        Relations lead to records of the same cube. `types` are those to follow, all if empty; `depth` is
        at most 8. Of the records that point to one, the first 1000 are looked at.

        Raises:
            NotFoundError: no cube has it, or there is no such cube.
            InvalidError: `types` is one text.
        """
        hit = self.read(record_id, cube)
        return self._shelf().neighbours(hit, types=types, depth=depth, limit=limit, filters=filters)

    @_in_use
    def read(self, record_id: str, cube: str | None = None) -> Hit:
        """The record of this id: of `cube`, or of the first cube by priority that has it.

        Raises:
            NotFoundError: no cube has it, or there is no such cube.
        """
        hit = self._shelf().read(record_id, cube)
        self._usage.found(self._used([hit]))
        return hit

    def records(self) -> Iterator[Hit]:
        """All records that may be shown, cube by cube in the order of `cubes`, each in order of id."""
        yield from self._shared.each(self._shelf().records(), self._mounted)

    @_in_use
    def search_in(
        self, cube: MountedCube, query: str, limit: int = 10, filters: Filters | None = None
    ) -> list[Hit]:
        """As `search`, in one of `cubes` alone; the indicators hear nothing of it."""
        capped = self._shelf().capped(filters)
        return cube.records.search(query, limit, capped) if cube.records else []

    def records_in(self, cube: MountedCube) -> Iterator[Hit]:
        """As `records`, of one of `cubes` alone."""
        shelf = self._shelf()
        if cube.records:
            yield from self._shared.each(shelf.records_of(cube.records), self._mounted)

    @_in_use
    def context(
        self, query: str, budget_tokens: int | None = None, filters: Filters | None = None
    ) -> str:
        """The best records for `query` as text for a prompt; empty if none is found.

        Between delimiters that no record can close, with ids to cite, and the cube of each where
        several are mounted or an id looks like a citation (`acme/notes:1.0.0#m-17`); with a tokenizer,
        without what that would take for a control token. `budget_tokens` is, unless given, what the
        memory's own leaves beside a prefix of text.
        """
        from memcube.memories.plaintext.context import render

        parts = self._open()
        if budget_tokens is None:
            budget_tokens = self.budget_tokens - self._prefix_tokens()
        shelf, told = self._shelf(), list[int]()
        hits = shelf.search(query, _CONTEXT_HITS, filters)
        text = render(
            [hit.record for hit in hits],
            budget_tokens,
            self._count_tokens if parts.tokenizer is not None else None,
            cubes=[
                hit.cube if len(shelf.sources) > 1 or "#" in hit.record.id else None for hit in hits
            ],
            told=told.append,
        )
        self._usage.answered(self._always + self._used(hits[position] for position in told))
        return self._unframed(text)

    @_in_use
    def generate(
        self,
        question: str,
        *,
        context: str | None = None,
        max_new_tokens: int = ANSWER_TOKENS,
        **options: Any,
    ) -> str:
        """The model's answer to `question` with all memories in use; greedy unless `options` differ.

        `options` are those of transformers' `generate`. `context` is put before the question; None looks
        records up, the empty string puts none. Of several answers (`num_return_sequences`) it is the first; it ends
        where the model has no further position.

        Raises:
            NotFoundError: the cubes were mounted without a model and a tokenizer.
            InvalidRequestError: there is nothing to ask, no token; several questions at once; or no
                token is wanted.
            ConflictError: the memories were unmounted, or other adapters are active.
            IntegrityError: the file of an adapter or a cache was written into after it was checked.
            LimitExceededError: prompt and memory are longer than the model reads.
            UnsupportedError: an option with which the answer would pass the memory over.
        """
        if not self.has_model:
            raise NotFoundError(
                "there is no model to ask", hint="mount the cube with model= and tokenizer="
            )
        from memcube.memories.activation.generation import generate
        from memcube.memories.plaintext.question import require_text

        require_text("question", question)
        if context is not None:
            require_text("context", context)
        parts = self._open()
        if parts.adapters:
            parts.adapters.require_unchanged()
        found = self.context(question) if context is None else context
        if context is not None:
            self._usage.answered(self._always)
        return generate(
            parts.model,
            parts.tokenizer,
            f"{found}\n\n{question}" if found else question,
            memory=parts.cache,
            max_new_tokens=max_new_tokens,
            **options,
        )

    @_in_use
    def remember(self, text: str, **fields: Any) -> Record:
        """Keep `text` in the overlay, with further fields of a record (`type`, `tags`, …).

        Raises:
            ConflictError: there is no overlay: a cube that was released does not change.
        """
        return self._writable().remember(text, **fields)

    @_in_use
    def forget(self, record_id: str) -> ForgottenRecord:
        """Never show a record again; returns where copies of it remain.

        Raises:
            ConflictError: there is no overlay.
            NotFoundError: there is no such record.
        """
        return self._writable().forget(record_id)

    @_in_use
    def new_cache(self) -> Any:
        """A fresh cache that starts behind the mounted KV memory, for one prompt; None without one.

        Raises:
            ConflictError: the memories were unmounted, or other adapters are active.
        """
        cache = self._open().cache
        return cache.new_cache() if cache else None

    def close(self) -> None:
        """Take the memories off the model, the last one first, and let go of it.

        Waits for what other threads are asking this memory, and this model; Ctrl-C ends the wait, not the
        unmounting.

        Raises:
            ConflictError: this very thread is asking it.
        """
        model = self._parts and self._parts.model
        with turn(model), self._shared.changing(), changing(model), uninterrupted():
            parts, self._parts = self._parts, None
            if parts is not None:
                parts.undo.close()
                self._usage.close()

    def _used(self, hits: Iterable[Hit]) -> list[Use]:
        """What the indicators are told of `hits`; the user's own overlay is not counted."""
        return [
            Use(self._locations[hit.cube], hit.record.id, hit.score)
            for hit in hits
            if hit.cube in self._locations
        ]

    def __repr__(self) -> str:
        """What a prompt of Python shows: what is mounted, also once it is no more."""
        names = [one.name for one in self.cubes]
        if self._parts is None:
            names.append("unmounted")
        elif self._parts.overlay:
            names.append(f"overlay {self._parts.overlay.name}")
        return f"<MountedMemory: {', '.join(names)}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the cubes, and what became of each of their memories."""
        from memcube.mounting.notebook import table

        cubes = [
            (one.name, str(one.priority), str(one.verified.verdict.standing)) for one in self.cubes
        ]
        if self._parts is None:
            return table(("unmounted",), [(one.name,) for one in self.cubes])
        if own := self._parts.overlay:
            cubes.append((own.name, str(OVERLAY_PRIORITY), "your own overlay, searched by words"))
        steps = [(str(one.step), one.kind, one.memory, one.cube, one.why) for one in self.steps]
        return table(("cube", "priority", "standing"), cubes) + table(
            ("step", "kind", "memory", "cube", "why"), steps
        )

    def _mounted(self) -> Parts:
        if self._parts is None:
            raise unmounted()
        return self._parts

    def _open(self) -> Parts:
        parts = self._mounted()
        for ask in self._rules:
            ask()
        return parts

    def _shelf(self) -> Shelf:
        """Everything that has records: the overlay first, then the cubes."""
        parts = self._open()
        sources = [(cube.priority, cube.records) for cube in parts.cubes if cube.records]
        own = [(OVERLAY_PRIORITY, parts.overlay)] if parts.overlay else []
        return Shelf((*own, *sources), self._ceiling)

    def _writable(self) -> Overlay:
        overlay = self._open().overlay
        if overlay is None:
            raise ConflictError(
                "nothing can be remembered or forgotten here: mounted cubes do not change",
                hint="mount with overlay=, a cube of your own",
            )
        return overlay

    def _count_tokens(self, text: str) -> int:
        unframed = self._unframed(text)
        return len(self._open().tokenizer(unframed, add_special_tokens=False)["input_ids"])

    @cached_property
    def _control(self) -> frozenset[str]:
        """The control tokens of the tokenizer that are its own: rendering breaks those of all models already."""
        from memcube.memories.control_tokens import control_tokens
        from memcube.memories.plaintext.context import neutralise

        tokenizer = self._open().tokenizer
        known = frozenset() if tokenizer is None else control_tokens(tokenizer)
        return frozenset(token for token in known if neutralise(token) == token)

    def _unframed(self, text: str) -> str:
        """`text`, the control tokens that it spells broken: a record frames no turn."""
        from memcube.memories.control_tokens import without_control_tokens

        return without_control_tokens(text, self._control)

    def _prefix_tokens(self) -> int:
        """What a prefix takes of the budget where it is text, not a cache."""
        from memcube.memories.plaintext.context import estimate_tokens

        parts = self._open()
        if parts.cache or not parts.prefix_text:
            return 0
        count = estimate_tokens if parts.tokenizer is None else self._count_tokens
        return count(parts.prefix_text)
