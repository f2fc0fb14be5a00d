"""What forgetting came to, and what it cannot reach."""

from __future__ import annotations

from memcube_protocol.records import Record
from memcube_protocol.reference import Reference
from memcube_protocol.values import frozen


@frozen
class ForgottenRecord:
    """The record that was removed from the folder.

    `still_in` are cubes of this name in the local store that hold it, packed here or published:
    forgetting reaches none of them, nor what others have pulled.
    """

    record: Record
    still_in: tuple[Reference, ...] = ()

    @property
    def told(self) -> str:
        """One sentence for who asked: what is gone, and what is not."""
        gone = f"{self.record.id} is gone from the folder"
        if not self.still_in:
            return f"{gone}; no cube in the local store holds it"
        names = ", ".join(map(str, self.still_in[:5])) + (", …" if len(self.still_in) > 5 else "")
        return (
            f"{gone}, and still in {names}: push a new version, and yank the old ones; "
            "what others have pulled stays with them"
        )
