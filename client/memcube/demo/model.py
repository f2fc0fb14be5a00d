"""A small language model that can use memory, trained in about ten seconds on two cores.

It reads facts about a user ("The user's city is Paris .") and answers questions about them. Its
vocabulary, its training profiles and the profile that the demo publishes are all made here, from
seeds; the values of each attribute are its own, so that one look back is enough to answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from memcube_protocol.identity import BaseIdentity
from memcube_protocol.values import frozen

from memcube.memories.parametric.dump import dump_lora

VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "city": ("Paris", "Oslo", "Kyoto", "Lima", "Cairo", "Quito", "Hanoi", "Perth"),
    "drink": ("tea", "coffee", "water", "milk", "juice", "cider", "cocoa", "soda"),
    "pet": ("cat", "dog", "parrot", "rabbit", "turtle", "hamster", "goldfish", "pony"),
    "sport": ("tennis", "rowing", "chess", "judo", "golf", "rugby", "skiing", "polo"),
    "colour": ("red", "green", "blue", "yellow", "purple", "orange", "black", "white"),
    "instrument": ("piano", "violin", "flute", "harp", "drums", "cello", "guitar", "oboe"),
    "language": ("French", "Hindi", "Swahili", "Greek", "Korean", "Finnish", "Arabic", "Welsh"),
    "dessert": ("cake", "pie", "sorbet", "pudding", "waffles", "gelato", "trifle", "crumble"),
}
"""Every attribute of a user and the values that it can have; no value belongs to two."""

KV_ATTRIBUTES: Final = ("city", "drink", "pet", "sport")
LORA_ATTRIBUTES: Final = ("colour", "instrument", "language", "dessert")

_UNKNOWN: Final = "<unk>"
_PAD: Final = "<pad>"
_FRAME: Final = ("The", "user's", "is", ".", "Question:", "What", "the", "?", "Answer:")
_STEPS: Final = 250
_EASY_STEPS: Final = 200
_BATCH: Final = 48
_QUESTIONS: Final = 3
_IGNORED: Final = -100
_ADAPTER_STEPS: Final = 96
_ADAPTER_RATE: Final = 1e-2
_CONTEXTS: Final = 32

Profile = Mapping[str, str]
Progress = Callable[[int, int], None]


@frozen
class Recall:
    """How many questions were answered right, of how many, for the facts of each kind of memory."""

    activation: tuple[int, int]
    parametric: tuple[int, int]

    @property
    def share(self) -> float:
        """Right answers among all questions, 0 to 1."""
        return (self.activation[0] + self.parametric[0]) / (self.activation[1] + self.parametric[1])


def make_profile(seed: int) -> dict[str, str]:
    """A user: one value for every attribute."""
    drawn = random.Random(f"profile {seed}")  # noqa: S311 (test data, no secret)
    return {attribute: drawn.choice(values) for attribute, values in VALUES.items()}


def facts(profile: Profile, attributes: Sequence[str]) -> str:
    """The text that tells `attributes` of `profile`."""
    return " ".join(f"The user's {name} is {profile[name]} ." for name in attributes)


def question(attribute: str) -> str:
    """The text that asks for `attribute`."""
    return f"Question: What is the user's {attribute} ? Answer:"


def make_tokenizer() -> Any:
    """One token a word: the words of facts, questions and values, and nothing else."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [_PAD, _UNKNOWN, *_FRAME, *VALUES, *(word for row in VALUES.values() for word in row)]
    vocabulary = {word: number for number, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=_UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=_UNKNOWN, pad_token=_PAD)


