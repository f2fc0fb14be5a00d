"""From a recipe to a build in the local store: made, judged, and only then kept.

Everything is written into a folder of its own first. Whatever breaks off, an error or Ctrl-C, leaves
the model as it was and nothing in the store: the ref that names the build is the last thing written.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from memcube_protocol.build import Build, Made
from memcube_protocol.config import PARAMETRIC, PLAINTEXT
from memcube_protocol.cube import CubeFile
from memcube_protocol.errors import ConflictError, IncompatibleError, NotFoundError
from memcube_protocol.identity import BaseIdentity
from memcube_protocol.recipe import ASK, DISTIL, ENCODE, SOURCE_TEXT, Evaluation, Question, Recipe
from memcube_protocol.records import Record, write_record
from memcube_protocol.reference import Reference
from memcube_protocol.selection import bases_of

from memcube import consume, rules
from memcube.building import distillation, evaluation, extraction, questions, unrelated
from memcube.building.asking import NOTHING, Asker, Prefix, steady
from memcube.building.holding import keep
from memcube.building.material import Material, closest, gather, rendered
from memcube.building.planning import ASKED, Wanted, Watch, plan_of, unwatched
from memcube.consume import Verified
from memcube.context import Context
from memcube.holdings import memory_folder
from memcube.memories.activation import FOLDER as ACTIVATION_FOLDER
from memcube.memories.activation import MountedKv, mount_kv
from memcube.memories.activation_dump import dump_kv
from memcube.memories.making import builder as builder_versions
from memcube.memories.model_identity import dtype_name, live_identity
from memcube.memories.parametric import mount_lora
from memcube.memories.plaintext import records_of
from memcube.packing.contents import Contents
from memcube.packing.layout import Layout
from memcube.packing.scan import scan
from memcube.profiles import Profile
from memcube.store.files import make_folder, storage_errors

_TRAINING: Final = "training"
_WORKSHOP: Final = "building"
_RECORDS: Final = "plaintext/records.jsonl"


@dataclass(frozen=True, slots=True)
class Built:
    """A build that the local store holds now, and what was left out of it, in words."""

    build: Build
    notes: tuple[str, ...] = ()

    @property
    def made(self) -> Made:
        """How it was made and judged."""
        assert self.build.made
        return self.build.made


@dataclass(frozen=True, slots=True)
class Order:
    """How to build. `passages` is the file of unrelated text that the recipe names, None: memcube's own.

    `accept` keeps a build that recalls nothing or does damage; `ask` is how many questions the model
    asks itself where the recipe has none; `watch` hears how it goes.
    """

    passages: Path | None = None
    accept: bool = False
    ask: int = ASKED
    watch: Watch = unwatched


def build(
    context: Context,
    verified: Verified,
    plan: Recipe | Wanted,
    model: Any,
    tokenizer: Any,
    order: Order,
) -> Built:
    """Make what a recipe says of the cube `verified`, or what is wanted; judge it, keep it in the store.

    Raises:
        ConflictError: the recipe is for another cube, or was judged by another text.
        RuleRefusedError: the cube's own rules forbid it; an adapter is made by training.
        IncompatibleError: it is for another model.
        UselessBuildError: the result recalls nothing or does damage, and `order` does not accept that.
        NotFoundError: the cube's memory was not pulled, or has nothing to make it from.
        MissingDependencyError: an optional package is not installed.
        StorageError, IntegrityError: the store cannot be written, or a file in it is damaged.
    """
    recipe = plan
    if isinstance(recipe, Wanted):
        recipe = plan_of(verified, recipe, model, tokenizer, now=context.now())
    _require_own(verified, recipe)
    base = _require_base(model, recipe)
    _require_allowed(context, verified, recipe)
    verified = consume.fetch(context, verified, tuple(_needed(verified, recipe)))
    with _workshop(context) as folder, steady(recipe.seed, recipe.threads):
        bench = _Bench(context, verified, recipe, model, tokenizer, order, folder, base)
        with bench.undo:
            bench.make()
        if not order.accept and bench.evaluation:
            evaluation.require_useful(bench.evaluation)
        return Built(bench.kept(), tuple(bench.notes))


def _require_own(verified: Verified, recipe: Recipe) -> None:
    if recipe.parent != verified.cube.digest:
        raise ConflictError(
            f"the recipe is for the cube {recipe.parent}, and this is {verified.cube.digest}",
            hint="name that cube by its digest, or plan anew without --recipe",
        )


def _require_base(model: Any, recipe: Recipe) -> BaseIdentity | None:
    base = None if model is None else live_identity(model)
    if recipe.base is not None and base != recipe.base:
        raise IncompatibleError(
            f"the recipe is for the model {recipe.base}, and this is {base or 'no model'}",
            hint="give that model's checkpoint: --for FOLDER",
        )
    return base


def _require_allowed(context: Context, verified: Verified, recipe: Recipe) -> None:
    """A model reads what the cube says, or is trained on it: both are uses that its rules may forbid."""
    uses = context.settings.uses | ({_TRAINING} if recipe.method == DISTIL else set())
    rules.require_mount(context, verified, profile=Profile("build", (), uses=uses))


def _needed(verified: Verified, recipe: Recipe) -> Iterator[CubeFile]:
    """The files that are read: those of the source, and of adapters of the cube for this model."""
    for memory in verified.cube.config.memories:
        under = recipe.method == ENCODE and memory.kind == PARAMETRIC
        if memory.id == recipe.source or (under and str(recipe.base) in bases_of(memory)):
            yield from verified.cube.files_of(memory.id)


@contextmanager
def _workshop(context: Context) -> Iterator[Path]:
    """An empty folder for what is being made; gone afterwards, whatever happens."""
    place = context.settings.home / _WORKSHOP
    make_folder(place)
    with storage_errors(f"{place} cannot be written"):
        folder = Path(tempfile.mkdtemp(dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(slots=True)
class _Bench:
    """One build under way; `undo` takes off the model what was mounted on it."""

    context: Context
    verified: Verified
    recipe: Recipe
    model: Any
    tokenizer: Any
    order: Order
    folder: Path
    base: BaseIdentity | None
    undo: ExitStack = field(default_factory=ExitStack)
    evaluation: Evaluation | None = None
    notes: list[str] = field(default_factory=list[str])

    def make(self) -> None:
        """Write the memory's files into the folder, and judge them."""
        steps: dict[str, Callable[[], None]] = {
            ENCODE: self._encode,
            DISTIL: self._distil,
            SOURCE_TEXT: self._take_text,
            ASK: self._ask,
        }
        steps[self.recipe.method]()

    def kept(self) -> Build:
        """The build of what lies in the folder, kept in the store.

        Raises:
            InvalidError, LimitExceededError: it is more than a build may hold.
            DiskFullError, ReadOnlyError, StorageError: it was not kept.
        """
        store = self.context.store
        with store.session():
            contents = Contents(store.blobs, {})
            contents.add_folder(Layout.of(scan(self.folder)), lambda _: None)
            made = Made(self.recipe, self.evaluation, self._environment())
            subject = self.verified.cube.manifest.descriptor()
            build = Build.write(subject, contents.memories[0], contents.files, made)
            keep(self.context, Reference("", self._name), build, is_own=True)
        return build

    @property
    def _name(self) -> str:
        return self.verified.cube.config.name

    @property
    def _asker(self) -> Asker:
        return Asker(self.model, self.tokenizer, self.recipe.prompt)

    def _encode(self) -> None:
        """Records into a KV cache, under the cube's own adapters where they fit."""
        material = self._material()
        adapters = self._mount_adapters()
        self._find_questions(material.records)
        told = evaluation.answered(self.recipe.questions)
        without = self._recalled("asking without the memory", told, NOTHING)
        self._watch("reading the records")(0, 1)
        dump_kv(
            self.model,
            self.tokenizer,
            text=material.text,
            folder=self.folder,
            memory_id=self.recipe.memory,
            base_identity=self.base,
            cube_adapters=adapters,
        )
        mounted = mount_kv(
            self.folder / ACTIVATION_FOLDER / self.recipe.memory,
            self.model,
            self.tokenizer,
            base_identity=self.base,
        )
        with mounted:
            self._judge_cache(told, without, _behind(mounted))

    def _distil(self) -> None:
        """Records into a LoRA of the model alone."""
        material = self._material()
        self._find_questions(material.records)
        told = evaluation.answered(self.recipe.questions)
        asker, (shown, judging) = self._asker, self._passages()
        without = self._recalled("asking without the memory", told, NOTHING)
        source = self._with_text(
            "asking with the text", told, lambda one: material.text_of(one.record)
        )
        before = evaluation.perplexity(self.model, judging, NOTHING)
        lessons = distillation.lessons_of(asker, material, self.recipe.questions)
        folder = distillation.distil(
            asker,
            lessons,
            shown,
            self.recipe,
            self.folder,
            base_identity=self._known_base(),
            watch=self._watch("teaching"),
        )
        with mount_lora(folder, self.model, base_identity=self.base):
            right = self._recalled("asking with the memory", told, NOTHING)
            after = evaluation.perplexity(self.model, judging, NOTHING)
        self._note_evaluation(told, without, right, source, (before, after))

    def _take_text(self) -> None:
        """A KV cache into the records of its text."""
        folder = memory_folder(self.context, self.verified, self.recipe.source)
        records = extraction.source_records(folder, self.recipe, self.tokenizer)
        self._write_records(records)
        if self.model is None:
            self.notes.append("not judged, since no model was given: the text is the cache's own")
            return
        self._find_questions(records)
        told = evaluation.answered(self.recipe.questions)
        self._judge_records(records, told)

    def _ask(self) -> None:
        """An adapter into records of what it answers."""
        asker, recipe = self._asker, self.recipe
        folder = memory_folder(self.context, self.verified, recipe.source)
        with mount_lora(folder, self.model, base_identity=self.base):
            if not recipe.questions:
                watch = self._watch("letting it ask")
                self._take_questions(questions.free_questions(asker, self.order.ask, watch))
        plain = extraction.plain_answers(asker, self.recipe.questions)
        with mount_lora(folder, self.model, base_identity=self.base):
            watch = self._watch("asking the adapter")
            records = extraction.asked_records(asker, plain, self.recipe, watch)
            told = evaluation.answered(self.recipe.questions)
            source = self._recalled("judging the adapter", told, NOTHING)
        self._write_records(records)
        self._judge_records(records, told, source)

    def _material(self) -> Material:
        """What the recipe takes out of the cube's records.

        Raises:
            NotFoundError: no record, or none that was pulled.
        """
        recipe = self.recipe
        memory = self.verified.cube.config.memory(recipe.source)
        if memory is None or memory.kind != PLAINTEXT:
            raise NotFoundError(
                f"the cube has no records {recipe.source!r}", hint="it may be another version"
            )
        count = partial(self._count_tokens)
        records = records_of(self.verified.cube.manifest, self.context.store)
        material = gather(
            records,
            at=recipe.as_of,
            budget_tokens=recipe.budget_tokens,
            rendering=recipe.render,
            count_tokens=count,
        )
        if not material.is_whole:
            self.notes.append(
                f"the first {len(material.records)} of {memory.records} records fit into "
                f"{recipe.budget_tokens} tokens; the others are left to the cube's own search"
            )
        return material

    def _count_tokens(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _mount_adapters(self) -> list[str]:
        """Mount the cube's own adapters that fit this model; their ids."""
        mounted = []
        for memory in self.verified.cube.config.memories:
            if memory.kind != PARAMETRIC or str(self.base) not in bases_of(memory):
                continue
            try:
                folder = memory_folder(self.context, self.verified, memory.id)
                adapter = mount_lora(folder, self.model, base_identity=self.base)
            except IncompatibleError as error:
                self.notes.append(f"made without the adapter {memory.id}: {error}")
                continue
            self.undo.callback(adapter.unmount)
            mounted.append(memory.id)
        return mounted

    def _find_questions(self, records: Sequence[Record]) -> None:
        """Let the model ask questions about `records` where the recipe has none."""
        if self.recipe.questions:
            return
        found = questions.ask_itself(
            self._asker,
            records,
            self.recipe.render,
            self.order.ask,
            self._watch("letting the model ask"),
        )
        self._take_questions(found)

    def _take_questions(self, found: tuple[Question, ...]) -> None:
        self.notes.append(f"the model asked itself {len(found)} questions that it could answer")
        self.recipe = replace(self.recipe, questions=found)

    def _with_text(
        self, what: str, told: Sequence[Question], text_for: Callable[[Question], str]
    ) -> int:
        """Of `told`, how many the model answers with a text of its own before each question."""
        watch, right = self._watch(what), 0
        for number, one in enumerate(told, 1):
            before = Prefix(tuple(self._asker.ids_of(text_for(one), begins=True)))
            right += evaluation.recall(self._asker, [one], before)
            watch(number, len(told))
        return right

    def _judge_cache(self, told: Sequence[Question], without: int, behind: Prefix) -> None:
        """Measure a KV cache, which stands before every question and every other text."""
        _, judging = self._passages()
        right = self._recalled("asking with the memory", told, behind)
        before, after = (
            evaluation.perplexity(self.model, judging, place) for place in (NOTHING, behind)
        )
        self._note_evaluation(told, without, right, None, (before, after))

    def _judge_records(
        self, records: Sequence[Record], told: Sequence[Question], source: int | None = None
    ) -> None:
        """Measure records, of which those that a search finds stand before a question: they damage nothing."""

        def found(one: Question) -> str:
            return rendered(closest(records, one.question), self.recipe.render)

        without = self._recalled("asking without the memory", told, NOTHING)
        right = self._with_text("asking with the memory", told, found)
        self._note_evaluation(told, without, right, source, None)

    def _note_evaluation(
        self,
        told: Sequence[Question],
        without: int,
        right: int,
        source: int | None,
        perplexity: tuple[float, float] | None,
    ) -> None:
        held_out = sum(one.held_out for one in told)
        self.evaluation = Evaluation(len(told), without, right, source, held_out, perplexity)

    def _recalled(self, what: str, told: Sequence[Question], before: Prefix) -> int:
        return evaluation.recall(self._asker, told, before, self._watch(what))

    def _passages(self) -> tuple[list[list[int]], list[list[int]]]:
        passages = unrelated.passages_for(self.recipe, self.order.passages)
        return unrelated.halves(self.tokenizer, passages)

    def _write_records(self, records: Iterable[Record]) -> None:
        path = self.folder / _RECORDS
        path.parent.mkdir(parents=True)
        path.write_bytes(b"".join(write_record(record) + b"\n" for record in records))

    def _watch(self, what: str) -> Callable[[int, int], None]:
        return partial(self.order.watch, what)

    def _known_base(self) -> BaseIdentity:
        assert self.base
        return self.base

    def _environment(self) -> dict[str, str]:
        """What it was made with, as far as that could change the result."""
        if self.model is None:
            return builder_versions()
        return {
            **builder_versions("peft", "torch", "transformers"),
            "device": self.model.device.type,
            "dtype": dtype_name(self.model.dtype),
            "machine": platform.machine(),
        }


def _behind(mounted: MountedKv) -> Prefix:
    return Prefix(mounted.token_ids, mounted.new_cache)
