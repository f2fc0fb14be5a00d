"""`memcube-registry fsck`."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memcube_registry.command_options import (
    FOLDER,
    existing_database,
    places,
    reading,
    sample_of,
    table_lines,
)

if TYPE_CHECKING:
    from memcube_signing.transparency.checkpoint import SignedCheckpoint

    from memcube_registry.checking.findings import Report
    from memcube_registry.settings import Settings


@click.command()
@reading
@click.option(
    "--seed", type=int, help="Draw the same blobs again; without: another draw each time."
)
@click.option(
    "--checkpoint", type=FOLDER, help="A checkpoint that the log has shown: it must still hold it."
)
@click.option(
    "--repair",
    is_flag=True,
    help="Mark blobs whose bytes are lost: pushing them again then heals them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@places
def fsck(
    settings: Settings,
    everything: bool,
    sample: int,
    seed: int | None,
    threads: int,
    checkpoint: Path | None,
    repair: bool,
    as_json: bool,
) -> None:
    """Check that database and blob store match; the registry may keep serving.

    Nothing is changed, unless by --repair. Ends with exit code 6 where something is damaged. Leftovers, which
    `memcube-registry gc` removes when they are old enough, are no damage.

    Example: memcube-registry fsck --all --data ./registry
    """
    from memcube_protocol.errors import IntegrityError

    from memcube_registry.checking.history import log_key
    from memcube_registry.checking.service import Thoroughness, check
    from memcube_registry.database import utc_now
    from memcube_registry.storage.opening import open_store

    if everything and seed is not None:
        raise click.UsageError("--all reads every blob: --seed has nothing to draw")
    draw = sample_of(everything, sample, seed)
    with closing(existing_database(settings)) as database:
        key, seen = log_key(settings.log_key_file, database), checkpoint_in(checkpoint)
        how = Thoroughness(draw, threads, key, seen, marks=repair)
        report = check(database, open_store(settings, database), how, utc_now())
    click.echo(json.dumps(report.to_json()) if as_json else shown(report))
    if report.damage:
        raise IntegrityError(
            f"the registry is damaged (findings: {report.damage})",
            hint="see docs/guide/check-and-back-up.md for each rule; restore what is lost from a backup",
        )


def checkpoint_in(path: Path | None) -> SignedCheckpoint | None:
    """The checkpoint that a file holds."""
    from memcube_signing.transparency import checkpoint

    return checkpoint.parse(path.read_text(encoding="utf-8")) if path else None


def shown(report: Report) -> str:
    """The report as a table for people."""
    drawn = {} if report.seed is None else {"seed of the draw": report.seed}
    lines = ["checked", *table_lines({**report.checked, **drawn})]
    lines += [f"{one.rule.weight}: {one.rule}: {one.what}: {one.detail}" for one in report.findings]
    if unlisted := sum(report.counts.values()) - len(report.findings):
        lines.append(f"… and more (findings: {unlisted})")
    remedy = " (`gc` removes them)" if report.leftovers else ""
    return "\n".join([*lines, f"damaged: {report.damage}, leftovers: {report.leftovers}{remedy}"])
