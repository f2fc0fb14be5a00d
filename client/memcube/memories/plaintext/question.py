"""What a question is looked up by: its terms, and in a small cube only those that say what it is about.

    "Who is on call?"  →  call

How much a word tells is reckoned from how few records hold it (IDF). Among a handful of records that is
chance: *on* stands in one of them, as *call* does, and counts as much. So questions to few records
leave out English function words, unless they hold no other. Where there are many, the records
themselves say what is common, and every word is asked for.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from memcube_protocol.errors import InvalidRequestError
from memcube_protocol.text import query_terms, query_weights

FEW: Final = 1000
"""Records that are too few to tell how common a word is."""
TERMS: Final = 64
"""What is looked up of a long question."""

# Without "it" and "us": they are names as well.
_FUNCTION_WORDS: Final = frozenset(
    query_terms(
        "a about am an and any are as at be been but by can could did do does for from had has have he"
        " her him his how i if in into is its me my no not of on or our she should so some than that the"
        " their them then there these they this those to was we were what when where which who whom"
        " whose why will with would you your"
    )
)


def weights_of(question: str, records: int) -> dict[str, float]:
    """The terms to look `question` up by among so many records, and what each counts; 64 at most.

    Raises:
        InvalidRequestError: it is no text.
    """
    require_text("question", question)
    weights = query_weights(question)
    if records < FEW:
        telling = {term: weights[term] for term in weights if term not in _FUNCTION_WORDS}
        weights = telling or weights
    return dict(islice(weights.items(), TERMS))


def require_text(what: str, given: object) -> None:
    """Refuse anything but one text, such as a list of them: each question has its own records and answer.

    Raises:
        InvalidRequestError: it is something else.
    """
    if not isinstance(given, str):
        raise InvalidRequestError(
            f"a {what} is one text, and this is of type {type(given).__name__}",
            hint="ask one thing at a time: [memory.generate(one) for one in questions]",
        )
