"""Attacks on what a registry's log may hold: credentials of its stores, and addresses that are as good."""

from __future__ import annotations

import boto3
import pytest
from botocore.config import Config
from memcube_registry.observability.requests import blot_secrets

SECRET = "d4c3b2a1" * 8


@pytest.mark.parametrize(
    "text",
    [
        f"GET https://cdn.example/x?Expires=1&Signature={SECRET}&Key-Pair-Id=K",
        f"GET https://cdn.example/x?Policy={SECRET}",
        f"/bucket/blobs/1?X-Amz-Expires=600&x-amz-signature={SECRET}",
        f"/bucket/blobs/1?X-Amz-Security-Token={SECRET}",
        f"AWS4-HMAC-SHA256 Credential={SECRET}/20300101/r/s3/aws4_request, Signature={SECRET}",
        f"token hf_{SECRET} was refused",
        f"could not connect to postgresql+psycopg://memcube:{SECRET}@db.example/memcube",
    ],
)
def test_what_opens_a_store_is_blotted_out_whoever_logs_it(text: str) -> None:
    (shown,) = blot_secrets(None, "info", {"event": text}).values()
    assert SECRET not in shown
    assert "[secret]" in shown


def test_a_signed_address_is_of_no_use_once_it_was_logged() -> None:
    client = boto3.client(
        "s3",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        region_name="us-east-1",
        config=Config(signature_version="s3v4"),
    )
    url = client.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "blob"})
    signature = url.partition("X-Amz-Signature=")[2]
    assert len(signature) == 64
    assert signature not in blot_secrets(None, "info", {"event": url})["event"]


def test_other_words_stay_as_they_are() -> None:
    text = "no signature=none of https://registry.example:443/alice/x@sha256 policy=keep"
    assert blot_secrets(None, "info", {"event": text}) == {"event": text}
