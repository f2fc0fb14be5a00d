"""What waits for the registry's countersignature: a job that is left by what made a release visible."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from memcube_protocol import media_types, oci
from memcube_protocol.digest import Digest
from memcube_signing.release import PREDICATE_TYPE
from sqlmodel import Session

from memcube_registry.countersigning.models import Countersigning
from memcube_registry.jobs.service import enqueue

KIND: Final = "countersign"
Key = tuple[int, str]
"""Of a repository, and the digest of the manifest that attaches the release."""


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
    key = (repository_id, str(digest))
    row = session.get(Countersigning, key)
    if row is None:
        row = Countersigning(repository_id=repository_id, referrer=str(digest), noted_at=now)
    elif row.made and not row.refused and not is_new:
        return False
    row.refused = None
    session.add(row)
    enqueue(session, KIND, subject_of(*key), now)
    return True


def subject_of(repository_id: int, referrer: Digest | str) -> str:
    """The job's subject."""
    return f"{repository_id} {referrer}"


def key_in(subject: str) -> Key:
    """What the subject of a job says."""
    repository_id, referrer = subject.split(" ")
    return int(repository_id), referrer


def _may_attach_release(manifest: oci.Manifest | oci.Index) -> bool:
    """A false annotation can only forgo the countersignature."""
    return (
        isinstance(manifest, oci.Manifest)
        and manifest.subject is not None
        and manifest.effective_artifact_type == media_types.SIGSTORE_BUNDLE
        and manifest.annotations.get(media_types.BUNDLE_PREDICATE) in (None, PREDICATE_TYPE)
    )
