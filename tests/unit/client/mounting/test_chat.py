"""A conversation over mounted memories, with a tiny model; and `memcube chat` around it."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from memcube.client import Client
from memcube.dumper import MemDumper
from memcube.mounting import MountedMemory
from memcube.mounting.chat import Conversation
from memcube.settings import Settings
from memcube_protocol.errors import EXIT_INTERRUPTED, EXIT_LIMIT, EXIT_USAGE, LimitExceededError
from support.machine import Machine
from support.models import model_of, text_of, tokenizer_of

pytest.importorskip("qdrant_edge")
pytest.importorskip("torch")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %} {{ m.role }} {{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %} assistant{% endif %}"
)
NAME = "alice/notes"


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    tokenizer = tokenizer_of(bos=True)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, model: Any, tokenizer: Any) -> Machine:
    """A user with a cube of records and a KV memory, and the checkpoint that it fits."""
    folder = tmp_path_factory.mktemp("chat")
    dumper = MemDumper(folder / "cube", name=NAME, version="1.0.0")
    dumper.add_records(["w1 w2 w3"])
    dumper.add_kv(model, tokenizer, memory_id="handbook", text=text_of(12))
    machine = Machine(folder / "home", "http://127.0.0.1:9")
    machine.ok("pack", dumper.folder)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return machine


@pytest.fixture(scope="module")
def checkpoint(machine: Machine) -> Path:
    return machine.home.parent / "model"


@pytest.fixture
def memory(machine: Machine, model: Any, tokenizer: Any) -> Iterator[MountedMemory]:
    with (
        Client(Settings.load(machine.environment)) as client,
        client.mount(NAME, model=model, tokenizer=tokenizer, filters=["kind=plaintext"]) as memory,
    ):
        yield memory


class Asked:
    """A memory whose model answers `yes`, and the prompts that it was given."""

    def __init__(self, memory: MountedMemory, prefix: tuple[int, ...] = ()) -> None:
        self._memory = memory
        self.prefix_ids = prefix
        self.prompts: list[str] = []

    def context(self, question: str) -> str:
        return "RECORDS" if "w1" in question else ""

    def generate(self, prompt: str, **options: Any) -> str:
        self.prompts.append(prompt)
        assert options["context"] == ""
        return "yes"


def test_the_answer_is_heard_word_by_word_and_is_what_the_model_says(
    memory: MountedMemory, model: Any, tokenizer: Any
) -> None:
    talk = Conversation(memory, model, tokenizer, max_new_tokens=4)
    heard: list[str] = []
    answer = talk.ask("w9 w10", heard.append)
    assert "".join(heard) == answer
    assert len(heard) > 1
    assert answer == memory.generate("user w9 w10 assistant", context="", max_new_tokens=4)


def test_earlier_turns_are_told_without_their_records(
    memory: MountedMemory, model: Any, tokenizer: Any
) -> None:
    asked: Any = Asked(memory)
    talk = Conversation(asked, model, tokenizer, max_new_tokens=4)
    talk.ask("w1", print)
    assert talk.context == "RECORDS"
    talk.ask("w2", print)
    assert asked.prompts == [
        " user RECORDS\n\nw1 assistant",
        " user w1 assistant yes user w2 assistant",
    ]
    talk.forget()
    talk.ask("w2", print)
    assert asked.prompts[-1] == " user w2 assistant"


def test_the_mark_that_begins_a_text_comes_once(memory: MountedMemory, model: Any) -> None:
    plain = tokenizer_of()
    plain.chat_template = TEMPLATE
    for prefix, tokenizer, begins in (
        ((), plain, True),
        ((1, 2), plain, False),
        ((), tokenizer_of(bos=True), False),
    ):
        tokenizer.chat_template = TEMPLATE
        asked: Any = Asked(memory, prefix)
        Conversation(asked, model, tokenizer, max_new_tokens=1).ask("w2", print)
        assert asked.prompts[0].startswith("<s>") is begins


def test_what_no_longer_fits_is_left_out_oldest_first(
    memory: MountedMemory, model: Any, tokenizer: Any
) -> None:
    asked: Any = Asked(memory)
    talk = Conversation(asked, model, tokenizer, max_new_tokens=12)
    for number in range(4):
        talk.ask(text_of(200, start=2 + 7 * number), print)
    window = model.config.max_position_embeddings
    assert all(len(tokenizer(prompt)["input_ids"]) + 12 <= window for prompt in asked.prompts)
    assert text_of(200, start=16) in asked.prompts[-1]
    assert text_of(200, start=2) not in asked.prompts[-1]
    with pytest.raises(LimitExceededError):
        talk.ask(text_of(600), print)
    longer = Conversation(asked, model, tokenizer, max_new_tokens=window + 6)
    with pytest.raises(LimitExceededError, match=f"an answer of {window + 6}, .* room for 0$"):
        longer.ask("w2", print)


def test_a_model_without_a_template_gets_each_question_alone(
    memory: MountedMemory, model: Any
) -> None:
    asked: Any = Asked(memory)
    talk = Conversation(asked, model, tokenizer_of(), max_new_tokens=1)
    talk.ask("w2", print)
    talk.ask("w3", print)
    assert asked.prompts == ["w2", "w3"]


def test_ctrl_c_stops_the_answer_and_the_next_question_is_answered_as_ever(
    memory: MountedMemory, model: Any, tokenizer: Any
) -> None:
    talk = Conversation(memory, model, tokenizer, max_new_tokens=4)
    whole = talk.ask("w9 w10", lambda _: None)
    talk.forget()
    with pytest.raises(KeyboardInterrupt):
        talk.ask("w9 w10", lambda _: signal.raise_signal(signal.SIGINT))
    assert talk.turns == []
    assert talk.ask("w9 w10", lambda _: None) == whole


def test_from_a_pipe_each_line_is_a_question(machine: Machine, checkpoint: Path) -> None:
    words = ("chat", NAME, "--model", checkpoint, "--max-new-tokens", "3")
    done = machine.run(*words, stdin="w9 w10\n\nw11\n")
    assert done.returncode == 0, done.stderr
    one, two = done.stdout.splitlines()
    told = json.loads(machine.ok(*words, "--json", stdin="w9 w10\nw11\n/quit\nw12\n"))
    assert [turn["answer"].strip() for turn in told["turns"]] == [one.strip(), two.strip()]
    assert {row["step"] for row in told["memories"]} == {"mounted"}
    assert {row["kind"] for row in told["memories"]} == {"activation", "plaintext"}
    assert machine.run(*words, stdin=text_of(600)).returncode == EXIT_LIMIT


def test_a_small_model_has_room_for_questions_unless_told_otherwise(
    machine: Machine, checkpoint: Path
) -> None:
    words = ("chat", NAME, "--model", checkpoint, "--json")
    (turn,) = json.loads(machine.ok(*words, stdin="w9 w10\n"))["turns"]
    assert 0 < len(turn["answer"].split()) <= 256


def test_what_is_no_text_is_asked_as_far_as_it_is(machine: Machine, checkpoint: Path) -> None:
    words = ("chat", NAME, "--model", checkpoint, "--max-new-tokens", "3", "--json")
    (turn,) = json.loads(machine.ok(*words, stdin="w9 \udcff\n"))["turns"]
    assert turn["question"] == "w9 ?"
    told = machine.ok("mount", NAME, "--model", checkpoint, "--ask", "w9 \udcff")
    assert "> w9" in told


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_it_goes_on_after_what_is_stopped_or_refused(
    machine: Machine, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = ["w1", "/context", "/memory", "/help", KeyboardInterrupt, text_of(600), "w9"]
    said += ["/remember w60 w61", "w60", "/context", "/quit"]
    lines = iter(said)

    def typed(prompt: str) -> str:
        line = next(lines)
        if line is KeyboardInterrupt:
            raise KeyboardInterrupt
        return str(line)

    monkeypatch.setattr("builtins.input", typed)
    monkeypatch.setattr(io, "StringIO", Terminal)
    words = ("chat", NAME, "--model", checkpoint, "--max-new-tokens", "3")
    done = machine.run(*words, "--overlay", tmp_path / "notes")
    assert done.returncode == 0
    assert next(lines, None) is None
    assert "w60 w61" in done.stdout.partition("kept as m-")[2]
    for part in (
        "<memories-",
        "/help lists",
        "/context        show",
        "mounted  activation",
        "Ctrl-D",
    ):
        assert part in done.stdout, part
    assert "beside an answer of 3, the model has room for " in done.stderr


def test_ctrl_c_in_a_pipe_ends_it(
    machine: Machine, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Conversation, "ask", stopped)
    words = ("chat", NAME, "--model", checkpoint)
    assert machine.run(*words, stdin="w9\n").returncode == EXIT_INTERRUPTED


def test_what_a_model_says_cannot_steer_the_terminal(
    machine: Machine, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Conversation, "ask", lambda _, question, say: say("\x1b[31mred\u202e"))
    assert machine.ok("chat", NAME, "--model", checkpoint, stdin="w9\n") == "�[31mred�\n"


def test_a_chat_about_nothing_is_refused_before_a_model_is_loaded(
    machine: Machine, tmp_path: Path
) -> None:
    told = machine.fails(EXIT_USAGE, "chat", "--model", tmp_path)
    assert "name a cube" in told


def test_a_misspelt_wish_is_named_in_the_words_of_the_interface(machine: Machine) -> None:
    with (
        Client(Settings.load(machine.environment)) as client,
        pytest.raises(TypeError, match=r"cannot be asked for budget_token; see mounting\.Asked"),
    ):
        client.mount(NAME, budget_token=1)  # type: ignore[call-arg]
