"""`memcube-registry backup` and `memcube-registry restore`."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from memcube_registry.checking.command import checkpoint_in
from memcube_registry.command_options import FOLDER, existing_database, places, reading, sample_of

if TYPE_CHECKING:
    from memcube_signing.transparency.checkpoint import SignedCheckpoint

    from memcube_registry.backups.snapshot import Snapshot
    from memcube_registry.checking.content import Sample
    from memcube_registry.checking.findings import Report
    from memcube_registry.settings import Settings


@click.command()
@click.argument("folder", type=FOLDER)
@click.option(
    "--leave-blobs", is_flag=True, help="Note where the blobs lie; their bytes stay in the store."
)
@click.option("--without-keys", is_flag=True, help="Leave the registry's keys out.")
@click.option(
    "--keep", type=click.IntRange(1), help="Remove all but so many of the newest snapshots."
)
@reading
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@places
def backup(
    settings: Settings,
    folder: Path,
    leave_blobs: bool,
    without_keys: bool,
    keep: int | None,
    everything: bool,
    sample: int,
    threads: int,
    as_json: bool,
) -> None:
    """Add a snapshot of the registry to FOLDER; the registry may keep serving.

    Blobs that FOLDER holds are not copied again. The snapshot is proven before it counts: a registry
    is built from it and checked as `memcube-registry fsck` does.

    Example: memcube-registry backup /mnt/backup --keep 14
    """
    from memcube_registry.backups.making import Plan, make_backup, prune
    from memcube_registry.database import utc_now
    from memcube_registry.storage.opening import open_store

    plan = Plan(
        blobs=not leave_blobs,
        keys=not without_keys,
        threads=threads,
        sample=sample_of(everything, sample),
    )
    with closing(existing_database(settings)) as database:
        store = open_store(settings, database)
        made = make_backup(settings, database, store, folder, plan, utc_now())
    removed = prune(folder, keep) if keep else (0, 0)
    outcome = _told(made.snapshot, made.report) | {
        "blobsCopied": made.blobs_copied,
        "bytesCopied": made.bytes_copied,
        "snapshotsRemoved": removed[0],
        "blobsRemoved": removed[1],
    }
    if as_json:
        click.echo(json.dumps(outcome))
        return
    click.echo(
        f"snapshot {outcome['snapshot']} of {settings.url}: {made.report.checked.get('blobs', 0)} "
        f"blobs, {made.blobs_copied} of them new ({made.bytes_copied} bytes), "
        f"a log of {outcome['logSize']} entries; proven"
    )


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--snapshot", "name", help="Which one; without: the newest.")
@click.option("--dry-run", is_flag=True, help="Prove the snapshot, and restore nothing.")
@click.option(
    "--checkpoint", type=FOLDER, help="A checkpoint that the log has shown: it must hold it."
)
@click.option("--new-log", is_flag=True, help="Leave the log and its key out: another log begins.")
@reading
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@places
def restore(
    settings: Settings,
    folder: Path,
    name: str | None,
    dry_run: bool,
    checkpoint: Path | None,
    new_log: bool,
    everything: bool,
    sample: int,
    threads: int,
    as_json: bool,
) -> None:
    """Restore a snapshot in FOLDER into an empty registry, on any database and blob store.

    The snapshot is proven first. To continue a run that was killed, run the same command again; until
    it has ended, the registry does not start.

    Example: memcube-registry restore /mnt/backup --data ./new --database-url postgresql://localhost/memcube
    """
    from memcube_registry.backups.restoring import Wish, restore
    from memcube_registry.backups.snapshot import opened
    from memcube_registry.database import Database, utc_now
    from memcube_registry.storage.opening import open_store

    snapshot, seen = opened(folder, name), checkpoint_in(checkpoint)
    draw = sample_of(everything, sample)
    if dry_run:
        report = _proven(settings, folder, snapshot, draw, seen)
    else:
        wish = Wish(sample=draw, threads=threads, seen=seen, new_log=new_log)
        with closing(Database.patient(settings)) as database:
            store = open_store(settings, database)
            report = restore(settings, database, store, folder, snapshot, wish, utc_now())
    outcome = _told(snapshot, report)
    if as_json:
        click.echo(json.dumps(outcome))
    else:
        what = "is whole" if dry_run else f"is restored into {settings.data_dir}"
        log = f"a log of {outcome['logSize']} entries"
        if new_log and not dry_run:
            log += ", left out: another begins at the next start"
        click.echo(f"snapshot {snapshot.folder.name} {what}: {log}")
    if not dry_run and seen is None and not new_log:
        click.echo(_WARNING.format(size=outcome["logSize"], made=outcome["madeAt"]), err=True)


def _proven(
    settings: Settings,
    folder: Path,
    snapshot: Snapshot,
    sample: Sample,
    seen: SignedCheckpoint | None,
) -> Report:
    """The check of what `snapshot` would make; nothing is written but a temporary file."""
    import tempfile

    from memcube_registry.backups.making import read_only
    from memcube_registry.backups.pool import Pool
    from memcube_registry.backups.proving import prove
    from memcube_registry.backups.restoring import require_version
    from memcube_registry.storage.opening import open_store

    require_version(snapshot)
    with ExitStack() as stack:
        stack.enter_context(read_only(folder))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memcube-")))
        if snapshot.description.blobs_copied:
            return prove(scratch, snapshot, Pool(folder / "blobs"), sample, seen)
        database = stack.enter_context(closing(existing_database(settings)))
        return prove(scratch, snapshot, open_store(settings, database), sample, seen)


_WARNING: Final = """\
warning: the log ends at {size} entries, as of {made}. If the registry has acknowledged more since, it has \
forgotten them, and clients who saw them will say that the log shrank: see "A log that went back" in \
docs/guide/check-and-back-up.md before it serves. With --checkpoint FILE this is checked.\
"""


def _told(snapshot: Snapshot, report: Report) -> dict[str, Any]:
    said = snapshot.description
    return {
        "snapshot": snapshot.folder.name,
        "madeAt": said.made_at.isoformat(),
        "registry": said.registry,
        "rows": dict(said.rows),
        "logSize": said.log_size,
        "check": report.to_json(),
    }
