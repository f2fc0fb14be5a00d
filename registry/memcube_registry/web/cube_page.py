"""The page of a cube, made from what the registry holds of it: no script, every text escaped.

It says what a registry can know: that signatures hold, not that their keys are the right ones.
Addresses that a publisher wrote are shown and never linked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import Any, Final

from memcube_protocol import media_types
from memcube_protocol.config import ACTIVATION, CubeConfig, Memory
from memcube_protocol.reference import Reference
from memcube_signing.predicates.countersignature import Countersignature
from memcube_signing.predicates.scan import SEVERITIES, Finding, Scan
from memcube_signing.predicates.status import State

from memcube_registry.catalog.showing import Shown
from memcube_registry.catalog.statements import Said
from memcube_registry.web.markup import Html, document, join, tag

STYLE_URL: Final = "/api/v1/docs/cube.css"
_FINDINGS: Final = 50
_SECONDS: Final = "%Y-%m-%d %H:%M:%S UTC"
Row = tuple[str, Html | str | int | None]


def stylesheet() -> str:
    """The page's style sheet."""
    return files("memcube_registry.web").joinpath("cube.css").read_text(encoding="utf-8")


def page(shown: Shown) -> str:
    """The page of one version of a cube."""
    config, name = shown.config, shown.reference.name
    title = (config.title if config else None) or name
    return document(
        f"{title} · {name}",
        STYLE_URL,
        tag("header", tag("h1", title), _intro(shown)),
        tag("main", *filter(None, _sections(shown))),
    )


def absent_page() -> str:
    """What a stranger sees of a private cube, and everybody of an absent one."""
    words = "There is no such cube here, or it is private."
    return document(
        "Not found",
        STYLE_URL,
        tag("header", tag("h1", "Not found"), tag("p", words)),
        tag("main", tag("p", "Check the name, or ask with a token of somebody who may see it.")),
    )


def _intro(shown: Shown) -> Html:
    config = shown.config
    version = f" {config.version}" if config else ""
    private = " · private" if shown.is_private else ""
    return join(
        tag("p", tag("code", shown.reference.name), f"{version}{private}"),
        tag("p", config.summary) if config and config.summary else None,
        _withdrawn(shown),
    )


def _withdrawn(shown: Shown) -> Html | None:
    said = shown.statements.status
    if said is None or said.state is State.ACTIVE:
        return None
    since = f"{str(said.state).capitalize()} by its publisher on {said.stated_at:%Y-%m-%d}"
    told = [f"{since}: {said.reason}", said.message, said.replacement and f"use {said.replacement}"]
    return tag("p", ". ".join(part for part in told if part), class_="warning", role="note")


def _sections(shown: Shown) -> Iterator[Html | None]:
    yield _pull(shown)
    if shown.config:
        yield _holdings(shown, shown.config)
        yield _terms(shown.config)
    else:
        kind = shown.artifact_type or "an index"
        yield _section("No cube", tag("p", f"This is {kind}. memcube cannot mount it."))
    yield _signatures(shown)
    yield _scanned(shown)
    yield _statements(shown)
    yield _versions(shown)
    if shown.card is not None:
        yield _section("Card", tag("pre", shown.card))


def _section(title: str, *content: Html | None) -> Html:
    return tag("section", tag("h2", title), *content)


def _pull(shown: Shown) -> Html:
    reference = shown.reference
    exact = Reference(reference.host, reference.name).with_digest(shown.digest)
    return _section(
        "Get it",
        tag("pre", tag("code", f"memcube pull {reference}\nmemcube pull {exact}")),
        tag("p", "The first checks that the publisher is the one you know; both check every byte."),
    )


