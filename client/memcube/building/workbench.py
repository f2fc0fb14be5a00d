"""One build under way: the memory's files are written into a folder, and what they do is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from memcube_protocol.config import PARAMETRIC, PLAINTEXT
from memcube_protocol.errors import NotFoundError
from memcube_protocol.identity import BaseIdentity
from memcube_protocol.recipe import ASK, DISTIL, ENCODE, SOURCE_TEXT, Evaluation, Question, Recipe
from memcube_protocol.records import Record, write_record
from memcube_protocol.selection import bases_of

from memcube.building import distillation, evaluation, extraction, questions, unrelated
from memcube.building.asking import NOTHING, Asker, Prefix
from memcube.building.holding import HeldBuild
from memcube.building.material import Material, closest, gather
from memcube.building.planning import Order
from memcube.consuming.holdings import memory_folder
from memcube.consuming.verifying import Verified
from memcube.context import Context
from memcube.figures import count_text
from memcube.memories.activation.dump import dump_kv
from memcube.memories.activation.mount import mount_kv
from memcube.memories.control_tokens import control_tokens
from memcube.memories.parametric.mount import mount_fitting, mount_lora
from memcube.memories.plaintext.index import records_of
from memcube.memories.window import window_of

_RECORDS: Final = "plaintext/records.jsonl"


@dataclass(slots=True)
class Workbench:
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

    def judge(self, held: HeldBuild) -> None:
        """Measure the files of a build that was made before, by the questions and the text of its recipe."""
        told = evaluation.answered(self.recipe.questions)
        if held.build.memory.kind == PLAINTEXT:
            self._judge_records(tuple(records_of(held.build.manifest, self.context.store)), told)
            return
        folder = held.folder(self.context)
        if held.build.memory.kind == PARAMETRIC:
            self._judge_adapter(folder, told)
            return
        self._mount_adapters()
        without = self._recalled("asking without the memory", told, NOTHING)
        self._judge_cache(folder, told, without)

    @property
    def _asker(self) -> Asker:
        return Asker(self.model, self.tokenizer, self.recipe.prompt)

    def _encode(self) -> None:
        """Records into a KV cache, under the cube's own adapters where they fit."""
        material = self._material()
        adapters = self._mount_adapters()
        self._find_questions(material)
        told = evaluation.answered(self.recipe.questions)
        without = self._recalled("asking without the memory", told, NOTHING)
        self._watch("reading the records")(0, 1)
        folder = dump_kv(
            self.model,
            self.tokenizer,
            text=material.text,
            folder=self.folder,
            memory_id=self.recipe.memory,
            base_identity=self.base,
            cube_adapters=adapters,
        )
        self._watch("reading the records")(1, 1)
        self._judge_cache(folder, told, without)

    def _distil(self) -> None:
        """Records into a LoRA of the model alone."""
        material = self._material()
        self._find_questions(material)
        told = evaluation.answered(self.recipe.questions)
        asker, (shown, judging) = self._asker, self._passages()
        without = self._recalled("asking without the memory", told, NOTHING)
        source = self._with_text(
            "asking with the text", told, lambda one: material.text_of(one.record)
        )
        if not self.order.accept:
            evaluation.require_teacher(len(told), without, source)
        before = evaluation.perplexity(self.model, judging, asker.start)
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
        self._judge_adapter(folder, told, without, source, before)

    def _take_text(self) -> None:
        """A KV cache into the records of its text."""
        folder = memory_folder(self.context, self.verified, self.recipe.source)
        records = extraction.source_records(folder, self.recipe, self.tokenizer)
        self._write_records(records)
        if self.model is None:
            self.notes.append("not judged, since no model was given: the text is the cache's own")
            return
        self._find_questions(self._as_material(records))
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
            said = extraction.asked_records(asker, plain, self.recipe, watch)
            told = evaluation.answered(self.recipe.questions)
            if not told:
                told = tuple(question for question, _ in said)
                self.notes.append("judged by the adapter's own answers: no right ones are known")
            source = self._recalled("judging the adapter", told, NOTHING)
        records = tuple(record for _, record in said)
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
        material = self._as_material(material.records, is_whole=material.is_whole)
        if not material.is_whole:
            self.notes.append(
                f"{len(material.records)} of {memory.records} records fit into "
                f"{recipe.budget_tokens} tokens; the others are left to the cube's own search"
            )
        return material

    def _as_material(self, records: Sequence[Record], *, is_whole: bool = True) -> Material:
        """`records` as the model reads them: none spells a control token of it."""
        control = control_tokens(self.tokenizer)
        return Material(tuple(records), self.recipe.render, is_whole=is_whole, control=control)

    def _count_tokens(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _mount_adapters(self) -> list[str]:
        """Mount the cube's own adapters that fit this model; their ids."""
        folders = {
            memory.id: partial(memory_folder, self.context, self.verified, memory.id)
            for memory in self.verified.cube.config.memories
            if memory.kind == PARAMETRIC and str(self.base) in bases_of(memory)
        }
        mounted, notes = mount_fitting(folders, self.model, self.undo, base_identity=self.base)
        self.notes += notes
        return mounted

    def _find_questions(self, material: Material) -> None:
        """Have the model ask questions about `material` where the recipe has none."""
        if self.recipe.questions:
            return
        found = questions.ask_itself(
            self._asker,
            material,
            self.order.ask,
            self._watch("letting the model ask"),
        )
        self._take_questions(found)

    def _take_questions(self, found: tuple[Question, ...]) -> None:
        self.notes.append(f"the model asked itself {count_text(len(found), 'question')}")
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

    def _judge_cache(self, folder: Path, told: Sequence[Question], without: int) -> None:
        """Measure a KV cache, which stands before every question and every other text."""
        with mount_kv(folder, self.model, self.tokenizer, base_identity=self.base) as mounted:
            behind = Prefix(mounted.token_ids, mounted.new_cache)
            _, judging = self._passages(len(behind.ids))
            right = self._recalled("asking with the memory", told, behind)
            before, after = (
                evaluation.perplexity(self.model, judging, place)
                for place in (self._asker.start, behind)
            )
        self._note_evaluation(told, without, right, None, (before, after))

    def _judge_adapter(
        self,
        folder: Path,
        told: Sequence[Question],
        without: int | None = None,
        source: int | None = None,
        before: float | None = None,
    ) -> None:
        """Measure an adapter; what is None of the model without it is measured too."""
        start, (_, judging) = self._asker.start, self._passages()
        if without is None:
            without = self._recalled("asking without the memory", told, NOTHING)
        if before is None:
            before = evaluation.perplexity(self.model, judging, start)
        with mount_lora(folder, self.model, base_identity=self.base):
            right = self._recalled("asking with the memory", told, NOTHING)
            after = evaluation.perplexity(self.model, judging, start)
        self._note_evaluation(told, without, right, source, (before, after))

    def _judge_records(
        self, records: Sequence[Record], told: Sequence[Question], source: int | None = None
    ) -> None:
        """Measure records, of which those that a search finds stand before a question: they damage nothing."""

        def found(one: Question) -> str:
            return self._as_material(closest(records, one.question)).text

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

    def _passages(self, behind: int = 0) -> tuple[list[list[int]], list[list[int]]]:
        """The unrelated text to show and to judge by, cut to what the model reads `behind` so many tokens."""
        passages = unrelated.passages_for(self.recipe, self.order.passages)
        room = window_of(self.model) or behind + evaluation.PASSAGE_TOKENS
        taken = behind or len(self._asker.start.ids)
        return unrelated.halves(self.tokenizer, passages, room - taken)

    def _write_records(self, records: Iterable[Record]) -> None:
        path = self.folder / _RECORDS
        path.parent.mkdir(parents=True)
        path.write_bytes(b"".join(write_record(record) + b"\n" for record in records))

    def _watch(self, what: str) -> Callable[[int, int], None]:
        return partial(self.order.watch, what)

    def _known_base(self) -> BaseIdentity:
        assert self.base
        return self.base
