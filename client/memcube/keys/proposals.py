"""Key documents that people on several machines sign: a file that goes from one to the next.

    memcube keys rotate … --output FILE · memcube keys sign FILE · memcube keys publish FILE…

Signing needs no network, so that recovery keys may stay on a machine without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from memcube_protocol.errors import ConflictError, KeyNotAuthorisedError, NotFoundError
from memcube_protocol.limits import PROOF_BYTES
from memcube_signing.authority.chain import Authority, resolve
from memcube_signing.authority.document import KeyDocument
from memcube_signing.authority.proposal import Proposal, parse
from memcube_signing.keys import Signer

from memcube.context import Context
from memcube.keys import documents
from memcube.store.files import read_file, replace_file


def propose(document: KeyDocument, signers: Sequence[Signer], path: Path) -> Proposal:
    """Write `document`, signed by `signers` so far, to the file `path`.

    Raises:
        ConflictError: there is such a file already.
        SigningKeyError: a key cannot be used.
        StorageError: the file cannot be written.
    """
    if path.exists():
        raise ConflictError(f"{path} is there already", hint="name another file, or remove it")
    proposal = Proposal(document).signed(signers)
    replace_file(path, proposal.to_bytes())
    return proposal


def read(path: Path) -> Proposal:
    """The proposal in the file `path`; each of its signatures is verified.

    Raises:
        NotFoundError: there is no such file.
        InvalidStatementError, InvalidJsonError, LimitExceededError: it holds something else.
    """
    content = read_file(path, PROOF_BYTES)
    if content is None:
        raise NotFoundError(
            f"there is no proposal {path}",
            hint="write one with memcube keys rotate NAMESPACE … --output FILE",
        )
    return parse(content)


def sign(path: Path, signers: Sequence[Signer]) -> Proposal:
    """Add signatures to the proposal in the file `path`.

    Raises:
        NotFoundError, InvalidStatementError, InvalidJsonError, LimitExceededError: as `read`.
        SigningKeyError: a key cannot be used.
        StorageError: the file cannot be written.
    """
    proposal = read(path).signed(signers)
    replace_file(path, proposal.to_bytes())
    return proposal


def publish(context: Context, paths: Sequence[Path]) -> Authority:
    """Publish the document that all the proposals in `paths` hold, with their signatures together.

    Raises:
        ConflictError: they propose different documents.
        KeyNotAuthorisedError: too few of those in charge signed.
        …: as `read` and `documents.publish`.
    """
    first, *others = map(read, paths)
    for other in others:
        if other.document != first.document:
            raise ConflictError(
                f"{paths[0]} and another file propose different documents",
                hint="publish copies of one proposal, each signed by somebody",
            )
        first = first.merged(other.signatures)
    signatures = [(one.bundle, one.key) for one in first.signatures]
    return documents.publish(context, first.document, signatures)


def is_complete(context: Context, proposal: Proposal) -> bool:
    """Whether the chain takes the document as it is signed now, as far as this machine knows the chain."""
    authority = proposal.document.authority
    known = context.authorities.bundles(authority)
    try:
        made = resolve(authority, (*known, *(one.bundle.raw for one in proposal.signatures)))
    except KeyNotAuthorisedError:
        return False
    return made is not None and made.current == proposal.document
