"""A scan that compares the KV caches of a cube with their source texts, on a model at hand.

What agrees is no longer opaque; what differs is a finding of high severity; what cannot be compared
stays labelled, with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from memcube_protocol.activation import MANIFEST_FILE, KvManifest
from memcube_protocol.config import ACTIVATION, Memory
from memcube_protocol.digest import Digest
from memcube_protocol.errors import IncompatibleError, NotFoundError
from memcube_protocol.values import frozen
from memcube_signing.predicates.scan import NOT_RECOMPUTED, SEVERITIES, Finding, Recomputed, Scan

from memcube.consuming.holdings import memory_folder
from memcube.consuming.verifying import Verified
from memcube.context import Context

DIFFERS = "cache-differs-from-its-text"
OTHER_TOKENS = "tokens-differ-from-the-text"


@frozen
class Recomputation:
    """A scan with what was compared in it, and why of other caches nothing is known."""

    scan: Scan
    notes: tuple[str, ...] = ()


def recompute_caches(
    context: Context,
    verified: Verified,
    scan: Scan,
    *,
    model: Any,
    tokenizer: Any,
    tolerance: float | None = None,
    texts: Collection[str] = (),
) -> Recomputation:
    """`scan` of `verified`, completed by comparing each KV cache with its text computed anew.

    Caches that were made under the cube's own adapters are computed with these mounted. `texts` are
    those of caches that carry only a digest; `tolerance` is by default that of the element type.

    Raises:
        IntegrityError, InvalidTensorsError, InvalidConfigError: a file is damaged.
        MissingDependencyError: torch is not installed.
    """
    by_digest = {Digest.of(text.encode()): text for text in texts}
    comparer = _Comparer(context, verified, model, tokenizer, tolerance, by_digest)
    return comparer.completed(scan)


@dataclass(slots=True)
class _Comparer:
    """One comparison of all caches of a cube with their texts."""

    context: Context
    verified: Verified
    model: Any
    tokenizer: Any
    tolerance: float | None
    texts: dict[Digest, str]

    def completed(self, scan: Scan) -> Recomputation:
        """`scan` with every comparison that could be made."""
        done: list[Recomputed] = []
        findings: list[Finding] = []
        notes: list[str] = []
        for memory in self._caches():
            try:
                one, found = self._compared(memory)
            except (IncompatibleError, NotFoundError) as error:
                notes.append(f"{memory.id} stays opaque: {error}")
                continue
            done.append(one)
            findings += found
        return Recomputation(_completed(scan, done, findings), tuple(notes))

    def _caches(self) -> list[Memory]:
        config = self.verified.cube.config
        return [memory for memory in config.memories if memory.kind == ACTIVATION]

    def _compared(self, memory: Memory) -> tuple[Recomputed, list[Finding]]:
        from memcube.memories.activation.recompute import recompute, tolerance_of
        from memcube.mounting import Chosen, MemLoader

        folder = memory_folder(self.context, self.verified, memory.id)
        manifest = KvManifest.parse((folder / MANIFEST_FILE).read_bytes())
        loader = MemLoader(self.context, (Chosen(self.verified),), self.model, self.tokenizer)
        with loader.undo:
            if manifest.key.adapters:
                loader.mount_adapters()
            text = self.texts.get(manifest.source.digest) if manifest.source.digest else None
            found = recompute(folder, self.model, self.tokenizer, text=text)
        tolerance = self.tolerance
        if tolerance is None:
            tolerance = tolerance_of(manifest.key)
        path = f"{ACTIVATION}/{memory.id}/{MANIFEST_FILE}"
        one = Recomputed(
            path,
            str(found.base),
            _decimal(found.difference),
            _decimal(tolerance),
            found.environment,
        )
        if one.agrees:
            return one, []
        rule = OTHER_TOKENS if one.difference == "inf" else DIFFERS
        return one, [Finding("opaque-memory", rule, "high", path, f"token {found.token}")]


def _completed(scan: Scan, done: list[Recomputed], findings: list[Finding]) -> Scan:
    """`scan` without the labels of what was compared, and with what that found."""
    compared = {one.path for one in done}
    kept = [
        finding
        for finding in scan.findings
        if not (finding.rule == NOT_RECOMPUTED and finding.path in compared)
    ]
    counts = Counter(scan.counts)
    counts["opaque-memory"] += len(findings) + len(kept) - len(scan.findings)
    told = sorted([*kept, *findings], key=lambda one: (-SEVERITIES.index(one.severity), one))
    return replace(scan, findings=tuple(told), counts=dict(counts), recomputed=tuple(done))


def _decimal(number: float) -> str:
    """`number` as a statement holds it: three digits are enough to compare."""
    return f"{number:.3g}"
