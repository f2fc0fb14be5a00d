"""MemLoader: makes the memories of a verified cube usable by a model, or says why it does not.

    with memcube.mount("alice/notes", model=model, tokenizer=tokenizer) as memory:
        memory.context("Which backups are there?")     # text for a prompt
        memory.generate("Which backups are there?")    # the model's answer

Order matters: LoRA first, then the KV cache, whose key names the adapters that were active, then
the records, which fit every model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from memcube_protocol.activation import MANIFEST_FILE, KvManifest
from memcube_protocol.config import ACTIVATION, PARAMETRIC, PLAINTEXT, Memory
from memcube_protocol.errors import IncompatibleError, NotFoundError

from memcube.consume import Verified
from memcube.context import Context
from memcube.holdings import memory_folder

if TYPE_CHECKING:
    from memcube_protocol.identity import BaseIdentity
    from memcube_signing.predicates.scan import Scan

    from memcube.memories.activation import MountedKv
    from memcube.memories.plaintext import Hit, PlaintextIndex

INDEXES: Final = "indexes"
BUILDS: Final = "builds"
CONTEXT_TOKENS: Final = 1024
ANSWER_TOKENS: Final = 128


class Step(StrEnum):
    """What became of one memory."""

    MOUNTED = "mounted"
    REBUILT = "rebuilt"
    REFUSED = "refused"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class MountStep:
    """What became of one memory, and why."""

    memory: str
    kind: str
    step: Step
    why: str


def mount(
    context: Context,
    verified: Verified,
    *,
    model: Any = None,
    tokenizer: Any = None,
    allow_unverified_base: bool = False,
    rebuild: bool = False,
) -> MountedCube:
    """The memories of `verified` whose files the store holds, mounted; without a model, its records.

    Of memories made for one model, those of other models are passed over as long as one fits.
    `rebuild` computes a KV cache anew from its source text where it does not fit and carries it.

    Raises:
        IncompatibleError: no LoRA, or no KV cache, of the cube fits the model; names every reason.
        NotFoundError: the store holds nothing of the cube that could be mounted.
        MissingDependencyError: an optional package is not installed.
        IntegrityError, InvalidTensorsError: a file is damaged or hostile.
    """
    loader = MemLoader(context, verified, model, tokenizer)
    try:
        loader.mount_adapters(allow_unverified_base=allow_unverified_base)
        loader.mount_cache(rebuild=rebuild)
        loader.mount_records()
    except BaseException:
        loader.undo.close()
        raise
    if not loader.steps:
        loader.undo.close()
        raise NotFoundError(
            f"nothing of {verified.reference} is here that could be mounted",
            hint="pull it without a filter; memories of a model need a model to be mounted on",
        )
    return MountedCube(loader)


class MemLoader:
    """One mounting under way; `undo` takes off what is mounted, in reverse order."""

    def __init__(self, context: Context, verified: Verified, model: Any, tokenizer: Any) -> None:
        self.context = context
        self.verified = verified
        self.model = model
        self.tokenizer = tokenizer
        self.cache: MountedKv | None = None
        self.records: PlaintextIndex | None = None
        self.steps: list[MountStep] = []
        self.undo = ExitStack()
        self._identity: BaseIdentity | None = None

    def mount_adapters(self, *, allow_unverified_base: bool) -> None:
        """Mount every LoRA that fits.

        Raises:
            IncompatibleError: there are some, and none fits.
        """
        if self.model is None:
            return
        from memcube.memories.parametric import mount_lora

        def mount_one(memory: Memory) -> str:
            mounted = mount_lora(
                self._folder(memory),
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

        def mount_one(memory: Memory) -> str:
            self.cache = mount_kv(
                self._folder(memory), self.model, self.tokenizer, base_identity=self._base()
            )
            self.undo.callback(self.cache.unmount)
            label = opacity_of(self.verified, memory.id, self.cache.manifest.source.text)
            return f"{len(self.cache.token_ids)} tokens, every field of the key equal; {label}"

        try:
            self._mount_fitting(ACTIVATION, mount_one, only_one=True)
        except IncompatibleError:
            if not rebuild or not self._rebuild():
                raise

    def mount_records(self) -> None:
        """Open the index of the records, built at the first mount of this cube."""
        cube, store = self.verified.cube, self.context.store
        for memory in self._held(PLAINTEXT):
            from memcube.memories.plaintext import PlaintextIndex, records_of

            self.records = PlaintextIndex.open(
                self.context.settings.home / INDEXES,
                cube.digest,
                lambda: records_of(cube.manifest, store),
            )
            self.undo.callback(self.records.close)
            self._note(memory, Step.MOUNTED, f"{len(self.records)} records, searched with BM25")

    def _mount_fitting(
        self, kind: str, mount_one: Callable[[Memory], str], *, only_one: bool = False
    ) -> None:
        refusals: list[IncompatibleError] = []
        fits = False
        for memory in self._held(kind):
            if fits and only_one:
                self._note(memory, Step.SKIPPED, "one prefix is exact, a second would not be")
                continue
            try:
                self._note(memory, Step.MOUNTED, mount_one(memory))
                fits = True
            except IncompatibleError as error:
                self._note(memory, Step.REFUSED, str(error))
                refusals.append(error)
        if refusals and not fits:
            raise refusals[0]

    def _rebuild(self) -> bool:
        """Compute the first cache that carries its text anew for this model; says whether one did."""
        from memcube.memories.activation import mount_kv
        from memcube.memories.activation_dump import dump_kv

        for memory in self._held(ACTIVATION):
            raw = (self._folder(memory) / MANIFEST_FILE).read_bytes()
            text = KvManifest.parse(raw).source.text
            if text is None:
                continue
            place = self._build_place(memory)
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
            self._note(memory, Step.REBUILT, f"{len(self.cache.token_ids)} tokens read anew")
            return True
        return False

    def _build_place(self, memory: Memory) -> Path:
        """Where caches of this memory for the model as it is now are kept."""
        import hashlib

        from memcube.memories.activation_key import active_adapter_names

        adapters = ",".join(active_adapter_names(self.model))
        mark = hashlib.sha256(f"{self._base()} {adapters} {memory.id}".encode()).hexdigest()
        return self.context.settings.home / BUILDS / self.verified.cube.digest.hex / mark[:32]

    def _base(self) -> BaseIdentity:
        if self._identity is None:
            from memcube.memories.model_identity import live_identity

            self._identity = live_identity(self.model)
        return self._identity

    def _folder(self, memory: Memory) -> Path:
        return memory_folder(self.context, self.verified, memory.id)

    def _held(self, kind: str) -> Iterable[Memory]:
        """Memories of `kind` whose files are here: those that the caller wanted."""
        here = {file.memory for file in self.verified.files}
        return [
            memory
            for memory in self.verified.cube.config.memories
            if memory.kind == kind and memory.id in here
        ]

    def _note(self, memory: Memory, step: Step, why: str) -> None:
        self.steps.append(MountStep(memory.id, memory.kind, step, why))


class MountedCube:
    """A cube in use by a model; a context manager that takes its memories off again."""

    def __init__(self, loader: MemLoader) -> None:
        self._loader = loader
        self.verified = loader.verified
        self.steps: Sequence[MountStep] = tuple(loader.steps)

    @property
    def has_model(self) -> bool:
        """Whether there is a model to ask."""
        return self._loader.model is not None and self._loader.tokenizer is not None

    @property
    def scan(self) -> Scan | None:
        """What the publisher's scan of the cube found; None where there is none."""
        from memcube.findings import attested_scan

        return attested_scan(self.verified)

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """The token ids that every prompt starts with: those of the mounted KV cache."""
        return self._loader.cache.token_ids if self._loader.cache else ()

    def search(self, query: str, limit: int = 10) -> list[Hit]:
        """The records that answer `query`, best first; none where the cube has no records."""
        return self._loader.records.search(query, limit) if self._loader.records else []

    def context(self, query: str, budget_tokens: int = CONTEXT_TOKENS) -> str:
        """The best records for `query` as text for a prompt; empty if none is found."""
        if self._loader.records is None:
            return ""
        count = self._count_tokens if self._loader.tokenizer is not None else None
        return self._loader.records.context(query, budget_tokens, count_tokens=count)

    def generate(
        self,
        question: str,
        *,
        context: str | None = None,
        max_new_tokens: int = ANSWER_TOKENS,
        **options: Any,
    ) -> str:
        """The model's answer to `question` with all memories in use; greedy unless `options` differ.

        `context` is put before the question; None looks records up, the empty string puts none.

        Raises:
            NotFoundError: the cube was mounted without a model and a tokenizer.
            ConflictError: the memories were unmounted, or other adapters are active.
        """
        if not self.has_model:
            raise NotFoundError(
                "there is no model to ask", hint="mount the cube with model= and tokenizer="
            )
        from memcube.memories.generation import generate

        found = self.context(question) if context is None else context
        return generate(
            self._loader.model,
            self._loader.tokenizer,
            f"{found}\n\n{question}" if found else question,
            memory=self._loader.cache,
            max_new_tokens=max_new_tokens,
            **options,
        )

    def close(self) -> None:
        """Take the memories off the model, the last one first."""
        self._loader.undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _count_tokens(self, text: str) -> int:
        return len(self._loader.tokenizer(text, add_special_tokens=False)["input_ids"])
