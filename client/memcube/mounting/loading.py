"""Mounting under way: LoRA, then a KV cache, then records, and the way back from each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from memcube_protocol.activation import MANIFEST_FILE, KvManifest
from memcube_protocol.config import ACTIVATION, PARAMETRIC, PLAINTEXT, Memory
from memcube_protocol.digest import Digest
from memcube_protocol.errors import IncompatibleError, InvalidError, NotFoundError

from memcube.consume import Verified
from memcube.context import CONTEXT_TOKENS, Context
from memcube.holdings import memory_folder
from memcube.mounting.mounted import MountedCube, MountedMemory, Parts
from memcube.mounting.sources import CubeRecords, Overlay
from memcube.mounting.steps import MountStep, Step
from memcube.usage import Usage

if TYPE_CHECKING:
    from memcube_protocol.identity import BaseIdentity

    from memcube.memories.activation import MountedKv

INDEXES: Final = "indexes"
BUILDS: Final = "builds"
PRIORITIES: Final = {"low": 1, "normal": 2, "high": 3}
"""The priority of a cube by the word of its publisher, where the user gives none."""

MOST_PRIORITY: Final = 100


@dataclass(frozen=True, slots=True)
class Chosen:
    """A verified cube to mount; `priority` from 1 to 100 is its share of what is found.

    Without one the word in its governance decides: low is 1, normal 2, high 3.
    """

    verified: Verified
    priority: int | None = None

    def __post_init__(self) -> None:
        if self.priority is not None and not 1 <= self.priority <= MOST_PRIORITY:
            raise InvalidError(
                f"a priority of {self.priority} is none", hint=f"give 1 to {MOST_PRIORITY}"
            )

    @property
    def name(self) -> str:
        """The reference's text."""
        return str(self.verified.reference)

    @property
    def share(self) -> int:
        """The priority that holds."""
        return self.priority or PRIORITIES[self.verified.cube.config.governance.priority]


def mount(
    context: Context,
    cubes: Sequence[Chosen],
    *,
    model: Any = None,
    tokenizer: Any = None,
    overlay: Overlay | None = None,
    budget_tokens: int = CONTEXT_TOKENS,
    allow_unverified_base: bool = False,
    rebuild: bool = False,
) -> MountedMemory:
    """The memories of `cubes` whose files the store holds, mounted; without a model, their records.

    Of memories made for one model, those of other models are passed over as long as one fits.
    `rebuild` computes a KV cache anew from its source text where it does not fit and carries it.
    `overlay` is closed with the memory.

    Raises:
        IncompatibleError: no LoRA, or no KV cache, of the cubes fits the model; names every reason.
        NotFoundError: the store holds nothing of the cubes that could be mounted.
        MissingDependencyError: an optional package is not installed.
        IntegrityError, InvalidTensorsError: a file is damaged or hostile.
    """
    loader = MemLoader(context, cubes, model, tokenizer)
    try:
        loader.mount_adapters(allow_unverified_base=allow_unverified_base)
        loader.mount_cache(rebuild=rebuild)
        loader.mount_records()
        if overlay is not None:
            loader.undo.callback(overlay.close)
        elif not loader.steps:
            raise _nothing_of(cubes)
    except BaseException:
        loader.undo.close()
        raise
    return MountedMemory(loader.parts(overlay), budget_tokens, usage=Usage.of(context.settings))


