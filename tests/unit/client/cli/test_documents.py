"""Key documents as people read them."""

from __future__ import annotations

from memcube.cli.documents import lines_of
from support.authority import NEW, OLD, first, quorum


def test_a_key_of_this_machine_is_told_by_its_name() -> None:
    shown = first(quorum=quorum(OLD, NEW), recovery=quorum(NEW))
    lines = lines_of(shown, {OLD.public_key.id: "release-2027"})
    old, new = OLD.public_key.id, NEW.public_key.id
    assert sorted(lines[2:4]) == sorted([f"    {old}  release-2027, on this machine", f"    {new}"])
    assert lines[4:] == ["  recovery: 1 of 1", f"    {new}"]
