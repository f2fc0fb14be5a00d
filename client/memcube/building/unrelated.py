"""Text that has nothing to do with any cube: what a build must leave alone.

Every second passage is shown while an adapter is taught, the others judge it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from memcube_protocol import limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import ConflictError, InvalidRequestError
from memcube_protocol.recipe import Recipe

from memcube.building.evaluation import PASSAGE_TOKENS
from memcube.memories.reading import read_small

PASSAGES: Final = (
    "The kettle was still warm when she came back from the garden with a handful of mint.",
    "Water boils at a lower temperature in the mountains, because the air presses on it less.",
    "He folded the map, put it back into his coat, and asked the driver to stop at the next bridge.",
    "A violin has four strings; the bow is drawn across them, and the wood of the body sounds along.",
    "Most of the meeting was about the roof. Nobody wanted to say what it would cost to mend it.",
    "In spring the river carries sand down from the hills and leaves it where the current is slow.",
    "To sharpen a knife, hold the blade at a small angle and draw it along the stone without force.",
    "The library closes at six on weekdays and at noon on Saturdays; books can be returned at any time.",
    "Bread rises because yeast turns sugar into gas, and the dough is tough enough to hold it.",
    "They had walked for an hour before anyone noticed that the dog was no longer with them.",
    "春天的早晨，街上的人还不多，只有卖豆浆的小店已经开了门。",
    "火车晚点了二十分钟，大家都站在月台上看着远处的信号灯。",
    "Der Weg zum Hafen führt an alten Lagerhäusern vorbei, in denen heute Werkstätten sind.",
    "Am Abend legte sich der Wind, und man konnte die Glocken vom anderen Ufer hören.",
    "Le marché ouvre tôt le matin, et vers midi il ne reste que quelques caisses de pommes.",
    "Les hirondelles reviennent chaque année au même endroit, sous le toit de la vieille grange.",
)


def digest_of(passages: Sequence[str]) -> Digest:
    """What a recipe calls `passages`."""
    return Digest.of("\n".join(passages).encode())


def read_passages(path: Path) -> tuple[str, ...]:
    """The lines of a text file that are not empty: one passage each.

    Raises:
        InvalidRequestError: fewer than two, or not UTF-8.
        LimitExceededError: more than 1 MiB.
        NotFoundError: no such file.
    """
    try:
        text = read_small(path, limits.MIB).decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    passages = tuple(line.strip() for line in text.splitlines() if line.strip())
    if len(passages) < 2:
        raise InvalidRequestError(
            f"{path.name} holds {len(passages)} passages, at least 2 lines of UTF-8 text are wanted",
            hint="write one passage a line: one half is shown while teaching, the other half judges",
        )
    return passages


def passages_for(recipe: Recipe, given: Path | None) -> tuple[str, ...]:
    """The passages that `recipe` names: those of the file `given`, or those that memcube brings along.

    Raises:
        ConflictError: neither has the digest that the recipe names.
    """
    passages = read_passages(given) if given else PASSAGES
    if recipe.unrelated != digest_of(passages):
        raise ConflictError(
            f"the recipe was judged by another unrelated text ({recipe.unrelated})",
            hint="give that text with --unrelated FILE",
        )
    return passages


def halves(
    tokenizer: Any, passages: Sequence[str], most_tokens: int = PASSAGE_TOKENS
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of the passages to show while teaching, and of those to judge by, each cut to `most_tokens`.

    They are without the special tokens that begin a text: something may stand before them.

    Raises:
        InvalidRequestError: there is nothing to judge by: no passage has two tokens.
    """
    rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in passages]
    most = max(2, min(most_tokens, PASSAGE_TOKENS))
    long = [row[:most] for row in rows if len(row) > 1]
    if len(long) < 2:
        raise InvalidRequestError(
            "the unrelated text has fewer than two passages of two tokens",
            hint="give a longer one: --unrelated FILE",
        )
    return long[::2], long[1::2]