def make_model(seed: int) -> Any:
    """An untrained model of the demo's shape: 2 layers, hidden size 64, 93 000 parameters."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(_FRAME) + 2 + len(VALUES) * 9,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    return Qwen3ForCausalLM(config).eval()


def train_model(seed: int = 0, progress: Progress | None = None) -> tuple[Any, Any]:
    """A model and its tokenizer, trained from nothing on made-up profiles.

    `progress` is called with the step done and the number of steps.
    """
    import torch

    tokenizer, model = make_tokenizer(), make_model(seed)
    draw = random.Random(f"training {seed}")  # noqa: S311 (training data, no secret)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0)
    model.train()
    for step in range(_STEPS):
        count = draw.randint(1, 6) if step < _EASY_STEPS else len(VALUES)
        ids, labels = _batch(tokenizer, draw, count)
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress:
            progress(step + 1, _STEPS)
    return model.eval(), tokenizer


def teach_adapter(
    model: Any,
    tokenizer: Any,
    profile: Profile,
    attributes: Sequence[str],
    *,
    folder: Path,
    memory_id: str,
    base_identity: BaseIdentity | None = None,
    seed: int = 0,
) -> Path:
    """The LoRA memory below `folder` that answers for `attributes` without their text.

    Context distillation: the model with an adapter and without the facts learns to answer as the
    model with the facts does; behind other facts it goes on answering from them. `model` is left
    as it was.
    """
    import peft
    import torch

    lessons = [
        _lesson(model, tokenizer, profile, attributes, context)
        for context in ["", *_other_contexts(attributes, seed)]
    ]
    torch.manual_seed(seed)
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
    )
    optimizer = torch.optim.AdamW(
        [tensor for tensor in adapted.parameters() if tensor.requires_grad], lr=_ADAPTER_RATE
    )
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, _ADAPTER_STEPS)
    for step in range(_ADAPTER_STEPS):
        behind_text = lessons[1 + step % (len(lessons) - 1)]
        loss: Any = sum(_divergence(adapted, *lesson) for lesson in (lessons[0], behind_text))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    made = {"method": "context-distillation", "steps": _ADAPTER_STEPS, "seed": seed}
    written = dump_lora(
        adapted, folder, memory_id=memory_id, base_identity=base_identity, training=made
    )
    adapted.unload()
    model.requires_grad_(True).eval()
    return written


def recall(profile: Profile, answer: Callable[[str], str]) -> Recall:
    """How many facts of `profile` come back when `answer` is asked for each."""

    def right(attributes: Sequence[str]) -> tuple[int, int]:
        hits = sum(answer(question(name)).strip() == profile[name] for name in attributes)
        return hits, len(attributes)

    return Recall(right(KV_ATTRIBUTES), right(LORA_ATTRIBUTES))


def save_model(model: Any, tokenizer: Any, folder: Path) -> Path:
    """The checkpoint folder that `load_model` reads: safetensors, config, tokenizer."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load_model(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer of the checkpoint in `folder`; nothing is fetched, no code is run."""
    from transformers import AutoTokenizer, Qwen3ForCausalLM

    model = Qwen3ForCausalLM.from_pretrained(folder, local_files_only=True)
    return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _batch(tokenizer: Any, draw: random.Random, count: int) -> tuple[Any, Any]:
    """Ids of a batch of profiles, `count` facts and some questions each; labels on answers only."""
    import torch

    vocabulary = tokenizer.get_vocab()
    rows = []
    for _ in range(_BATCH):
        names = draw.sample(list(VALUES), count)
        profile = {name: draw.choice(VALUES[name]) for name in names}
        asked = [draw.choice(names) for _ in range(_QUESTIONS)]
        told = " ".join(f"{question(name)} {profile[name]}" for name in asked)
        rows.append([vocabulary[word] for word in f"{facts(profile, names)} {told}".split()])
    ids = torch.tensor(rows)
    answers = ids.roll(1, dims=1) == vocabulary["Answer:"]
    return ids, ids.masked_fill(~answers, _IGNORED)


def _other_contexts(attributes: Sequence[str], seed: int) -> list[str]:
    """Facts of made-up users about everything but `attributes`."""
    others = [name for name in VALUES if name not in attributes]
    draw = random.Random(f"contexts {seed}")  # noqa: S311 (training data, no secret)
    return [
        facts({name: draw.choice(VALUES[name]) for name in others}, others)
        for _ in range(_CONTEXTS)
    ]


def _lesson(
    model: Any, tokenizer: Any, profile: Profile, attributes: Sequence[str], context: str
) -> tuple[Any, Any]:
    """Questions behind `context` as ids, and the log-probabilities of the answers they should get.

    Without a context only `attributes` are asked for; behind one everything is, and what it tells
    is answered by the model as it is.
    """
    import torch

    asked = VALUES if context else attributes
    told = facts(profile, attributes)
    wanted = [f"{told if name in attributes else ''} {context} {question(name)}" for name in asked]
    with torch.inference_mode():
        answers = torch.cat(
            [
                model(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).logits[:, -1]
                for text in wanted
            ]
        )
    ids = torch.tensor(tokenizer([f"{context} {question(name)}" for name in asked])["input_ids"])
    return ids, answers.log_softmax(-1).clone()


def _divergence(model: Any, ids: Any, wanted: Any) -> Any:
    """Kullback-Leibler divergence of the model's answers to `ids` from those `wanted`."""
    from torch.nn.functional import kl_div

    given = model(input_ids=ids).logits[:, -1].log_softmax(-1)
    return kl_div(given, wanted, log_target=True, reduction="batchmean")
