"""What waits for the registry's countersignature, noted in the transaction that made it visible."""

from __future__ import annotations

from datetime import datetime

from memcube_protocol import media_types, oci
from memcube_protocol.digest import Digest
from memcube_signing.release import PREDICATE_TYPE
from sqlmodel import Session

from memcube_registry.countersigning.models import Countersigning


def note(
    session: Session,
    repository_id: int,
    digest: Digest,
    manifest: oci.Manifest | oci.Index,
    now: datetime,
    *,
    is_new: bool,
) -> bool:
    """Note a manifest that attaches a release; whether a countersignature is due.

    Pushed again, it is due again where it was refused, or (`is_new`) had been removed meanwhile.
    """
    if not _may_attach_release(manifest):
        return False
    row = session.get(Countersigning, (repository_id, str(digest)))
    if row is None:
        row = Countersigning(repository_id=repository_id, referrer=str(digest), noted_at=now)
    elif is_new or row.refused:
        row.is_due, row.refused = True, None
    session.add(row)
    return row.is_due


def _may_attach_release(manifest: oci.Manifest | oci.Index) -> bool:
    """A false annotation can only forgo the countersignature."""
    return (
        isinstance(manifest, oci.Manifest)
        and manifest.subject is not None
        and manifest.effective_artifact_type == media_types.SIGSTORE_BUNDLE
        and manifest.annotations.get(media_types.BUNDLE_PREDICATE) in (None, PREDICATE_TYPE)
    )
