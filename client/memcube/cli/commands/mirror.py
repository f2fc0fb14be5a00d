"""`memcube mirror`: follow a namespace into another one."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click
from memcube_protocol.errors import MemcubeError

from memcube.cli.answer import Answer, Mode, print_answer, print_problem
from memcube.cli.command import command
from memcube.cli.options import open_client, trust_of
from memcube.figures import bytes_text, count_text, table_text

if TYPE_CHECKING:
    from memcube.mirroring import Mirror, Report, Row

_UNITS_S: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_PARALLEL_MAX: Final = 32


class Interval(click.ParamType[float]):
    """A time such as `90s`, `15m`, `2h` or `1d`, in seconds."""

    name = "interval"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds, at least one."""
        found = re.fullmatch(r"([0-9]{1,6})([smhd]?)", str(value), re.ASCII)
        if found is None or found[1].strip("0") == "":
            self.fail(f"{str(value)[:40]!r} is no time such as 15m", param, ctx)
        return float(found[1]) * _UNITS_S[found[2]]


@command(
    "mirror",
    "memcube mirror registry.example/alice mirror.example/alice",
    "memcube mirror registry.example/alice bob --public",
    "memcube mirror registry.example/alice bob --cube 'notes-*' --tag '1.*' --interval 15m",
)
@click.argument("source")
@click.argument("target")
@click.option("--cube", "cubes", multiple=True, metavar="PATTERN", help="Only cubes of such names.")
@click.option("--tag", "tags", multiple=True, metavar="PATTERN", help="Only such tags.")
@click.option("--no-builds", is_flag=True, help="Leave builds, and what is attested to them.")
@click.option(
    "--public/--private",
    "public",
    default=None,
    help="Who may read the copies. Default: as it is; private.",
)
@click.option(
    "--yes",
    is_flag=True,
    help="Make them public although their governance says confidential or personal.",
)
@click.option("--prune", is_flag=True, help="Remove tags here that are gone at the source.")
@click.option(
    "--parallel",
    type=click.IntRange(1, _PARALLEL_MAX),
    default=4,
    show_default=True,
    help="So many cubes at once.",
)
@click.option("--once", is_flag=True, help="One round, then end; so it is without --interval.")
@click.option(
    "--interval", type=Interval(), metavar="TIME", help="A round every 90s, 15m, 2h or 1d."
)
@click.option(
    "--trust",
    "trust_mode",
    type=click.Choice(["enforce", "warn"]),
    default="enforce",
    show_default=True,
    help="Refuse cubes without a valid release statement, or copy them all the same.",
)
def mirror(
    source: str,
    target: str,
    cubes: tuple[str, ...],
    tags: tuple[str, ...],
    no_builds: bool,
    public: bool | None,
    yes: bool,
    prune: bool,
    parallel: int,
    once: bool,
    interval: float | None,
    trust_mode: str,
) -> Answer:
    """Copy every cube and version of the namespace SOURCE into the namespace TARGET.

    Each is verified as by `memcube pull`, and copied as by `memcube cp`. A second round asks little
    and does not move again what is there. Nothing is removed at TARGET without --prune, and no
    version is ever overwritten: other content under the same version is an alarm. With --public no
    version is copied whose governance calls it confidential or personal, and no cube that has one
    becomes public, unless --yes says so.
    """
    from memcube_protocol.reference import Reference

    from memcube.copying.oci_layout import SCHEME
    from memcube.mirroring import Mirror
    from memcube.publishing.exposure import Exposure
    from memcube.publishing.visibility import visibility_of

    if once and interval:
        raise click.UsageError("--once and --interval exclude each other")
    if source.startswith(SCHEME) or target.startswith(SCHEME):
        raise click.UsageError(
            "a mirror goes from a registry to a registry; for a folder, copy cube by cube: "
            "memcube cp NAME oci:FOLDER",
            click.get_current_context(),
        )
    places = Reference.parse(source), Reference.parse(target)
    exposure = Exposure(visibility_of(public), confidential=yes)
    wanted = Mirror(*places, cubes, tags, not no_builds, prune, parallel, exposure)
    while True:
        try:
            answer = _round(wanted, trust_mode)
        except MemcubeError as error:
            if interval is None:
                raise
            print_problem(error, _mode())
        else:
            if interval is None:
                return answer
            print_answer(answer, _mode())
            sys.stdout.flush()  # who watches a pipe or a file sees each round
        time.sleep(interval)


def _round(wanted: Mirror, trust_mode: str) -> Answer:
    trust = trust_of(trust_mode, None, None, accept_rollback=False)
    with open_client() as client:
        report = client.mirror(wanted, trust=trust)
    return Answer(_value(report), _text(report), _quiet(report), report.exit_code)


def _mode() -> Mode:
    return click.get_current_context().find_object(Mode) or Mode()


def _value(report: Report) -> dict[str, Any]:
    return {
        "source": report.source,
        "target": report.target,
        "counts": dict(report.counts),
        "sentBytes": report.sent_bytes,
        "versions": [_row_value(row) for row in report.rows],
    }


def _row_value(row: Row) -> dict[str, Any]:
    value = asdict(row) | {"fate": row.fate.value, "sentBytes": row.sent_bytes}
    del value["sent_bytes"], value["exit_code"]
    return value


def _text(report: Report) -> str:
    """A table of what was done or is wrong, and a line that counts all."""
    told = [row for row in report.rows if row.fate.value != "unchanged"]
    lines = [("CUBE", "TAG", "FATE", "DIGEST", "SENT", "WHY")] if told else []
    lines += [
        (
            row.name,
            row.tag or "-",
            row.fate.value,
            row.digest.partition(":")[2][:12],
            bytes_text(row.sent_bytes) if row.sent_bytes else "",
            row.detail,
        )
        for row in told
    ]
    counts = ", ".join(f"{count} {fate}" for fate, count in report.counts.items() if count)
    total = f"{report.source} to {report.target}: {count_text(len(report.rows), 'tag')}"
    host = report.source.partition("/")[0]
    nothing = f"no cube and tag that you ask for; private ones need memcube login {host}"
    summary = f"{total}, {counts or nothing}"
    return f"{table_text(lines)}\n\n{summary}" if lines else summary


def _quiet(report: Report) -> str:
    """What needs somebody to look."""
    return "\n".join(
        f"{row.fate.value} {row.name}:{row.tag}" for row in report.rows if row.fate.is_bad
    )
