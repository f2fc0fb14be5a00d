"""`memcube scan`: look for what should not be published, or not be mounted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import offline_option, open_client, trust_of, trust_options
from memcube.cli.words import table_text

if TYPE_CHECKING:
    from memcube_signing.predicates.scan import Scan

SEVERITIES: Final = ("info", "low", "medium", "high")


@command("scan", "memcube scan my-cube", "memcube scan alice/notes:1.0.0 --fail-on medium")
@click.argument("source")
@click.option(
    "--fail-on",
    type=click.Choice(SEVERITIES),
    help="Exit with 8 where a finding is this bad or worse.",
)
@offline_option
@trust_options
def scan(
    source: str,
    fail_on: str | None,
    offline: bool,
    trust_mode: str,
    accept_publisher: str | None,
    accept_origin: str | None,
    accept_rollback: bool,
) -> Answer:
    """Scan SOURCE, a folder or a cube: secrets, personal data, prompt injection, unsafe files.

    A finding names a rule and a place, never what was found. `memcube push` scans by itself, and
    attaches the result as a signed statement.
    """
    trust = trust_of(trust_mode, accept_publisher, accept_origin, accept_rollback)
    with open_client(offline=offline) as client:
        if Path(source).is_dir():
            cube = client.pack(Path(source)).cube
        else:
            cube = client.open(source, trust=trust).cube
        found = client.scan(cube)
    return _told(found, fail_on)


def _told(found: Scan, fail_on: str | None) -> Answer:
    from memcube_protocol.errors import EXIT_INVALID, EXIT_OK

    rows = [
        (finding.severity, finding.check, finding.rule, finding.path, finding.place)
        for finding in found.findings
    ]
    counts = ", ".join(f"{check} {count}" for check, count in found.counts.items())
    lines = [table_text(rows)] if rows else []
    lines += [f"{counts} (rules {found.rules_version})"]
    failed = found.worst and fail_on and SEVERITIES.index(found.worst) >= SEVERITIES.index(fail_on)
    return Answer(
        dict(found.to_statement().predicate),
        "\n".join(lines),
        str(found.subject),
        EXIT_INVALID if failed else EXIT_OK,
    )
