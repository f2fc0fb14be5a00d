"""What an import gives: records one by one, and a report that is complete when they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from memcube_protocol.records import Record

_NOTES: Final = 200


@dataclass(slots=True)
class ImportReport:
    """What was read, and what was left out and why. It grows while the records are read.

    `refused` names files that are never read, `secrets` the fields whose values were dropped,
    `skipped` what gave no record, `notes` what was understood in one way though another was
    possible; each list keeps its first 200 lines, and `unlisted` counts the rest. `settings` is
    the source's own configuration without its secrets.
    """

    system: str
    records: int = 0
    vectors: int = 0
    refused: list[str] = field(default_factory=list[str])
    secrets: list[str] = field(default_factory=list[str])
    skipped: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    unlisted: int = 0
    settings: dict[str, Any] = field(default_factory=dict[str, Any])

    def refuse(self, what: str) -> None:
        """Say that a file is never read."""
        self._add(self.refused, what)

    def drop_secret(self, where: str) -> None:
        """Say that the value at `where` was dropped; the value itself is told nobody."""
        self._add(self.secrets, where)

    def skip(self, what: str) -> None:
        """Say that something gave no record."""
        self._add(self.skipped, what)

    def note(self, what: str) -> None:
        """Say how something doubtful was understood, once."""
        self._add(self.notes, what)

    def _add(self, lines: list[str], line: str) -> None:
        if line in lines:
            return
        if len(lines) < _NOTES:
            lines.append(line)
        else:
            self.unlisted += 1


class Imported(NamedTuple):
    """Records of another system as they are read, and the report that fills on the way."""

    records: Iterator[Record]
    report: ImportReport
