"""The S3 server that tests start keeps what it acknowledged, whatever end it comes to."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.swift import SwiftServer, swift_server


@pytest.mark.parametrize("end", [SwiftServer.stop, SwiftServer.kill])
def test_an_s3_server_begins_again_with_its_objects_and_its_parts(
    tmp_path: Path, end: Callable[[SwiftServer], None]
) -> None:
    with swift_server(tmp_path / "swift") as server:
        client, bucket = server.client(), server.bucket()
        client.put_object(Bucket=bucket, Key="whole", Body=b"whole")
        upload = client.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
        client.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=1, Body=b"part")
        end(server)
        server.start()
        assert client.get_object(Bucket=bucket, Key="whole")["Body"].read() == b"whole"
        listed = client.list_parts(Bucket=bucket, Key="parts", UploadId=upload)["Parts"]
        assert [(part["PartNumber"], part["Size"]) for part in listed] == [(1, 4)]


def test_buckets_are_a_tests_own(s3_server: SwiftServer) -> None:
    assert s3_server.bucket() != s3_server.bucket()
