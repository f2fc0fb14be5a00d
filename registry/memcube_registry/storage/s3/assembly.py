"""What an upload consists of so far: a value, and the text of it that `storage.claims` keeps."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from memcube_protocol.errors import StorageError

from memcube_registry.storage.s3.bucket import Multipart, Part

_FORM: Final = 1


@dataclass(frozen=True, slots=True)
class Tail:
    """Bytes after the last part, as an object of their own: too few for a part, or the whole upload."""

    location: str
    size: int


@dataclass(frozen=True, slots=True)
class Assembly:
    """The bytes of an upload, in order: `parts` of `multipart`, then `tail`.

    With `finished_at` it is no upload any more: its object must not be taken for an orphan, however old
    S3 says it is, for a push is about to name it.
    """

    begun_at: datetime
    multipart: Multipart | None = None
    parts: tuple[Part, ...] = ()
    tail: Tail | None = None
    is_finished: bool = False

    @property
    def size(self) -> int:
        """How many bytes these are; none are left of an upload that was finished."""
        if self.is_finished:
            return 0
        return sum(part.size for part in self.parts) + (self.tail.size if self.tail else 0)

    @property
    def locations(self) -> tuple[str, ...]:
        """Where its bytes lie, or will lie."""
        return tuple(held.location for held in (self.multipart, self.tail) if held is not None)

    def with_part(self, multipart: Multipart, part: Part) -> Assembly:
        """This and one more part, which begins with the bytes of the tail."""
        return replace(self, multipart=multipart, parts=(*self.parts, part), tail=None)

    def to_text(self) -> str:
        """The text from which `parse` makes the same value."""
        multipart, tail = self.multipart, self.tail
        return json.dumps(
            {
                "form": _FORM,
                "begun": self.begun_at.timestamp(),
                "multipart": [multipart.location, multipart.id] if multipart else None,
                "parts": [[part.etag, part.size] for part in self.parts],
                "tail": [tail.location, tail.size] if tail else None,
                "finished": self.is_finished,
            },
            separators=(",", ":"),
        )


def parse(text: str, now: datetime) -> Assembly:
    """The assembly that `text` describes; one without bytes, begun now, if it is empty.

    Raises:
        StorageError: the text is damaged, or another version of the registry wrote it.
    """
    if not text:
        return Assembly(now)
    try:
        value = json.loads(text)
        if value["form"] != _FORM:
            raise ValueError("another form")
        return Assembly(
            begun_at=datetime.fromtimestamp(value["begun"], UTC),
            multipart=Multipart(*value["multipart"]) if value["multipart"] else None,
            parts=tuple(Part(*part) for part in value["parts"]),
            tail=Tail(*value["tail"]) if value["tail"] else None,
            is_finished=value["finished"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            "what is known of an upload cannot be read", hint="start a new upload"
        ) from error
