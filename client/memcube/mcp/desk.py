"""What agents ask of mounted memories, answered in bounded sizes: the acts behind the tools.

Whatever a record or a publisher said is data. Texts leave here inside delimiters that they cannot
close (`memories.plaintext.context`); titles and names in JSON are made harmless in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from memcube_protocol.errors import (
    ConflictError,
    FindingsError,
    InvalidRequestError,
    NotFoundError,
)
from memcube_protocol.records import Record, Source
from memcube_protocol.values import frozen

from memcube.mcp.citations import Citation, cube_address
from memcube.memories.plaintext.context import one_line, render
from memcube.memories.plaintext.filters import Filters
from memcube.mounting import Hit, MountedCube, MountedMemory, Overlay

SEARCH_RESULTS: Final = 20
READ_RECORDS: Final = 20
LISTED_RECORDS: Final = 100
READ_TOKENS: Final = 32_000
"""What one reading gives at most; a longer record is cut, and ends with an ellipsis."""
CONTEXT_TOKENS: Final = 16_000

_TITLE_CHARS: Final = 120
_SUMMARY_CHARS: Final = 500


@frozen
class Desk:
    """The memories that agents are let to. `overlay` is the part of them that may be changed.

    Every answer is what JSON can hold, or text between delimiters.
    """

    memory: MountedMemory
    overlay: Overlay | None = None

    def search(self, query: str) -> dict[str, Any]:
        """The best records for `query`: id, title and address of each."""
        hits = self.memory.search(query, SEARCH_RESULTS)
        return {"results": [_result(hit) for hit in hits]}

    def fetch(self, id: str) -> dict[str, Any]:  # noqa: A002 - the schema's own name
        """One record, whole up to `READ_TOKENS`.

        Raises:
            NotFoundError: no mounted cube has it, or it may not be shown.
        """
        hit = self._hit(id)
        text = render([hit.record], READ_TOKENS, cubes=[hit.cube])
        return {**_result(hit), "text": text, "metadata": _metadata(hit)}

    def read(self, ids: Sequence[str]) -> str:
        """Several records as one text, in the order that they are named in.

        Raises:
            NotFoundError: there is one that no mounted cube has, or that may not be shown.
        """
        hits = [self._hit(citation) for citation in ids]
        return render([hit.record for hit in hits], READ_TOKENS, cubes=[hit.cube for hit in hits])

    def context(
        self,
        question: str,
        budget_tokens: int | None = None,
        tags: Sequence[str] = (),
        types: Sequence[str] = (),
    ) -> str:
        """The best records for `question` as text in a budget; says so where there is none.

        The budget is the memory's own unless given, and `CONTEXT_TOKENS` at most.
        """
        wanted = int(budget_tokens or self.memory.budget_tokens)  # JSON has 200.0
        budget = min(wanted, CONTEXT_TOKENS)
        found = self.memory.context(question, budget, Filters(tags=tags, types=types))
        return found or "No mounted memory answers this."

    def cite(self, ids: Sequence[str]) -> dict[str, Any]:
        """For each record, what a reader needs to find and judge it.

        Raises:
            NotFoundError: there is one that no mounted cube has, or that may not be shown.
        """
        return {"citations": [self._cited(self._hit(citation)) for citation in ids]}

    def list_memories(self, cube: str | None = None, after: str = "") -> dict[str, Any]:
        """The cubes, or records of one; see `list_cubes` and `list_records`.

        Raises:
            InvalidRequestError: `after` without `cube`: all cubes are listed at once.
            NotFoundError: no such cube is mounted.
        """
        if cube is not None:
            return self.list_records(cube, after)
        if after:
            raise InvalidRequestError(
                "`after` goes on with the records of one cube, and no cube is named",
                hint="name the `cube` whose records were listed; without one all cubes are listed at once",
            )
        return self.list_cubes()

    def list_cubes(self) -> dict[str, Any]:
        """What is mounted: the cubes, and the overlay where there is one."""
        self.memory.require_mounted()
        cubes = [_described(cube) for cube in self.memory.cubes]
        own = [_described_overlay(self.overlay)] if self.overlay else []
        return {"cubes": own + cubes, "writable": self.overlay is not None}

    def list_records(self, cube: str, after: str = "") -> dict[str, Any]:
        """Records of one cube in the order of their ids, behind the one called `after`; `next` goes on.

        Raises:
            NotFoundError: no such cube is mounted.
            InvalidRequestError: `after` is a record of another cube.
        """
        self._require_mounted(cube)
        last = Citation.parse(after, self.names)
        if last.cube not in (None, cube):
            raise InvalidRequestError(
                f"{one_line(after)[:200]} is no record of {one_line(cube)[:200]}",
                hint="`after` takes the id that `next` named for the same cube",
            )
        of_cube = (hit for hit in self.memory.records() if hit.cube == cube)
        page = list(
            islice((hit for hit in of_cube if hit.record.id > last.record_id), LISTED_RECORDS + 1)
        )
        shown = page[:LISTED_RECORDS]
        answer: dict[str, Any] = {"results": [_result(hit) for hit in shown]}
        return answer | ({"next": answer["results"][-1]["id"]} if len(page) > len(shown) else {})

    def remember(
        self, agent: str | None, text: str, replaces: str | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Keep `text`, in the name of `agent` and in the place of `replaces`; says what it is cited as.

        Raises:
            ConflictError: nothing can be written here.
            NotFoundError: `replaces` is no record of the overlay.
            FindingsError: it holds a secret, by the rules of `memcube scan`.
            InvalidRecordError, LimitExceededError, StorageError: it was not kept.
        """
        own = self._writable()
        _require_no_secret("\n".join((text, *_texts(fields.values()))))
        old = own.read(self._own_id(own, replaces)).id if replaces else None
        record = own.remember(text, agent=agent, replaces=old, **fields)
        return _result(Hit(record, 1.0, own.name))

    def forget(self, id: str) -> dict[str, Any]:  # noqa: A002 - the schema's own name
        """Remove a record of the overlay; says what is left elsewhere.

        Raises:
            ConflictError: nothing can be written here.
            NotFoundError: the overlay has no such record.
        """
        own = self._writable()
        forgotten = own.forget(self._own_id(own, id))
        return {
            "forgotten": forgotten.record.id,
            "stillIn": [str(reference) for reference in forgotten.still_in],
            "told": forgotten.told,
        }

    def describe(self, cube: str) -> dict[str, Any]:
        """What `cube` is.

        Raises:
            NotFoundError: no such cube is mounted.
        """
        self._require_mounted(cube)
        described: Iterable[dict[str, Any]] = self.list_cubes()["cubes"]
        return next(one for one in described if one["cube"] == cube)

    @property
    def names(self) -> list[str]:
        """What hits call the mounted cubes; the overlay first."""
        own = [self.overlay.name] if self.overlay else []
        return own + [cube.name for cube in self.memory.cubes]

    def _hit(self, citation: str) -> Hit:
        named = Citation.parse(citation, self.names)
        return self.memory.read(named.record_id, named.cube)

    def _writable(self) -> Overlay:
        self.memory.require_mounted()
        if self.overlay is None:
            raise ConflictError(
                "nothing can be remembered or forgotten here: mounted cubes do not change",
                hint="serve with --overlay FOLDER",
            )
        return self.overlay

    def _own_id(self, own: Overlay, citation: str) -> str:
        """The id in the overlay that `citation` means."""
        named = Citation.parse(citation, self.names)
        if named.cube not in (None, own.name):
            raise NotFoundError(
                f"{one_line(citation)} is of a cube that does not change",
                hint=f"only records of {own.name} can be replaced or forgotten",
            )
        return named.record_id

    def _require_mounted(self, cube: str) -> None:
        if cube not in self.names:
            raise NotFoundError(
                f"{one_line(cube)[:200]} is not mounted here",
                hint=f"mounted: {', '.join(self.names)}",
            )

    def _cited(self, hit: Hit) -> dict[str, Any]:
        cube = next((cube for cube in self.memory.cubes if cube.name == hit.cube), None)
        moment = hit.record.updated_at or hit.record.created_at
        told = f"“{_title(hit.record)}”, record {hit.record.id} of {hit.cube}"
        return {
            **_result(hit),
            **_metadata(hit),
            **({"digest": str(cube.verified.cube.digest)} if cube else {}),
            **({"standing": str(cube.verified.verdict.standing)} if cube else {}),
            "citation": told + (f", {moment[:10]}" if moment else ""),
        }