def _holdings(shown: Shown, config: CubeConfig) -> Html:
    assert shown.cube
    sizes: Counter[str] = Counter()
    for file in shown.cube.files:
        sizes[file.memory] += file.size
    rows = [
        (
            memory.id,
            memory.kind,
            _contents(memory),
            _bytes(sizes[memory.id]),
            _readable(shown, memory),
        )
        for memory in config.memories
    ]
    attachments = sum(file.media_type == media_types.ATTACHMENT for file in shown.cube.files)
    facts: list[Row] = [
        ("Digest", tag("code", str(shown.digest))),
        ("Size", f"{_bytes(shown.cube.size)} in {len(shown.cube.files)} files"),
        ("Attachments", attachments or None),
        ("Packed", config.created_at.strftime(_SECONDS)),
        ("Pushed", shown.pushed_at.strftime(_SECONDS)),
        ("Builds for other models", ", ".join(shown.builds) or None),
        ("Languages", ", ".join(config.descriptive.languages) or None),
        ("Sources", "; ".join(f"{one.name} {one.url or ''}" for one in config.descriptive.sources)),
        ("Made from", "; ".join(f"{p.origin} ({p.relation})" for p in config.lineage.parents)),
    ]
    return _section(
        "What it holds",
        _table(("Memory", "Kind", "Content", "Size", "Can it be read?"), rows),
        _facts(facts),
    )


def _contents(memory: Memory) -> str:
    if memory.records is not None:
        return f"{memory.title or ''} {memory.records} records".strip()
    shape = ", ".join(f"{name} {value}" for name, value in sorted(memory.shape.items()))
    return f"{memory.title or ''} {shape}".strip()


def _readable(shown: Shown, memory: Memory) -> str:
    """Whether people can know what a memory says: a KV cache is numbers, a text beside it a promise."""
    if memory.kind != ACTIVATION:
        return "yes" if memory.records is not None else "no: weights"
    scan = shown.statements.scan
    if scan is None:
        return "opaque: not scanned"
    below = f"activation/{memory.id}/"
    for one in scan.recomputed:
        if one.path.startswith(below):
            return "yes: recomputed from its text" if one.agrees else "no: differs from its text"
    rules = {finding.rule for finding in scan.findings if finding.path.startswith(below)}
    if "cache-without-source-text" in rules:
        return "opaque: without its source text"
    return "opaque: its text was not compared with it"


def _terms(config: CubeConfig) -> Html:
    governance = config.governance
    expires = governance.expires_at
    facts: list[Row] = [
        ("Licence", governance.licence),
        ("Its text", governance.licence_url),
        ("Redistribution", governance.redistribution),
        ("Allowed uses", ", ".join(governance.allowed_uses) or None),
        ("Processing", governance.processing),
        ("Sensitivity", governance.sensitivity),
        ("Personal data", governance.personal_data),
        ("Expires", expires.strftime(_SECONDS) if expires else None),
    ]
    return _section("Licence and terms", _facts(facts))


def _signatures(shown: Shown) -> Html:
    releases = shown.statements.releases
    if not releases:
        words = "No release of it is signed: memcube refuses it unless it is told otherwise."
        return _section("Publisher", tag("p", words, class_="warning"))
    facts: list[Row] = []
    for one in releases:
        key, said = one.key, one.value
        assert key
        facts += [
            ("Key", tag("code", key.id)),
            ("States", f"release {said.seq} of {said.origin}, version {said.version}"),
            ("Signature", f"holds, {key.algorithm}, checked by this registry"),
            ("Log", _logged(shown, one)),
            ("The namespace says", _listed(shown, key.id, said.origin)),
        ]
    facts += [("Countersignature", words) for words in _countersigned(shown)]
    words = "Whether this is the right key, your own machine decides: memcube verify"
    return _section("Publisher", _facts(facts), tag("p", f"{words} {shown.reference}"))


def _countersigned(shown: Shown) -> Iterator[str]:
    for one in shown.statements.said:
        if isinstance(one.value, Countersignature) and one.key == shown.registry_key:
            outcome = "verified" if one.value.passed else "refused"
            at = one.value.verified_at.strftime(_SECONDS)
            yield f"{outcome} by this registry on {at}: {', '.join(one.value.levels)}"


def _logged(shown: Shown, said: Said) -> str:
    place = shown.places.get(said.signed_sha256)
    if place is None:
        return "not in this registry's log"
    return f"entry {place.number}, since {place.logged_at.strftime(_SECONDS)}"


