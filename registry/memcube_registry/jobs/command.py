"""`memcube-registry jobs …`: what waits, runs and failed, and what an operator can do about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from memcube_registry.command_options import WholeHelp, database_of, places

if TYPE_CHECKING:
    from sqlmodel import Session

    from memcube_registry.jobs.models import Job
    from memcube_registry.settings import Settings

_STATES: Final = ("queued", "running", "dead")
_SHOWN: Final = (
    "id",
    "kind",
    "subject",
    "state",
    "attempts",
    "due_at",
    "every_s",
    "lease",
    "leased_until",
    "created_at",
    "payload",
    "error",
)
_AS_JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=WholeHelp)
def jobs() -> None:
    """List, retry and cancel background jobs."""


@jobs.command("list")
@click.option("--state", type=click.Choice(_STATES), help="Only jobs of that state.")
@click.option("--kind", help="Only jobs of that kind.")
@click.option("--limit", default=100, show_default=True, help="How many at most.")
@_AS_JSON
@places
def list_jobs(
    settings: Settings, state: str | None, kind: str | None, limit: int, as_json: bool
) -> None:
    """List jobs, those that are due first in front.

    Example: memcube-registry jobs list --state dead
    """
    from memcube_registry.jobs.models import State
    from memcube_registry.jobs.service import jobs_of

    with database_of(settings) as database, database.read() as session:
        rows = jobs_of(session, state=State(state) if state else None, kind=kind, limit=limit)
    if as_json:
        click.echo(json.dumps([_as_json(row) for row in rows]))
        return
    for row in rows:
        due = f"due {row.due_at:%Y-%m-%d %H:%M:%S} UTC"
        words = [str(row.id), row.kind, row.subject, row.state.value, f"{row.attempts} tries", due]
        click.echo("\t".join(words + ([row.error] if row.error else [])))


@jobs.command("show")
@click.argument("job_id", type=int)
@_AS_JSON
@places
def show_job(settings: Settings, job_id: int, as_json: bool) -> None:
    """Show everything about a job, with its last error.

    Example: memcube-registry jobs show 7
    """
    from memcube_registry.jobs.service import job_of

    with database_of(settings) as database, database.read() as session:
        found = _as_json(job_of(session, job_id))
    if as_json:
        click.echo(json.dumps(found))
        return
    for name, value in found.items():
        click.echo(f"{name}: {'' if value is None else value}")


@jobs.command("retry")
@click.argument("job_ids", metavar="[JOB_ID]...", type=int, nargs=-1)
@click.option("--dead", "all_dead", is_flag=True, help="Every dead job.")
@places
def retry_jobs(settings: Settings, job_ids: tuple[int, ...], all_dead: bool) -> None:
    """Have jobs tried at once, by a registry that is running or starts next.

    Example: memcube-registry jobs retry --dead
    """
    from memcube_registry.jobs.models import State
    from memcube_registry.jobs.service import ids_of, retry

    if bool(job_ids) == all_dead:
        raise click.UsageError("name jobs, or --dead")
    with database_of(settings) as database:
        chosen = list(job_ids)
        if all_dead:
            with database.read() as session:
                chosen = ids_of(session, State.DEAD)
        for job_id in chosen:
            _change(database.run, job_id, lambda s, i: retry(s, i, database.now(s)))
    click.echo(f"retrying {len(chosen)} jobs")


@jobs.command("cancel")
@click.argument("job_ids", metavar="JOB_ID...", type=int, nargs=-1, required=True)
@places
def cancel_jobs(settings: Settings, job_ids: tuple[int, ...]) -> None:
    """Give jobs up for good.

    Example: memcube-registry jobs cancel 7
    """
    from memcube_registry.jobs.service import cancel

    with database_of(settings) as database:
        for job_id in job_ids:
            _change(database.run, job_id, cancel)
    click.echo(f"cancelled {len(job_ids)} jobs")


def _change(run: Callable[..., Any], job_id: int, act: Callable[[Session, int], None]) -> None:
    run(lambda session: act(session, job_id), locks=True)


def _as_json(row: Job) -> dict[str, Any]:
    from memcube_registry.field_names import fields

    values = {name: getattr(row, name) for name in _SHOWN}
    return {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in fields(values).items()
    }
