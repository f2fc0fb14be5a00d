"""Mounting under way: the plan followed step by step, and the way back from each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from memcube_protocol.config import ACTIVATION, PARAMETRIC, PLAINTEXT, Memory
from memcube_protocol.digest import Digest
from memcube_protocol.errors import ConflictError, IncompatibleError
from memcube_protocol.records import Record

from memcube.consuming.holdings import INDEXES, memory_folder
from memcube.context import Context
from memcube.figures import bytes_text, count_text
from memcube.mounting.caches import Caches
from memcube.mounting.chosen import Chosen, in_order
from memcube.mounting.mounted import MountedCube, Parts
from memcube.mounting.offers import NO_WISHES, Wishes, manifest_of
from memcube.mounting.passages import passages_of
from memcube.mounting.planning import Act, Offer, Plan, Planned
from memcube.mounting.sources import CubeRecords, Findable, Joined, Overlay
from memcube.mounting.steps import MountStep, Step

if TYPE_CHECKING:
    from memcube_protocol.identity import BaseIdentity

    from memcube.memories.parametric.adapters import Adapters
    from memcube.memories.plaintext.build import Records


class MemLoader:
    """One mounting under way; `undo` takes off what is mounted, in reverse order.

    `cubes` go by priority; what a plan wants of them has to lie in the store.
    """

    def __init__(
        self,
        context: Context,
        cubes: Sequence[Chosen],
        model: Any,
        tokenizer: Any,
        wishes: Wishes = NO_WISHES,
    ) -> None:
        self.context = context
        self.cubes = in_order(cubes)
        self.model = model
        self.tokenizer = tokenizer
        self.wishes = wishes
        self.adapters: Adapters | None = None
        self.sources: dict[str, dict[Digest, CubeRecords]] = {}
        self.steps: list[MountStep] = []
        self.undo = ExitStack()
        self._refusals: dict[str, list[tuple[str, IncompatibleError]]] = {}
        self._identity: BaseIdentity | None = None
        self.caches = Caches(context, model, tokenizer, wishes, self.undo, lambda: self.identity)

    def follow(self, plan: Plan) -> None:
        """Do what `plan` says, LoRA first, then the KV cache, then what is looked up.

        Raises:
            IncompatibleError: there are memories of a kind for one model, builds of what is mounted itself
                aside, and none fits.
        """
        at = {chosen.name: chosen for chosen in self.cubes}
        for kind in (PARAMETRIC, ACTIVATION, PLAINTEXT):
            for choice in plan.choices:
                if choice.offer.kind == kind:
                    chosen = at[choice.offer.cube]
                    self._do(choice, chosen, chosen.memory(choice.offer.memory))
            self._require_a_fit(kind)
            if kind == ACTIVATION:
                self.caches.compose()

    def mount_adapters(self) -> None:
        """Mount every LoRA that fits, and nothing else.

        Raises:
            IncompatibleError: there are some, and none fits.
        """
        for chosen in self.cubes:
            for memory in chosen.memories():
                if memory.kind == PARAMETRIC:
                    offer = Offer(chosen.name, memory.id, memory.kind)
                    self._do(Planned(offer, Act.LOAD, ""), chosen, memory)
        self._require_a_fit(PARAMETRIC)

    def parts(self, overlay: Overlay | None = None) -> Parts:
        """What is mounted now."""
        cubes = tuple(
            MountedCube(chosen.verified, chosen.share, self._records_of(chosen))
            for chosen in self.cubes
        )
        own = (_step_of(overlay),) if overlay is not None else ()
        return Parts(
            cubes=cubes,
            steps=(*own, *self.steps),
            model=self.model,
            tokenizer=self.tokenizer,
            adapters=self.adapters,
            cache=self.caches.prefix,
            prefix_text=self.caches.text,
            overlay=overlay,
            undo=self.undo,
        )

    @property
    def identity(self) -> BaseIdentity:
        """That of the model's base, computed once."""
        if self._identity is None:
            from memcube.memories.known_identity import known_identity

            self._identity = known_identity(self.model)
        return self._identity

    @cached_property
    def _embedder(self) -> object:
        """The embedder that is wished, made once for all cubes; None, or LSA, which each cube fits."""
        from memcube.memories.plaintext.plugins import embedder_of

        return embedder_of(self.wishes.embedder, self.context.settings)

    def _records_of(self, chosen: Chosen) -> Findable | None:
        sources = [*self.sources.get(chosen.name, {}).values()]
        return Joined(sources) if len(sources) > 1 else next(iter(sources), None)

    def _do(self, choice: Planned, chosen: Chosen, memory: Memory) -> None:
        """Do one step of a plan, and note what became of it."""
        act = _ACTS.get((memory.kind, choice.act))
        if choice.act is Act.LEAVE or act is None:
            step = Step.REFUSED if choice.offer.misfit else Step.SKIPPED
            self._note(chosen, memory, step, choice.why)
            if misfit := choice.offer.misfit:
                self._refuse(chosen, memory, IncompatibleError(misfit.why, hint=misfit.hint))
            return
        try:
            step, why = act(self, choice, chosen, memory)
        except IncompatibleError as error:
            self._note(chosen, memory, Step.REFUSED, str(error))
            self._refuse(chosen, memory, error)
        else:
            more = choice.why if memory.kind != PLAINTEXT else _fetched(choice)
            self._note(chosen, memory, step, f"{why}; {more}" if more else why)

    def _load_adapter(self, _: Planned, chosen: Chosen, memory: Memory) -> tuple[Step, str]:
        from memcube.memories.parametric.adapters import Adapters
        from memcube.memories.parametric.mount import mount_lora
        from memcube.memories.parametric.routing import description_of
        from memcube.store.checks import CHECKS_FILE, FileChecks

        if self.adapters is None:
            self.adapters = Adapters()
            self.undo.callback(self.adapters.close)
        try:
            mounted = mount_lora(
                self._folder(chosen, memory),
                self.model,
                base_identity=self.identity,
                allow_unverified_base=self.wishes.allow_unverified_base,
                checks=FileChecks(self.context.settings.home / CHECKS_FILE),
            )
        except ConflictError as error:  # the same one from another cube, or one more with biases
            if not len(self.adapters):
                raise
            return Step.SKIPPED, str(error)
        self.undo.callback(mounted.unmount)
        about = description_of(chosen.verified.cube.config, memory)
        self.adapters.add(memory.id, mounted, about, cube=chosen.name)
        return Step.MOUNTED, f"{mounted.verdict.level}: {mounted.verdict.why}"

    def _load_cache(self, choice: Planned, chosen: Chosen, memory: Memory) -> tuple[Step, str]:
        return self.caches.load(choice, chosen, memory)

    def _prefill(self, choice: Planned, chosen: Chosen, memory: Memory) -> tuple[Step, str]:
        return self.caches.prefill(choice, chosen, memory)

    def _look_up_records(self, _: Planned, chosen: Chosen, memory: Memory) -> tuple[Step, str]:
        """The records of the cube, or of a build: all shards are of its one plaintext memory."""
        assert memory.kind == PLAINTEXT
        from memcube.memories.plaintext.index import records_bytes_of, records_of, vector_files

        built, store = chosen.build_of(memory), self.context.store
        holder = built.build if built else chosen.verified.cube
        records = partial(records_of, holder.manifest, store)
        vectors = vector_files(holder.manifest, store)
        size_bytes = records_bytes_of(holder.manifest)
        told = self._look_up(
            chosen, holder.digest, records, vectors=vectors, records_bytes=size_bytes
        )
        return Step.MOUNTED, told

    def _look_up_text(self, _: Planned, chosen: Chosen, memory: Memory) -> tuple[Step, str]:
        text = manifest_of(self.context, chosen, memory).source.text
        assert text is not None
        key = Digest.of(f"{memory.id}\n{text}".encode())

        def passages() -> list[Record]:
            return sorted(passages_of(text, memory.id), key=attrgetter("id"))

        below = f"texts-{chosen.verified.cube.digest.hex}"
        return Step.TEXT, self._look_up(chosen, key, passages, below=below)

    def _look_up(
        self,
        chosen: Chosen,
        key: Digest,
        records: Records,
        *,
        vectors: Sequence[Path] = (),
        below: str = "",
        records_bytes: int = 0,
    ) -> str:
        """Open the index of `records` once; it is built at the first mount of all."""
        from memcube.memories.plaintext.build import labelled
        from memcube.memories.plaintext.index import PlaintextIndex

        sources = self.sources.setdefault(chosen.name, {})
        if key not in sources:
            index = PlaintextIndex.open(
                self.context.settings.home / INDEXES / below,
                key,
                partial(labelled, records, chosen.verified.cube.config.governance.sensitivity),
                vectors=vectors,
                embedder=self._embedder,
                server=self.wishes.search_server,
                settings=self.context.settings,
                records_bytes=records_bytes,
            )
            sources[key] = own = CubeRecords(chosen.name, index)
            self.undo.callback(own.close)
        held = sources[key]
        noun = "passage" if below else "record"
        return f"{count_text(len(held), noun)}, searched with {held.searched_with}"

    def _require_a_fit(self, kind: str) -> None:
        refusals = self._refusals.get(kind)
        done = {*Step} - {Step.REFUSED, Step.SKIPPED}
        if refusals and not any(step.kind == kind and step.step in done for step in self.steps):
            name, error = refusals[0]
            raise IncompatibleError(f"{name}: {error}", hint=error.hint) from error

    def _refuse(self, chosen: Chosen, memory: Memory, error: IncompatibleError) -> None:
        if chosen.is_spare(memory):
            return
        name = f"{memory.id} of {chosen.name}"
        self._refusals.setdefault(memory.kind, []).append((name, error))

    def _folder(self, chosen: Chosen, memory: Memory) -> Path:
        if built := chosen.build_of(memory):
            return built.folder(self.context)
        return memory_folder(self.context, chosen.verified, memory.id)

    def _note(self, chosen: Chosen, memory: Memory, step: Step, why: str) -> None:
        self.steps.append(MountStep(memory.id, memory.kind, step, why, chosen.name))


def _step_of(overlay: Overlay) -> MountStep:
    """That what the user keeps is searched as well: by words, for it changes at every call."""
    count = count_text(sum(1 for _ in overlay.records()), "record")
    why = f"your own overlay: {count}, searched by words"
    return MountStep(PLAINTEXT, PLAINTEXT, Step.MOUNTED, why, overlay.name)


def _fetched(choice: Planned) -> str:
    return f"{bytes_text(choice.fetch_bytes)} fetched" if choice.fetch_bytes else ""


_Doing = Callable[[MemLoader, Planned, Chosen, Memory], tuple[Step, str]]
_ACTS: Final[dict[tuple[str, Act], _Doing]] = {
    (PARAMETRIC, Act.LOAD): MemLoader._load_adapter,
    (ACTIVATION, Act.LOAD): MemLoader._load_cache,
    (ACTIVATION, Act.PREFILL): MemLoader._prefill,
    (ACTIVATION, Act.RETRIEVE): MemLoader._look_up_text,
    (PLAINTEXT, Act.RETRIEVE): MemLoader._look_up_records,
}
