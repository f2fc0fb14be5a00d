"""Which cubes of the local store still hold a record that was forgotten."""

from __future__ import annotations

from memcube_protocol import oci
from memcube_protocol.content import read_verified
from memcube_protocol.errors import IntegrityError, NotFoundError
from memcube_protocol.reference import Reference

from memcube.memories.plaintext.index import records_of
from memcube.store import Ref, Store


def copies_of(store: Store, name: str, record_id: str) -> tuple[Reference, ...]:
    """References of the cubes called `name`, packed here or published from here, with that record.

    What only others hold, or was pruned from the store, cannot be seen.
    """
    refs = [ref for ref in store.refs() if _is_called(ref.reference, name)]
    holding = {ref.digest for ref in refs if _holds(store, ref, record_id)}
    return tuple(ref.reference for ref in refs if ref.digest in holding)


def _is_called(reference: Reference, name: str) -> bool:
    """Whether it is the cube `name`, which the account's own namespace may stand before."""
    return reference.name == name or reference.name.endswith(f"/{name}")


def _holds(store: Store, ref: Ref, record_id: str) -> bool:
    try:
        manifest = oci.parse_manifest(read_verified(store, ref.digest))
        return any(record.id == record_id for record in records_of(manifest, store))
    except (NotFoundError, IntegrityError):
        return False
