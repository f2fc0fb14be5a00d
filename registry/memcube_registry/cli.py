"""The commands of the registry: `memcube-registry …`, and `serve` for `memcube serve` as well.

Everything heavy is imported by the command that needs it: `memcube --help` loads this file.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from memcube_protocol.errors import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    InvalidSettingError,
    MemcubeError,
    StorageError,
    WrongUsageError,
    outcome_of,
)

from memcube_registry.backups.command import backup, restore
from memcube_registry.checking.command import fsck
from memcube_registry.command_options import FOLDER, WholeHelp, database_of, places, settings_of
from memcube_registry.jobs.command import jobs
from memcube_registry.manifests.command import collect
from memcube_registry.storage.command import make_bucket

if TYPE_CHECKING:
    from memcube_registry.settings import Settings


@click.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 picks a free one.")
@click.option("--workers", type=int, help="Processes that answer requests.")
@click.option("--external-url", help="URL by which clients reach the registry.")
@click.option("--config", type=FOLDER, help="TOML file with settings.")
@click.option("--data", "data_dir", type=FOLDER, help="Folder of the database and the blobs.")
@click.option("--database-url", help="sqlite:///FILE or postgresql://…")
def serve(config: Path | None, **given: Any) -> None:
    """Run a registry: with SQLite and local files if nothing else is set.

    Prints its URL and the location of its data when it is ready.

    Example: memcube serve --port 7070 --data ./registry
    """
    from memcube_registry.server import serve as run_server

    run_server(settings_of(config, given))


@click.group(cls=WholeHelp, context_settings={"help_option_names": ["-h", "--help"]})
def group() -> None:
    """Run and administer a memcube registry."""


group.add_command(serve)
for command in (jobs, fsck, backup, restore, make_bucket, collect):
    group.add_command(command)


@group.command()
@click.option("--to", "revision", default="head", show_default=True, help="Revision to go to.")
@places
def migrate(settings: Settings, revision: str) -> None:
    """Upgrade the database's tables to this version.

    Example: memcube-registry migrate --database-url postgresql://localhost/memcube
    """
    from alembic.util import CommandError

    from memcube_registry.database import Database

    with closing(Database.of(settings)) as database:
        try:
            database.migrate(revision)
        except CommandError as error:
            raise click.BadParameter(str(error), param_hint="--to") from None
    click.echo(f"the database is at {revision}")


@group.command("settings")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--config", type=FOLDER, help="TOML file with settings.")
@click.option("--data", "data_dir", type=FOLDER, help="Folder of the database and the blobs.")
@click.option("--database-url", help="sqlite:///FILE or postgresql://…")
def show_settings(as_json: bool, config: Path | None, **given: Any) -> None:
    """Explain every setting, with the value it has now.

    Example: memcube-registry settings --config registry.toml
    """
    from memcube_registry.settings import documented, masked

    try:
        values = masked(settings_of(config, given))
    except InvalidSettingError:
        # Whoever asks after a refusal wants to read what would be right, and then what is wrong.
        if not as_json:
            _explain({name: default for name, _, default, _ in documented()})
        raise
    if as_json:
        click.echo(json.dumps(values, indent=2))
    else:
        _explain(values)


def _explain(values: Mapping[str, str]) -> None:
    from memcube_registry.settings import documented

    for name, variable, _default, doc in documented():
        click.echo(f"{name} = {values[name]}\n    {doc}\n    {variable}\n")


@group.group(cls=WholeHelp)
def account() -> None:
    """Create and list accounts."""


@account.command("create")
@click.argument("name")
@click.option("--organisation", is_flag=True, help="An organisation instead of a person.")
@click.option("--owner", help="With --organisation: the person who owns it.")
@click.option("--operator", is_flag=True, help="May administer the registry.")
@click.option("--quota", help="Storage, such as 100GiB; 0: unlimited.")
@click.option("--quiet", is_flag=True, help="Print only the name.")
@places
def create_account(
    settings: Settings,
    name: str,
    organisation: bool,
    owner: str | None,
    operator: bool,
    quota: str | None,
    quiet: bool,
) -> None:
    """Create an account, and with it the namespace NAME.

    Example: memcube-registry account create alice --data ./registry
    """
    from memcube_registry.accounts import service

    size = settings.default_quota_bytes if quota is None else _quota_bytes(quota)
    if organisation != (owner is not None):
        raise click.UsageError("--organisation and --owner belong together")
    with database_of(settings, may_be_new=True) as database, database.write() as session:
        if owner is not None:
            person = service.account_named(session, owner)
            service.create_organisation(session, person, name, quota_bytes=size or None)
        else:
            service.create_account(session, name, quota_bytes=size or None, is_operator=operator)
    # Without this setting nobody but the running registry knows where it listens.
    place = f": cubes go to {settings.service}/{name}/…" if settings.external_url else ""
    click.echo(name if quiet else f"created {name}{place}")


def _quota_bytes(text: str) -> int:
    from memcube_registry.settings import parse_size

    try:
        return parse_size("quota", text)
    except InvalidSettingError:
        raise click.BadParameter(
            f"{text[:100]!r} is not a size such as 100GiB", param_hint="--quota"
        ) from None


@account.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@places
def list_accounts(settings: Settings, as_json: bool) -> None:
    """List accounts with the storage they use.

    Example: memcube-registry account list --json
    """
    from sqlmodel import select

    from memcube_registry.accounts.models import Account
    from memcube_registry.settings import size_text

    with database_of(settings) as database, database.read() as session:
        rows = session.exec(select(Account).order_by(Account.name)).all()
    entries = [
        {
            "name": row.name,
            "kind": row.kind.value,
            "usedBytes": row.used_bytes,
            "quotaBytes": row.quota_bytes,
        }
        for row in rows
    ]
    if as_json:
        click.echo(json.dumps(entries))
        return
    for row in rows:
        quota = "unlimited" if row.quota_bytes is None else size_text(row.quota_bytes)
        state = "\tdisabled" if row.disabled_at else ""
        click.echo(f"{row.name}\t{row.kind.value}\t{size_text(row.used_bytes)} of {quota}{state}")


@account.command("disable")
@click.argument("name")
@click.option("--enable", is_flag=True, help="Let a disabled account in again.")
@places
def disable_account(settings: Settings, name: str, enable: bool) -> None:
    """Refuse every token of an account; its cubes stay.

    Example: memcube-registry account disable mallory
    """
    from memcube_registry.accounts.service import account_named
    from memcube_registry.database import utc_now

    with database_of(settings) as database, database.write() as session:
        account_named(session, name).disabled_at = None if enable else utc_now()
    click.echo(f"{'enabled' if enable else 'disabled'} {name}")


@group.group(cls=WholeHelp)
def token() -> None:
    """Create, list and revoke API tokens."""


@token.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=("pull", "push", "delete"),
    show_default=True,
    help="pull, push, delete or admin, or as in push:NAMESPACE/NAME; repeatable.",
)
@click.option("--label", default="command line", show_default=True, help="What the token is for.")
@click.option(
    "--days",
    type=click.FloatRange(0, 36_500, min_open=True),
    help="Days until it expires; without: never.",
)
@click.option("--quiet", is_flag=True, help="Print only the token.")
@places
def create_token(
    settings: Settings,
    name: str,
    scopes: tuple[str, ...],
    label: str,
    days: float | None,
    quiet: bool,
) -> None:
    """Create an API token of the account NAME and print it, this once.

    Example: memcube-registry token create alice --scope pull --scope push --days 90
    """
    from datetime import timedelta

    from memcube_registry.accounts.scopes import parse_scopes
    from memcube_registry.accounts.service import account_named
    from memcube_registry.accounts.tokens import create_token as create
    from memcube_registry.database import utc_now

    if days is not None and math.isnan(days):
        raise click.BadParameter("nan is no number of days", param_hint="--days")
    with database_of(settings) as database, database.write() as session:
        secret, row = create(
            session,
            account_named(session, name),
            label,
            parse_scopes(" ".join(scopes)),
            now=utc_now(),
            lifetime=None if days is None else timedelta(days=days),
        )
    if quiet:
        click.echo(secret)
        return
    until = f"until {row.expires_at:%Y-%m-%d %H:%M} UTC" if row.expires_at else "without expiry"
    click.echo(f"token {row.id} of {name} for {row.scopes}, {until}; it is not shown again:")
    click.echo(secret)


@token.command("list")
@click.argument("name")
@places
def list_tokens(settings: Settings, name: str) -> None:
    """List the tokens of the account NAME, without their secrets.

    Example: memcube-registry token list alice
    """
    from memcube_registry.accounts.service import account_named
    from memcube_registry.accounts.tokens import tokens_of

    with database_of(settings) as database, database.read() as session:
        rows = tokens_of(session, account_named(session, name).id)
    for row in rows:
        end = f"{row.expires_at:%Y-%m-%d %H:%M} UTC" if row.expires_at else "never"
        state = "revoked" if row.revoked_at else f"expires {end}"
        click.echo(f"{row.id}\t{row.name}\t{row.scopes}\t{state}")


@token.command("revoke")
@click.argument("name")
@click.argument("token_id", type=int)
@places
def revoke_token(settings: Settings, name: str, token_id: int) -> None:
    """End a token of the account NAME at once.

    Example: memcube-registry token revoke alice 3
    """
    from memcube_registry.accounts.service import account_named
    from memcube_registry.accounts.tokens import revoke_token as revoke
    from memcube_registry.database import utc_now

    with database_of(settings) as database, database.write() as session:
        revoke(session, account_named(session, name).id, token_id, now=utc_now())
    click.echo(f"revoked token {token_id} of {name}")


def main() -> NoReturn:
    """The process `memcube-registry`: never returns."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and say the exit code; errors become a line on stderr."""
    try:
        code = group.main(list(arguments), prog_name="memcube-registry", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as asked:
        click.echo(asked.format_message(), err=True)
        return EXIT_USAGE
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "memcube-registry"
        hint = f"{path} --help shows how it is used"
        return _told(WrongUsageError(error.format_message(), hint=hint))
    except MemcubeError as error:
        return _told(error)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return EXIT_ERROR
    except OSError as error:
        _discard_output()
        where = f" ({error.filename})" if error.filename else ""
        text = f"{error.strerror or error}{where}"
        return _told(StorageError(text, hint="check the path, its permissions and the disk"))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_ERROR
    return code if isinstance(code, int) else EXIT_OK


def _told(error: MemcubeError) -> int:
    """The exit code of `error`, which is told."""
    click.echo(f"error: {error}" + (f"\n\nhint: {error.hint}" if error.hint else ""), err=True)
    return outcome_of(error).exit_code


def _discard_output() -> None:
    """Send nowhere what stdout did not take: at exit the interpreter would try once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
