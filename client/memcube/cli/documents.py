"""Key documents as commands take and tell them: whose, signed by which keys, and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memcube.cli.answer import Answer

if TYPE_CHECKING:
    from memcube_protocol.reference import Reference
    from memcube_signing.authority.chain import Authority
    from memcube_signing.authority.document import KeyDocument, Quorum
    from memcube_signing.authority.proposal import Proposal
    from memcube_signing.keys import Signer

    from memcube.context import Context


def answer_of(context: Context, found: Authority, *before: KeyDocument) -> Answer:
    """Who is in charge, keys of this machine by name; `before` are earlier documents to be shown as well."""
    documents = [*before, found.current]
    value = {"authority": found.name, "documents": [value_of(one) for one in documents]}
    names = names_here(context)
    lines = [line for one in documents for line in lines_of(one, names)]
    return Answer(value, "\n".join(lines), str(found.current.digest))


def value_of(document: KeyDocument) -> dict[str, Any]:
    """A key document as programs read it."""
    return {"digest": str(document.digest), **document.to_statement().predicate}


def names_here(context: Context) -> dict[str, str]:
    """What the keys of this machine are called, by their ids."""
    return {entry.public_key.id: entry.name for entry in context.keys.entries()}


def lines_of(document: KeyDocument, names: Mapping[str, str]) -> list[str]:
    """A key document as people read it; `names` are those of keys that lie here."""
    lines = [f"{document.authority}, key document {document.seq}, {document.created_at}"]
    lines += _quorum_lines("in charge", document.quorum, names)
    if document.recovery:
        lines += _quorum_lines("recovery", document.recovery, names)
    for role in document.delegations:
        what = f"{role.role} ({', '.join(role.patterns)})"
        lines += _quorum_lines(what, role.quorum, names)
    lines += [f"  revoked: {one.key_id} since {one.compromised_since}" for one in document.revoked]
    return lines


def _quorum_lines(what: str, quorum: Quorum, names: Mapping[str, str]) -> list[str]:
    head = f"  {what}: {quorum.threshold} of {len(quorum.keys)}"
    here = {key_id: f"  {name}, on this machine" for key_id, name in names.items()}
    return [head, *(f"    {key.id}{here.get(key.id, '')}" for key in quorum.keys)]


def place_of(context: Context, namespace: str) -> Reference:
    """`namespace` at its registry: `alice`, or `registry.example/alice`."""
    from memcube_protocol.reference import Reference
    from memcube_signing.authority.carrier import NAME

    from memcube.keys.documents import namespace_of

    return namespace_of(context.at_registry(Reference.parse(f"{namespace}/{NAME}")))


def signers_named(context: Context, names: Sequence[str]) -> list[Signer]:
    """The keys of this machine among `names`, each once; PEM files hold no private key."""
    unique = dict.fromkeys(name for name in names if not Path(name).is_file())
    return [context.keys.signer(name).key for name in unique]


def answer_about(context: Context, proposal: Proposal, file: Path) -> Answer:
    """What `proposal` would change, who has signed it, and whether that is enough as far as known here."""
    from memcube.keys.proposals import is_complete

    document, complete = proposal.document, is_complete(context, proposal)
    before = context.authorities.load(document.authority)
    names = names_here(context)
    lines = ["now, as far as known here:", *lines_of(before.current, names)] if before else []
    lines += ["proposed:", *lines_of(document, names)]
    lines += [f"  signed by: {key_id}" for key_id in sorted(proposal.key_ids)]
    if complete:
        lines.append(f"Enough have signed: memcube keys publish {file}")
    else:
        lines.append(f"Not enough have signed yet: memcube keys sign {file}")
    value = {
        "file": str(file),
        "document": value_of(document),
        "signedBy": sorted(proposal.key_ids),
        "complete": complete,
    }
    return Answer(value, "\n".join(lines), str(document.digest))
