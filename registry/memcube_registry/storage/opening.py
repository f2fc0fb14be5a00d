"""The blob store that the settings ask for. What a store needs is loaded only where it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memcube_protocol.errors import MissingDependencyError

from memcube_registry.database import Database
from memcube_registry.settings import Settings
from memcube_registry.storage.claim_table import DatabaseClaims
from memcube_registry.storage.interface import BlobStore
from memcube_registry.storage.local import FilesBehindNginx, LocalFiles

if TYPE_CHECKING:
    from memcube_registry.storage.s3 import Bucket


def open_store(settings: Settings, database: Database) -> BlobStore:
    """The blob store; nothing is asked of its server yet.

    Raises:
        MissingDependencyError: the extra that it needs is not installed.
        ReadOnlyError, StorageError: it cannot be used as it is set up.
    """
    if settings.storage == "s3":
        return _s3(settings, database)
    if settings.storage == "hub":
        return _hub(settings)
    kept = FilesBehindNginx if settings.local_reads == "nginx" else LocalFiles
    return kept(settings.data_dir / "blobs")


def bucket_of(settings: Settings) -> Bucket:
    """The bucket that the settings name; nothing is asked of its server yet.

    Raises:
        MissingDependencyError: boto3 is not installed.
    """
    try:
        from memcube_registry.storage.s3 import Bucket, Place
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "the storage s3 needs boto3", hint="pip install 'memcube[registry,s3]'"
        ) from error
    return Bucket(
        Place(
            bucket=settings.s3_bucket,
            prefix=settings.s3_prefix,
            endpoint_url=settings.s3_endpoint_url or None,
            public_endpoint_url=settings.s3_public_url or None,
            region=settings.s3_region or None,
            path_style=settings.s3_path_style,
            read_timeout_s=settings.s3_timeout_s,
        )
    )


def _s3(settings: Settings, database: Database) -> BlobStore:
    bucket = bucket_of(settings)
    from memcube_registry.storage.s3 import S3Store

    expiry_s = settings.s3_url_expiry_s if settings.s3_reads == "redirect" else 0
    return S3Store(bucket, DatabaseClaims(database), url_expiry_s=expiry_s)


def _hub(settings: Settings) -> BlobStore:
    try:
        from memcube_registry.storage.hub import Dataset, HubStore, Place
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "the storage hub needs huggingface_hub", hint="pip install 'memcube[registry,hub]'"
        ) from error
    place = Place(
        settings.hub_repository, settings.hub_endpoint or None, settings.hub_token or None
    )
    redirects = settings.hub_reads == "redirect"
    return HubStore(Dataset(place), settings.hub_staging_dir, redirects=redirects)
