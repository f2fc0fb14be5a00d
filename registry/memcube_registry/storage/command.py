"""`memcube-registry make-bucket`: the bucket that the settings name, made and tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from memcube_registry.command_options import places

if TYPE_CHECKING:
    from memcube_registry.settings import Settings


@click.command("make-bucket")
@places
def make_bucket(settings: Settings) -> None:
    """Create the S3 bucket named in the settings if it is missing, and try writing to it.

    The registry itself never makes one: in service it needs no right to.

    Example: memcube-registry make-bucket --config registry.toml
    """
    from memcube_protocol.errors import InvalidSettingError

    from memcube_registry.storage.opening import bucket_of

    if settings.storage != "s3":
        raise InvalidSettingError(
            f"setting storage is {settings.storage!r}, and only s3 has a bucket",
            hint="set MEMCUBE_REGISTRY_STORAGE=s3 and MEMCUBE_REGISTRY_S3_BUCKET",
        )
    bucket = bucket_of(settings)
    is_new = bucket.make()
    bucket.check()
    how = "made" if is_new else "there already"
    click.echo(f"the bucket {settings.s3_bucket} is {how}, and can be written to")
