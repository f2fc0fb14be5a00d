"""Mounting under way: the plan followed step by step, and the way back from each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from memcube_protocol.config import ACTIVATION, PARAMETRIC, PLAINTEXT, Memory
from memcube_protocol.digest import Digest
from memcube_protocol.errors import IncompatibleError

from memcube.context import Context
from memcube.holdings import BUILDS, INDEXES, memory_folder
from memcube.mounting.chosen import Chosen, in_order
from memcube.mounting.mounted import MountedCube, Parts
from memcube.mounting.offers import NO_WISHES, Wishes, manifest_of
from memcube.mounting.passages import passages_of, prefix_text
from memcube.mounting.planning import Act, Offer, Plan, Planned
from memcube.mounting.sources import CubeRecords, Findable, Joined, Overlay
from memcube.mounting.steps import MountStep, Step

if TYPE_CHECKING:
    from memcube_protocol.identity import BaseIdentity

    from memcube.memories.activation import MountedKv
    from memcube.memories.kv_mounted import Prefix
    from memcube.memories.parametric_adapters import Adapters
    from memcube.memories.plaintext_build import Records

BARE: Final = "bare"
"""The special-token policy of a text that is tokenised as it stands (docs/spec/activation.md)."""


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
        self.caches: list[tuple[Prefix, str | None]] = []
        self.prefixes: list[tuple[str, str]] = []
        self.sources: dict[str, dict[Digest, CubeRecords]] = {}
        self.steps: list[MountStep] = []
        self.undo = ExitStack()
        self._refusals: dict[str, list[IncompatibleError]] = {}
        self._identity: BaseIdentity | None = None

    def follow(self, plan: Plan) -> None:
        """Do what `plan` says, LoRA first, then the KV cache, then what is looked up.

        Raises:
            IncompatibleError: there are memories of a kind for one model, and none fits.
        """
        at = {chosen.name: chosen for chosen in self.cubes}
        for kind in (PARAMETRIC, ACTIVATION, PLAINTEXT):
            for choice in plan.choices:
                if choice.offer.kind == kind:
                    chosen = at[choice.offer.cube]
                    self._do(choice, chosen, chosen.memory(choice.offer.memory))
            self._require_a_fit(kind)
            if kind == ACTIVATION and len(self.caches) > 1:
                self._compose()

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
        return Parts(
            cubes=cubes,
            steps=tuple(self.steps),
            model=self.model,
            tokenizer=self.tokenizer,
            adapters=self.adapters,
            cache=self.caches[0][0] if self.caches else None,
            prefix_text=(self.caches[0][1] or "") if self.caches else prefix_text(self.prefixes),
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
        """The wished embedder, made once for all cubes; a name that is none is refused where it is used."""
        wished = self.wishes.embedder
        if not isinstance(wished, str) or not wished.startswith(("http://", "https://")):
            return wished
        from memcube.memories.plaintext_plugins import embedder_of

        return embedder_of(wished, self.context.settings)

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
                self._refuse(memory, IncompatibleError(misfit.why, hint=misfit.hint))
            return
        try:
            step, why = act(self, choice, chosen, memory)
        except IncompatibleError as error:
            self._note(chosen, memory, Step.REFUSED, str(error))
            self._refuse(memory, error)
        else:
            self._note(chosen, memory, step, f"{why}; {choice.why}" if choice.why else why)

    def _load_adapter(self, _: Planned, chosen: Chosen, memory: Memory) -> tuple[Step, str]:
        from memcube.memories.parametric import mount_lora
        from memcube.memories.parametric_adapters import Adapters
        from memcube.memories.parametric_routing import description_of
        from memcube.store.checks import CHECKS_FILE, FileChecks

        if self.adapters is None:
            self.adapters = Adapters()
            self.undo.callback(self.adapters.close)
        mounted = mount_lora(
            self._folder(chosen, memory),
            self.model,
            base_identity=self.identity,
            allow_unverified_base=self.wishes.allow_unverified_base,
            checks=FileChecks(self.context.settings.home / CHECKS_FILE),
        )
        self.undo.callback(mounted.unmount)
        about = description_of(chosen.verified.cube.config, memory)
        self.adapters.add(memory.id, mounted, about, cube=chosen.name)
        return Step.MOUNTED, f"{mounted.verdict.level}: {mounted.verdict.why}"

    def _load_cache(self, choice: Planned, chosen: Chosen, memory: Memory) -> tuple[Step, str]:
        from memcube.findings import opacity_of
        from memcube.memories.kv_mounted import Exactness

        try:
            cache = self._mount_cache(self._folder(chosen, memory))
        except IncompatibleError:
            text = manifest_of(self.context, chosen, memory).source.text
            if not self.wishes.rebuild or text is None or self.caches:
                raise
            return self._prefill(replace(choice, keep=True), chosen, memory)
        exactness = Exactness.APPROXIMATE if len(self.caches) > 1 else cache.exactness
        label = opacity_of(chosen.verified, memory.id, cache.manifest.source.text)
        count = len(cache.token_ids)
        return Step.MOUNTED, f"{count} tokens, every field of the key equal, {exactness}; {label}"

    def _prefill(self, choice: Planned, chosen: Chosen, memory: Memory) -> tuple[Step, str]:
        """The text of a KV cache: read by the model now, or put before every prompt where there is none."""
        manifest = manifest_of(self.context, chosen, memory)
        text = manifest.source.text
        assert text is not None
        if self.model is None:
            self.prefixes.append((memory.id, text))
            return Step.PREFIX, "as text"
        bare = manifest.key.special_tokens == BARE
        if choice.keep:
            cache = self._mount_cache(self._kept_cache(chosen, memory, text, bare=bare))
            return Step.REBUILT, f"{len(cache.token_ids)} tokens read anew, kept on disk"
        from memcube.memories.kv_composition import prefill_kv
        from memcube.memories.kv_prompt import prompt_of

        ids = prompt_of(self.tokenizer, text=text, add_special_tokens=not bare).ids
        prefix = prefill_kv(self.model, ids)
        self.undo.callback(prefix.unmount)
        self.caches.append((prefix, text))
        return Step.REBUILT, f"{len(ids)} tokens read anew, kept in memory"

    def _kept_cache(self, chosen: Chosen, memory: Memory, text: str, *, bare: bool) -> Path:
        """The folder of a cache of `text` for the model as it is now, made where it is absent."""
        from memcube.memories.activation_dump import dump_kv

        place = self._build_place(chosen, memory)
        folder = place / ACTIVATION / memory.id
        if not folder.is_dir():
            dump_kv(
                self.model,
                self.tokenizer,
                text=text,
                folder=place,
                memory_id=memory.id,
                base_identity=self.identity,
                add_special_tokens=not bare,
            )
        return folder

    def _mount_cache(self, folder: Path) -> MountedKv:
        from memcube.memories.activation import mount_kv

        cache = mount_kv(folder, self.model, self.tokenizer, base_identity=self.identity)
        self.undo.callback(cache.unmount)
        self.caches.append((cache, cache.manifest.source.text))
        return cache

    def _compose(self) -> None:
        """Put the mounted caches behind each other, as one."""
        from memcube.memories.kv_composition import compose_kv

        composed = compose_kv([cache for cache, _ in self.caches])
        self.undo.callback(composed.unmount)
        for cache, _ in self.caches:
            cache.unmount()
        texts = [text for _, text in self.caches if text is not None]
        whole = "".join(texts) if len(texts) == len(self.caches) else None
        self.caches = [(composed, whole)]

    def _look_up_records(self, _: Planned, chosen: Chosen, memory: Memory) -> tuple[Step, str]:
        """The records of the cube, or of a build: all shards are of its one plaintext memory."""
        assert memory.kind == PLAINTEXT
        from memcube.memories.plaintext import records_of, vector_files

        built, store = chosen.build_of(memory), self.context.store
        holder = built.build if built else chosen.verified.cube
        records = partial(records_of, holder.manifest, store)
        vectors = vector_files(holder.manifest, store)
        return Step.MOUNTED, self._look_up(chosen, holder.digest, records, vectors=vectors)

    def _look_up_text(self, _: Planned, chosen: Chosen, memory: Memory) -> tuple[Step, str]:
        text = manifest_of(self.context, chosen, memory).source.text
        assert text is not None
        key = Digest.of(f"{memory.id}\n{text}".encode())
        passages = partial(passages_of, text, memory.id)
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
    ) -> str:
        """Open the index of `records` once; it is built at the first mount of all."""
        from memcube.memories.plaintext import PlaintextIndex

        sources = self.sources.setdefault(chosen.name, {})
        if key not in sources:
            index = PlaintextIndex.open(
                self.context.settings.home / INDEXES / below,
                key,
                records,
                vectors=vectors,
                embedder=self._embedder,
                server=self.wishes.search_server,
                settings=self.context.settings,
            )
            self.undo.callback(index.close)
            sources[key] = CubeRecords(chosen.name, index)
        held = sources[key]
        return f"{len(held)} records, searched with {held.searched_with}"

    def _require_a_fit(self, kind: str) -> None:
        refusals = self._refusals.get(kind)
        done = {*Step} - {Step.REFUSED, Step.SKIPPED}
        if refusals and not any(step.kind == kind and step.step in done for step in self.steps):
            raise refusals[0]

    def _refuse(self, memory: Memory, error: IncompatibleError) -> None:
        self._refusals.setdefault(memory.kind, []).append(error)

    def _build_place(self, chosen: Chosen, memory: Memory) -> Path:
        """Where caches of this memory for the model as it is now are kept."""
        import hashlib

        from memcube.memories.activation_key import active_adapters

        adapters = ",".join(map(str, active_adapters(self.model)))
        mark = hashlib.sha256(f"{self.identity} {adapters} {memory.id}".encode()).hexdigest()
        digest = chosen.verified.cube.digest
        return self.context.settings.home / BUILDS / digest.hex / mark[:32]

    def _folder(self, chosen: Chosen, memory: Memory) -> Path:
        if built := chosen.build_of(memory):
            return built.folder(self.context)
        return memory_folder(self.context, chosen.verified, memory.id)

    def _note(self, chosen: Chosen, memory: Memory, step: Step, why: str) -> None:
        self.steps.append(MountStep(memory.id, memory.kind, step, why, chosen.name))


_Doing = Callable[[MemLoader, Planned, Chosen, Memory], tuple[Step, str]]
_ACTS: Final[dict[tuple[str, Act], _Doing]] = {
    (PARAMETRIC, Act.LOAD): MemLoader._load_adapter,
    (ACTIVATION, Act.LOAD): MemLoader._load_cache,
    (ACTIVATION, Act.PREFILL): MemLoader._prefill,
    (ACTIVATION, Act.RETRIEVE): MemLoader._look_up_text,
    (PLAINTEXT, Act.RETRIEVE): MemLoader._look_up_records,
}
