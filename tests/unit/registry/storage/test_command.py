"""`memcube-registry make-bucket`."""

from click.testing import CliRunner, Result
from memcube_protocol.errors import InvalidSettingError, StorageError
from memcube_registry.cli import group
from support.swift import SwiftServer


def make_bucket(environ: dict[str, str]) -> Result:
    return CliRunner().invoke(group, ["make-bucket"], env=environ)


def test_a_bucket_is_made_once_and_tried_each_time(s3: SwiftServer) -> None:
    settings = s3.registry_settings(S3_BUCKET="made-by-the-command")
    name = "made-by-the-command"
    first, second = make_bucket(settings), make_bucket(settings)
    assert first.output == f"the bucket {name} is made, and can be written to\n"
    assert second.output == f"the bucket {name} is there already, and can be written to\n"
    assert name in {each["Name"] for each in s3.client().list_buckets()["Buckets"]}


def test_another_store_has_no_bucket() -> None:
    done = make_bucket({"MEMCUBE_REGISTRY_STORAGE": "local"})
    assert isinstance(done.exception, InvalidSettingError)
    assert "MEMCUBE_REGISTRY_STORAGE=s3" in (done.exception.hint or "")


def test_wrong_credentials_are_named(s3: SwiftServer) -> None:
    done = make_bucket(s3.registry_settings() | {"AWS_SECRET_ACCESS_KEY": "wrong"})
    assert isinstance(done.exception, StorageError)
    assert "credentials" in (done.exception.hint or "")
