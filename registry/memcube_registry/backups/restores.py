"""That a restore into a data folder is not complete: then nothing else may use it."""

from __future__ import annotations

from pathlib import Path

from memcube_protocol.errors import ConflictError


def journal_of(data_dir: Path) -> Path:
    """The file whose presence says so."""
    return data_dir / "restore.journal"


def require_complete(data_dir: Path) -> None:
    """Refuse a data folder into which a restore has begun and not ended.

    Raises:
        ConflictError: one has.
    """
    journal = journal_of(data_dir)
    if journal.exists():
        raise ConflictError(
            f"a restore into {data_dir} is not complete",
            hint=f"run `memcube-registry restore` again: it goes on by {journal}",
        )