def _listed(shown: Shown, key_id: str, origin: str) -> str | None:
    if shown.authority is None:
        return "nothing about its keys"
    document = shown.authority.current
    for revoked in document.revoked:
        if revoked.key_id == key_id:
            since = revoked.compromised_since.strftime(_SECONDS)
            return f"revoked: not to be trusted since {since}"
    listed = any(key_id in quorum.ids for quorum in document.quorums_for(origin))
    return "one of its keys" if listed else "not one of its keys now"


def _scanned(shown: Shown) -> Html:
    scan = shown.statements.scan
    if scan is None:
        words = "Not scanned, as far as its publisher says."
        return _section("Scan", tag("p", words, class_="warning"))
    by = f"{scan.scanner} {scan.scanner_version}, rules {scan.rules_version}"
    facts: list[Row] = [
        ("By", f"{by}, on {scan.scanned_at.strftime(_SECONDS)}, stated by the publisher"),
        ("Found", ", ".join(f"{check} {scan.counts[check]}" for check in scan.checks)),
        ("Looked at", _coverage(scan)),
        *(("Recomputed", _recomputed(one)) for one in scan.recomputed),
    ]
    rows = [
        (finding.severity, finding.check, finding.rule, finding.path, finding.place)
        for finding in _worst(scan.findings)
    ]
    more = len(scan.findings) - len(rows)
    return _section(
        "Scan",
        _facts(facts),
        _table(("Severity", "Check", "Rule", "File", "Place"), rows) if rows else None,
        tag("p", f"{more} more findings: memcube provenance, memcube scan") if more else None,
    )


def _worst(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda one: (-SEVERITIES.index(one.severity), one))[:_FINDINGS]


def _coverage(scan: Scan) -> str | None:
    covered = scan.coverage
    if covered is None:
        return None
    read = f"{_bytes(covered.read_bytes)} of {_bytes(covered.size_bytes)}"
    return (
        f"{read}; of {covered.files} files {covered.sampled_files} by a sample, "
        f"{covered.unread_files} (tensors, token ids) not"
    )


def _recomputed(one: Any) -> str:
    verdict = "agrees with its text" if one.agrees else "DIFFERS from its text"
    return f"{one.path} {verdict} (difference {one.difference}, tolerance {one.tolerance})"


def _statements(shown: Shown) -> Html | None:
    rows = [
        (
            one.name,
            one.key.id if one.key else None,
            _counts(shown, one),
            _logged(shown, one) if one.key else None,
        )
        for one in shown.statements.said
    ]
    built: list[Row] = [
        (
            "Built by",
            f"{one.builder} from {', '.join(d.uri for d in one.dependencies) or 'nothing'}",
        )
        for one in shown.statements.provenance
    ]
    if not rows:
        return None
    return _section(
        "Statements", _facts(built), _table(("Statement", "Key", "Counts", "Log"), rows)
    )


def _counts(shown: Shown, said: Said) -> str:
    if said.key is None:
        return f"no: {said.why_not}"
    if said.key == shown.registry_key and isinstance(said.value, Countersignature):
        return "yes: this registry's"
    return (
        "yes: the publisher's" if said.is_publishers else "no: another key's, its signature holds"
    )


def _versions(shown: Shown) -> Html:
    rows = [
        (tag("a", name, href=f"/{shown.reference.name}:{name}"), tag("code", digest))
        for name, digest in shown.tags
    ]
    return _section("Versions", _table(("Tag", "Digest"), rows))


def _facts(facts: Iterable[Row]) -> Html:
    rows = [tag("tr", tag("th", name, scope="row"), tag("td", v)) for name, v in facts if v]
    return tag("table", *rows)


def _table(heads: Iterable[str], rows: Iterable[Iterable[Html | str | int | None]]) -> Html:
    head = tag("tr", *(tag("th", name, scope="col") for name in heads))
    body = (tag("tr", *(tag("td", cell) for cell in row)) for row in rows)
    return tag("table", tag("thead", head), tag("tbody", *body))


def _bytes(count: int) -> str:
    """`count` as people read it, in decimal units."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
