"""What an upload consists of so far: a value, and the text of it that `storage.claims` keeps."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
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

    `finished` are the objects that were made of the upload before. A push is about to name the last
    one, so until the upload is forgotten none is an orphan, whatever a clock says of its age.
    """

    multipart: Multipart | None = None
    parts: tuple[Part, ...] = ()
    tail: Tail | None = None
    finished: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many bytes these are."""
        return sum(part.size for part in self.parts) + (self.tail.size if self.tail else 0)

    @property
    def is_over(self) -> bool:
        """Whether it was finished, and nothing has been written since."""
        return bool(self.finished) and not (self.multipart or self.tail)

    @property
    def locations(self) -> tuple[str, ...]:
        """Where its bytes lie, or will lie."""
        return tuple(held.location for held in (self.multipart, self.tail) if held is not None)

    def made(self, location: str) -> Assembly:
        """What is left once these bytes are the object at `location`."""
        return Assembly(finished=(*self.finished, location))

    def with_part(self, multipart: Multipart, part: Part) -> Assembly:
        """This and one more part, which begins with the bytes of the tail."""
        return replace(self, multipart=multipart, parts=(*self.parts, part), tail=None)

    def to_text(self) -> str:
        """The text from which `parse` makes the same value."""
        multipart, tail = self.multipart, self.tail
        return json.dumps(
            {
                "form": _FORM,
                "multipart": [multipart.location, multipart.id] if multipart else None,
                "parts": [[part.etag, part.size] for part in self.parts],
                "tail": [tail.location, tail.size] if tail else None,
                "finished": self.finished,
            },
            separators=(",", ":"),
        )


def parse(text: str) -> Assembly:
    """The assembly that `text` describes; one without bytes if it is empty.

    Raises:
        StorageError: the text is damaged, or another version of the registry wrote it.
    """
    if not text:
        return Assembly()
    try:
        value = json.loads(text)
        if value["form"] != _FORM:
            raise ValueError("another form")
        return Assembly(
            multipart=Multipart(*value["multipart"]) if value["multipart"] else None,
            parts=tuple(Part(*part) for part in value["parts"]),
            tail=Tail(*value["tail"]) if value["tail"] else None,
            finished=tuple(value["finished"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            "what is known of an upload cannot be read", hint="start a new upload"
        ) from error
