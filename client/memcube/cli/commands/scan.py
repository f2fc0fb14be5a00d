"""`memcube scan`: look for what should not be published, or not be mounted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from memcube_protocol.errors import NotFoundError

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import Number, offline_option, open_client, trust_of, trust_options
from memcube.figures import table_text

if TYPE_CHECKING:
    from memcube_signing.predicates.scan import Scan

    from memcube.client import Client
    from memcube.consuming.verifying import Verified

SEVERITIES: Final = ("info", "low", "medium", "high")
_FOLDER: Final = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@command(
    "scan",
    "memcube scan my-cube",
    "memcube scan alice/notes:1.0.0 --fail-on medium",
    "memcube scan alice/notes:1.0.0 --recompute --model ./Qwen3-0.6B --attest",
)
@click.argument("source")
@click.option(
    "--fail-on",
    type=click.Choice(SEVERITIES),
    help="Exit with 8 where a finding is this bad or worse.",
)
@click.option(
    "--recompute", is_flag=True, help="Compute KV caches anew from their texts and compare."
)
@click.option("--model", type=_FOLDER, metavar="FOLDER", help="The model to recompute them with.")
@click.option(
    "--text",
    "texts",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="Text of a cache that carries only its digest; repeatable.",
)
@click.option(
    "--tolerance",
    type=Number(0, 1),
    metavar="SHARE",
    help="Largest difference of a token's row that counts as rounding. Default: by the dtype.",
)
@click.option("--attest", is_flag=True, help="Sign the result and attach it to the published cube.")
@click.option("--key", metavar="NAME", help="Sign with this key instead of the default one.")
@offline_option
@trust_options
def scan(
    source: str,
    fail_on: str | None,
    recompute: bool,
    model: Path | None,
    texts: tuple[Path, ...],
    tolerance: float | None,
    attest: bool,
    key: str | None,
    offline: bool,
    trust_mode: str,
    accept_publisher: str | None,
    accept_origin: str | None,
    accept_rollback: bool,
) -> Answer:
    """Scan SOURCE, a folder or a cube: secrets, personal data, prompt injection, unsafe files.

    A finding names a rule and a place, never what was found. Of a folder nothing is kept. `memcube push`
    scans by itself, and attaches the result as a signed statement. A KV cache is opaque: `--recompute` computes it anew
    from its text, and detects one that differs.
    """
    if recompute != (model is not None):
        raise click.UsageError("--recompute and --model FOLDER are wanted together")
    is_folder = Path(source).is_dir()
    if attest and is_folder:
        raise click.UsageError("--attest is about a published cube: push the folder first")
    if not is_folder and "/" not in source:
        raise NotFoundError(
            f"there is no folder {source!r} here, and a cube is named namespace/name",
            hint="name a folder, or see memcube ls",
        )
    trust = trust_of(trust_mode, accept_publisher, accept_origin, accept_rollback)
    with open_client(offline=offline) as user, ExitStack() as passing:
        client, cube = user, source
        if is_folder:
            client, cube = passing.enter_context(_passing(user, Path(source)))
        verified = client.open(cube, trust=trust)
        found, notes = client.scan(verified.cube), tuple[str, ...]()
        if model:
            found, notes = _recomputed(client, verified, found, model, texts, tolerance)
        if attest:
            notes += (_attested(client, cube, found, key),)
    return _told(found, fail_on, notes)


@contextmanager
def _passing(user: Client, folder: Path) -> Iterator[tuple[Client, str]]:
    """`folder` as a cube, and the client that has it in a home of its own, which is gone afterwards."""
    from memcube.client import Client
    from memcube.packing.pack import pack_folder
    from memcube.store.workshops import workshop

    settings = user.context.settings
    with workshop(settings.home) as home, Client(replace(settings, home=home)) as client:
        packed = pack_folder(folder, client.context.store, known=user.context.store)
        yield client, str(packed.reference.with_digest(packed.cube.digest))


def _recomputed(
    client: Client,
    verified: Verified,
    found: Scan,
    folder: Path,
    texts: tuple[Path, ...],
    tolerance: float | None,
) -> tuple[Scan, tuple[str, ...]]:
    from memcube.memories.checkpoint import load_checkpoint
    from memcube.scanning.recomputing import recompute_caches

    model, tokenizer = load_checkpoint(folder)
    done = recompute_caches(
        client.context,
        verified,
        found,
        model=model,
        tokenizer=tokenizer,
        tolerance=tolerance,
        texts=[path.read_text("utf-8") for path in texts],
    )
    return done.scan, done.notes


def _attested(client: Client, source: str, found: Scan, key: str | None) -> str:
    from memcube_protocol.reference import Reference

    from memcube.publishing import attesting

    place = Reference.parse(source)
    predicate = found.to_statement().predicate
    made = attesting.attest(
        client.context, place, found.to_statement().predicate_type, predicate, key=key
    )
    return f"Attested {made.reference}, signed by {made.key_id}"


def _told(found: Scan, fail_on: str | None, notes: tuple[str, ...]) -> Answer:
    from memcube_protocol.errors import EXIT_INVALID, EXIT_OK

    from memcube.scanning.findings import coverage_line, recomputed_line

    rows = [
        (finding.severity, finding.check, finding.rule, finding.path, finding.place)
        for finding in found.findings
    ]
    counts = ", ".join(f"{check} {count}" for check, count in found.counts.items())
    lines = [table_text(rows)] if rows else []
    lines += [f"{counts} (rules {found.rules_version})"]
    lines += [coverage_line(found.coverage)] if found.coverage else []
    lines += [*map(recomputed_line, found.recomputed), *notes]
    failed = found.worst and fail_on and SEVERITIES.index(found.worst) >= SEVERITIES.index(fail_on)
    return Answer(
        dict(found.to_statement().predicate),
        "\n".join(lines),
        str(found.subject),
        EXIT_INVALID if failed else EXIT_OK,
    )