def _require_no_secret(text: str) -> None:
    from memcube.scanning.text import scan_text

    found = next((match.rule for match in scan_text(text) if match.rule.check == "secrets"), None)
    if found is not None:
        raise FindingsError(
            f"this holds a secret ({found.name}), so it is not remembered",
            hint="remember where the secret is kept, not the secret",
        )


def _texts(values: Iterable[Any]) -> Iterator[str]:
    """The texts among `values`, those of lists too."""
    for value in values:
        yield from [value] if isinstance(value, str) else value or ()


def _result(hit: Hit) -> dict[str, Any]:
    citation = Citation(hit.record.id, hit.cube)
    return {"id": str(citation), "title": _title(hit.record), "url": citation.address}


def _title(record: Record) -> str:
    """The subject and the first words of `record`, in one harmless line."""
    first = next((line for line in record.text.splitlines() if line.strip()), "")
    words = one_line(first[: 2 * _TITLE_CHARS]).strip()
    subject = one_line(record.subject or "")
    title = words if words.startswith(subject) else f"{subject}: {words}"
    return title if len(title) <= _TITLE_CHARS else title[: _TITLE_CHARS - 1] + "…"


def _metadata(hit: Hit) -> dict[str, str]:
    """Facts about a record as text, each short; absent ones are left out."""
    record, source = hit.record, hit.record.source or Source()
    facts: Mapping[str, str | None] = {
        "cube": hit.cube,
        "record": record.id,
        "type": record.type,
        "subject": record.subject,
        "tags": ", ".join(record.tags[:20]),
        "created": record.created_at,
        "updated": record.updated_at,
        "validFrom": record.valid_from,
        "validTo": record.valid_to,
        "sensitivity": record.sensitivity,
        "source": source.uri or source.system,
        "author": source.author,
    }
    return {name: one_line(fact)[:_SUMMARY_CHARS] for name, fact in facts.items() if fact}


def _described(cube: MountedCube) -> dict[str, Any]:
    verified, config = cube.verified, cube.verified.cube.config
    texts = {
        "title": config.title,
        "summary": config.summary,
        "licence": config.governance.licence,
    }
    return {
        "cube": cube.name,
        "url": cube_address(cube.name),
        "digest": str(verified.cube.digest),
        "standing": str(verified.verdict.standing),
        "version": config.version,
        "records": sum(memory.records or 0 for memory in config.memories),
        **{name: one_line(text)[:_SUMMARY_CHARS] for name, text in texts.items() if text},
    }


def _described_overlay(overlay: Overlay) -> dict[str, Any]:
    return {
        "cube": overlay.name,
        "url": cube_address(overlay.name),
        "title": "What agents remembered here",
        "records": sum(1 for _ in overlay.records()),
    }