class MemLoader:
    """One mounting under way; `undo` takes off what is mounted, in reverse order."""

    def __init__(
        self, context: Context, cubes: Sequence[Chosen], model: Any, tokenizer: Any
    ) -> None:
        self.context = context
        self.cubes = in_order(cubes)
        self.model = model
        self.tokenizer = tokenizer
        self.cache: MountedKv | None = None
        self.records: dict[str, CubeRecords] = {}
        self.steps: list[MountStep] = []
        self.undo = ExitStack()
        self._identity: BaseIdentity | None = None

    def parts(self, overlay: Overlay | None = None) -> Parts:
        """What is mounted now."""
        cubes = tuple(
            MountedCube(chosen.verified, chosen.share, self.records.get(chosen.name))
            for chosen in self.cubes
        )
        return Parts(
            cubes, tuple(self.steps), self.model, self.tokenizer, self.cache, overlay, self.undo
        )

    def mount_adapters(self, *, allow_unverified_base: bool) -> None:
        """Mount every LoRA that fits.

        Raises:
            IncompatibleError: there are some, and none fits.
        """
        if self.model is None:
            return
        from memcube.memories.parametric import mount_lora

        def mount_one(chosen: Chosen, memory: Memory) -> str:
            mounted = mount_lora(
                self._folder(chosen, memory),
                self.model,
                base_identity=self._base(),
                allow_unverified_base=allow_unverified_base,
            )
            self.undo.callback(mounted.unmount)
            return f"{mounted.verdict.level}: {mounted.verdict.why}"

        self._mount_fitting(PARAMETRIC, mount_one)

    def mount_cache(self, *, rebuild: bool) -> None:
        """Mount the first KV cache that fits: only one prefix is exact.

        Raises:
            IncompatibleError: there are some, and none fits.
        """
        if self.model is None:
            return
        from memcube.findings import opacity_of
        from memcube.memories.activation import mount_kv

        def mount_one(chosen: Chosen, memory: Memory) -> str:
            folder = self._folder(chosen, memory)
            self.cache = mount_kv(folder, self.model, self.tokenizer, base_identity=self._base())
            self.undo.callback(self.cache.unmount)
            label = opacity_of(chosen.verified, memory.id, self.cache.manifest.source.text)
            return f"{len(self.cache.token_ids)} tokens, every field of the key equal; {label}"

        try:
            self._mount_fitting(ACTIVATION, mount_one, only_one=True)
        except IncompatibleError:
            if not rebuild or not self._rebuild():
                raise

    def mount_records(self) -> None:
        """Open the index of each cube's records, built at the first mount of the cube."""
        store = self.context.store
        for chosen, memory in self._held(PLAINTEXT):
            from memcube.memories.plaintext import PlaintextIndex, records_of, vector_files

            cube = chosen.verified.cube
            if chosen.name not in self.records:
                shards = partial(records_of, cube.manifest, store)
                index = PlaintextIndex.open(
                    self.context.settings.home / INDEXES,
                    cube.digest,
                    shards,
                    vectors=vector_files(cube.manifest, store),
                )
                self.undo.callback(index.close)
                self.records[chosen.name] = CubeRecords(chosen.name, index)
            held = self.records[chosen.name]
            why = f"{len(held)} records, searched with {held.searched_with}"
            self._note(chosen, memory, Step.MOUNTED, why)

    def _mount_fitting(
        self, kind: str, mount_one: Callable[[Chosen, Memory], str], *, only_one: bool = False
    ) -> None:
        refusals: list[IncompatibleError] = []
        fits = False
        for chosen, memory in self._held(kind):
            if fits and only_one:
                why = "one prefix is exact, a second would not be"
                self._note(chosen, memory, Step.SKIPPED, why)
                continue
            try:
                self._note(chosen, memory, Step.MOUNTED, mount_one(chosen, memory))
                fits = True
            except IncompatibleError as error:
                self._note(chosen, memory, Step.REFUSED, str(error))
                refusals.append(error)
        if refusals and not fits:
            raise refusals[0]

    def _rebuild(self) -> bool:
        """Compute the first cache that carries its text anew for this model; says whether one did."""
        from memcube.memories.activation import mount_kv
        from memcube.memories.activation_dump import dump_kv

        for chosen, memory in self._held(ACTIVATION):
            raw = (self._folder(chosen, memory) / MANIFEST_FILE).read_bytes()
            text = KvManifest.parse(raw).source.text
            if text is None:
                continue
            place = self._build_place(chosen, memory)
            folder = place / ACTIVATION / memory.id
            if not folder.is_dir():
                dump_kv(
                    self.model,
                    self.tokenizer,
                    text=text,
                    folder=place,
                    memory_id=memory.id,
                    base_identity=self._base(),
                )
            self.cache = mount_kv(folder, self.model, self.tokenizer, base_identity=self._base())
            self.undo.callback(self.cache.unmount)
            why = f"{len(self.cache.token_ids)} tokens read anew"
            self._note(chosen, memory, Step.REBUILT, why)
            return True
        return False

    def _build_place(self, chosen: Chosen, memory: Memory) -> Path:
        """Where caches of this memory for the model as it is now are kept."""
        import hashlib

        from memcube.memories.activation_key import active_adapter_names

        adapters = ",".join(active_adapter_names(self.model))
        mark = hashlib.sha256(f"{self._base()} {adapters} {memory.id}".encode()).hexdigest()
        digest = chosen.verified.cube.digest
        return self.context.settings.home / BUILDS / digest.hex / mark[:32]

    def _base(self) -> BaseIdentity:
        if self._identity is None:
            from memcube.memories.model_identity import live_identity

            self._identity = live_identity(self.model)
        return self._identity

    def _folder(self, chosen: Chosen, memory: Memory) -> Path:
        return memory_folder(self.context, chosen.verified, memory.id)

    def _held(self, kind: str) -> Iterator[tuple[Chosen, Memory]]:
        """Memories of `kind` whose files are here: those that the caller wanted."""
        for chosen in self.cubes:
            here = {file.memory for file in chosen.verified.files}
            for memory in chosen.verified.cube.config.memories:
                if memory.kind == kind and memory.id in here:
                    yield chosen, memory

    def _note(self, chosen: Chosen, memory: Memory, step: Step, why: str) -> None:
        self.steps.append(MountStep(memory.id, memory.kind, step, why, chosen.name))


def in_order(cubes: Iterable[Chosen]) -> tuple[Chosen, ...]:
    """`cubes` by priority, then as they were named; one that is named twice counts where it is first."""
    distinct: dict[Digest, Chosen] = {}
    for chosen in cubes:
        distinct.setdefault(chosen.verified.cube.digest, chosen)
    return tuple(sorted(distinct.values(), key=lambda chosen: -chosen.share))


def _nothing_of(cubes: Sequence[Chosen]) -> NotFoundError:
    return NotFoundError(
        f"nothing of {', '.join(chosen.name for chosen in cubes)} is here that could be mounted",
        hint="pull it without a filter; memories of a model need a model to be mounted on",
    )
