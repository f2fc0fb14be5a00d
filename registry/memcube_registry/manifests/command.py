"""`memcube-registry gc`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from memcube_registry.command_options import database_of, places, table_lines

if TYPE_CHECKING:
    from memcube_registry.settings import Settings


@click.command("gc")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@places
def collect(settings: Settings, as_json: bool) -> None:
    """Remove once what nothing refers to; the registry may keep serving.

    What nothing refers to is condemned first, and removed by a later run, so that a push under way keeps it.

    Example: memcube-registry gc --data ./registry
    """
    from dataclasses import asdict
    from datetime import timedelta

    from memcube_registry.blobs import removing
    from memcube_registry.database import utc_now
    from memcube_registry.field_names import fields
    from memcube_registry.jobs.worker import Worker
    from memcube_registry.manifests.collecting import collect_garbage
    from memcube_registry.storage.opening import open_store

    with database_of(settings) as database:
        blobs = open_store(settings, database)
        done = collect_garbage(
            database,
            blobs,
            utc_now(),
            timedelta(seconds=settings.gc_grace_s),
            upload_life=timedelta(seconds=settings.upload_expiry_s),
        )
        Worker(database, {removing.KIND: removing.remover(database, blobs)}).work_off()
    counts = asdict(done)
    if as_json:
        click.echo(json.dumps(fields(counts)))
        return
    click.echo("\n".join(table_lines(counts)))
