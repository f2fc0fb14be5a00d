"""A small cube and an overlay, mounted without a registry, for those who ask mounted memories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from memcube.client import Client
from memcube.dumper import MemDumper
from memcube.mcp.desk import Desk
from memcube.mcp.opening import open_desk
from memcube.settings import Settings

HANDBOOK = "acme/handbook:1.0.0"
RECORDS = (
    {
        "id": "ferry",
        "text": "The ferry leaves at nine.",
        "subject": "travel",
        "tags": ["boat"],
        "updated_at": "2026-03-01T00:00:00Z",
        "source": {"uri": "https://acme.example/ferry"},
    },
    {"id": "pager", "text": "The pager lies in the drawer.", "type": "procedure"},
    {"id": "old", "text": "The ferry left at eight.", "valid_to": "2020-01-01T00:00:00Z"},
)


def pack_handbook(
    home: Path, records: Sequence[Mapping[str, object]] = RECORDS, *, rules: str = ""
) -> dict[str, str]:
    """Pack the cube `HANDBOOK` in the store of `home`; the environment of who uses that store.

    `rules` goes behind what memcube.toml says.
    """
    environ = {"MEMCUBE_HOME": str(home / "home"), "MEMCUBE_KEYRING": "0"}
    dumper = MemDumper(home / "handbook", name="acme/handbook", version="1.0.0")
    dumper.add_records(records)
    with (dumper.folder / "memcube.toml").open("a") as toml:
        toml.write(rules)
    with Client(Settings.load(environ)) as client:
        client.pack(dumper.folder)
    return environ


@contextmanager
def mounted_desk(home: Path, records: Sequence[Mapping[str, object]] = RECORDS) -> Iterator[Desk]:
    """A desk over the cube `HANDBOOK` and the overlay `own`."""
    with (
        Client(Settings.load(pack_handbook(home, records))) as client,
        open_desk(client, ["acme/handbook"], overlay=home / "own") as desk,
    ):
        yield desk
