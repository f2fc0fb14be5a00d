"""What every store that clients write to must do, and what each was seen to do of the rest."""

from __future__ import annotations

import base64
import hashlib
import os
import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import urllib3
from botocore.config import Config
from memcube_protocol.errors import ConflictError, StorageError, UnavailableError
from memcube_registry.storage.direct import Body, DirectWrites, Guarantees, SignedPut
from memcube_registry.storage.s3.direct import S3Direct
from support.moto import MotoServer, moto_server
from support.scripted import Answer, Received, scripted
from support.swift import ACCESS_KEY, REGION, SECRET_KEY, SwiftServer

PART = 5 << 20
LIFE_S = 600


def body_of(content: bytes, *, checked: bool = True) -> Body:
    return Body(len(content), hashlib.sha256(content).hexdigest() if checked else None)


def put(signed: SignedPut, content: bytes, **headers: str) -> int:
    """Status of the store's answer; 0 where it hung up."""
    asked = {**signed.headers, **headers}
    try:
        reply = urllib3.request("PUT", signed.url, body=content, headers=asked, retries=False)
    except urllib3.exceptions.HTTPError:
        return 0
    return reply.status


def direct_on(server: SwiftServer | MotoServer) -> tuple[S3Direct, Any, str]:
    client, bucket = client_of(server, "s3v4"), server.bucket()
    return direct_in(client, bucket), client, bucket


def direct_in(client: Any, bucket: str) -> S3Direct:
    return S3Direct(client, client, lambda name: {"Bucket": bucket, "Key": f"blobs/{name}"})


def client_of(server: SwiftServer | MotoServer, signature_version: str) -> Any:
    return client_at(server.endpoint_url, signature_version)


def client_at(endpoint_url: str, signature_version: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name=REGION,
        config=Config(
            signature_version=signature_version,
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
        ),
    )


@pytest.fixture(scope="module")
def on_swift(s3_server: SwiftServer) -> S3Direct:
    return direct_on(s3_server)[0]


@pytest.fixture(scope="module")
def on_moto() -> Iterator[S3Direct]:
    with moto_server() as server:
        yield direct_on(server)[0]


class DirectWritesContract:
    """Subclass it once per store."""

    @pytest.fixture
    def direct(self) -> DirectWrites:
        raise NotImplementedError

    @pytest.fixture
    def location(self) -> str:
        return uuid.uuid4().hex

    def test_its_guarantees_are_enough(self, direct: DirectWrites) -> None:
        assert direct.guarantees().are_enough

    def test_a_whole_object_arrives(self, direct: DirectWrites, location: str) -> None:
        content = os.urandom(100_000)
        signed = direct.sign_whole(location, body_of(content), life_s=LIFE_S)
        assert direct.arrived(location) is None
        assert put(signed, content) == 200
        assert direct.arrived(location) == len(content)

    def test_a_second_object_on_the_same_request_is_refused(
        self, direct: DirectWrites, location: str
    ) -> None:
        content = os.urandom(1000)
        signed = direct.sign_whole(location, body_of(content), life_s=LIFE_S)
        assert put(signed, content) == 200
        assert put(signed, content) == 412
        assert put(signed, os.urandom(1000)) in (400, 412)

    def test_parts_become_an_object_in_their_order(
        self, direct: DirectWrites, location: str
    ) -> None:
        checked = direct.guarantees().checks_bodies
        parts = {2: os.urandom(PART), 1: os.urandom(PART), 3: b"the end"}
        parts_id = direct.begin(location, checked=checked)
        for number, content in parts.items():
            body = body_of(content, checked=checked)
            signed = direct.sign_part(location, parts_id, number, body, life_s=LIFE_S)
            assert put(signed, content) == 200
        held = direct.held(location, parts_id)
        assert held is not None
        assert [(part.number, part.size) for part in held] == [(1, PART), (2, PART), (3, 7)]
        direct.join(location, parts_id, held)
        assert direct.arrived(location) == 2 * PART + 7

    def test_a_part_can_be_put_again_before_they_are_joined(
        self, direct: DirectWrites, location: str
    ) -> None:
        checked = direct.guarantees().checks_bodies
        parts_id = direct.begin(location, checked=checked)
        body = body_of(b"part", checked=checked)
        signed = direct.sign_part(location, parts_id, 1, body, life_s=LIFE_S)
        assert [put(signed, b"part") for _ in range(2)] == [200, 200]
        held = direct.held(location, parts_id)
        assert held is not None
        assert [part.size for part in held] == [4]

    def test_what_was_replaced_meanwhile_is_not_joined(
        self, direct: DirectWrites, location: str
    ) -> None:
        parts_id = direct.begin(location, checked=False)
        for content in (b"one", b"two"):
            body = body_of(content, checked=False)
            before = direct.held(location, parts_id)
            put(direct.sign_part(location, parts_id, 1, body, life_s=LIFE_S), content)
        assert before
        with pytest.raises(ConflictError):
            direct.join(location, parts_id, before)
        assert direct.arrived(location) is None

    def test_no_request_changes_an_object_after_its_parts_were_joined(
        self, direct: DirectWrites, location: str
    ) -> None:
        checked = direct.guarantees().checks_bodies
        parts_id = direct.begin(location, checked=checked)
        body = body_of(b"right", checked=checked)
        signed = direct.sign_part(location, parts_id, 1, body, life_s=LIFE_S)
        assert put(signed, b"right") == 200
        direct.join(location, parts_id, direct.held(location, parts_id) or ())
        before = self.content(direct, location)
        for late in (b"wrong", b"right"):
            put(signed, late)
            assert self.content(direct, location) == before == b"right"

    def content(self, direct: DirectWrites, location: str) -> bytes:
        assert isinstance(direct, S3Direct)
        found: bytes = direct._client.get_object(**direct._at(location))["Body"].read()
        return found


class TestSwift(DirectWritesContract):
    """It checks bodies and signatures, but takes parts of an upload that has been completed."""

    @pytest.fixture
    def direct(self, on_swift: S3Direct) -> DirectWrites:
        return on_swift

    def test_it_was_seen_to_check_bodies(self, direct: DirectWrites) -> None:
        assert direct.guarantees() == Guarantees(checks_bodies=True, ends_uploads=False)

    @pytest.mark.parametrize("wrong", [b"y" * 1000, b"x" * 999, b"x" * 1001, b""])
    def test_another_body_is_refused(
        self, direct: DirectWrites, location: str, wrong: bytes
    ) -> None:
        signed = direct.sign_whole(location, body_of(b"x" * 1000), life_s=LIFE_S)
        assert put(signed, wrong) in (400, 403)
        assert direct.arrived(location) is None

    @pytest.mark.parametrize("name", ["x-amz-checksum-sha256", "if-none-match"])
    def test_a_request_without_one_of_its_headers_is_refused(
        self, direct: DirectWrites, location: str, name: str
    ) -> None:
        signed = direct.sign_whole(location, body_of(b"right"), life_s=LIFE_S)
        kept = {header: value for header, value in signed.headers.items() if header != name}
        assert put(SignedPut(signed.url, kept), b"right") == 403
        assert direct.arrived(location) is None

    def test_a_request_with_the_checksum_of_another_body_is_refused(
        self, direct: DirectWrites, location: str
    ) -> None:
        signed = direct.sign_whole(location, body_of(b"right"), life_s=LIFE_S)
        other = direct.sign_whole(location, body_of(b"wrong"), life_s=LIFE_S)
        assert put(SignedPut(signed.url, other.headers), b"wrong") == 403
        assert direct.arrived(location) is None

    def test_another_body_of_a_part_is_refused(self, direct: DirectWrites, location: str) -> None:
        parts_id = direct.begin(location, checked=True)
        signed = direct.sign_part(location, parts_id, 1, body_of(b"right"), life_s=LIFE_S)
        refusals = [put(signed, wrong) for wrong in (b"wrong", b"long right", b"r")]
        assert refusals == [400, 403, 403]
        assert not direct.held(location, parts_id)

    def test_no_header_that_is_not_signed_puts_a_copy_in_place_of_the_body(
        self, s3_server: SwiftServer, location: str
    ) -> None:
        direct, _, bucket = direct_on(s3_server)
        other = uuid.uuid4().hex
        assert put(direct.sign_whole(other, body_of(b"other"), life_s=LIFE_S), b"other") == 200
        signed = direct.sign_whole(location, body_of(b"right"), life_s=LIFE_S)
        assert put(signed, b"", **{"x-amz-copy-source": f"{bucket}/blobs/{other}"}) == 403
        assert direct.arrived(location) is None

    def test_it_takes_parts_of_an_upload_that_has_ended(self, s3_server: SwiftServer) -> None:
        assert not direct_on(s3_server)[0]._ends_uploads()

    def test_a_request_for_one_location_is_none_for_another(
        self, direct: DirectWrites, location: str
    ) -> None:
        signed = direct.sign_whole(location, body_of(b"x"), life_s=LIFE_S)
        other = uuid.uuid4().hex
        moved = SignedPut(signed.url.replace(location, other), signed.headers)
        assert put(moved, b"x") == 403
        assert direct.arrived(other) is None

    def test_a_request_that_has_run_out_is_refused(
        self, direct: DirectWrites, location: str
    ) -> None:
        signed = direct.sign_whole(location, body_of(b"x"), life_s=LIFE_S)
        shortened = SignedPut(
            signed.url.replace(f"X-Amz-Expires={LIFE_S}", "X-Amz-Expires=999999"), signed.headers
        )
        assert put(shortened, b"x") in (400, 403)

    def test_a_signature_that_does_not_bind_the_length_is_not_given_away(
        self, s3_server: SwiftServer, location: str
    ) -> None:
        client, bucket = client_of(s3_server, "s3"), s3_server.bucket()
        direct = direct_in(client, bucket)
        with pytest.raises(StorageError, match="binds too little"):
            direct.sign_whole(location, body_of(b"x"), life_s=LIFE_S)

    def test_trying_it_out_leaves_nothing_behind(self, s3_server: SwiftServer) -> None:
        direct, client, bucket = direct_on(s3_server)
        direct.guarantees()
        direct._ends_uploads()
        assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
        assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)


class OldServer:
    """An S3 server that knows no checksums, and answers as `late` says to a part that comes after the end."""

    def __init__(self, late: int) -> None:
        self.late = late
        self.is_joined = False

    def answer(self, request: Received) -> Answer:
        if "x-amz-checksum-sha256" in request.headers:
            return Answer(501, body=b"<Error><Code>NotImplemented</Code></Error>")
        if request.method == "POST" and request.path.endswith("?uploads"):
            return _xml("InitiateMultipartUploadResult", "<UploadId>u</UploadId>")
        if request.method == "POST":
            self.is_joined = True
            return _xml("CompleteMultipartUploadResult", "<ETag>e</ETag>")
        if request.method == "GET":
            part = "<PartNumber>1</PartNumber><Size>7</Size><ETag>e</ETag>"
            return _xml("ListPartsResult", f"<Part>{part}</Part>")
        if request.method == "PUT":
            if self.is_joined and self.late != 200:
                code = "NoSuchUpload" if self.late == 404 else "SlowDown"
                return Answer(self.late, body=f"<Error><Code>{code}</Code></Error>".encode())
            return Answer(200, {"ETag": "e"})
        return Answer(404 if request.method == "HEAD" else 204)


class CheckingServer:
    """An S3 server that checks whole bodies; of parts, and of headers that nobody signed, as it is told."""

    def __init__(self, *, checks_parts: bool, copies: bool) -> None:
        self.checks_parts = checks_parts
        self.copies = copies
        self.objects: dict[str, bytes] = {}

    def answer(self, request: Received) -> Answer:
        path = request.path.partition("?")[0]
        if request.method == "POST":
            return _xml("InitiateMultipartUploadResult", "<UploadId>u</UploadId>")
        if request.method == "PUT":
            return self._put(path, request)
        if request.method == "HEAD" and path in self.objects:
            return Answer(200, {"Content-Length": str(len(self.objects[path]))})
        return Answer(404 if request.method == "HEAD" else 204)

    def _put(self, path: str, request: Received) -> Answer:
        source = request.headers.get("x-amz-copy-source")
        if source and not self.copies:
            return Answer(403, body=b"<Error><Code>AccessDenied</Code></Error>")
        is_checked = "partNumber" not in request.path or self.checks_parts
        bound = request.headers.get("x-amz-checksum-sha256", "")
        actual = base64.b64encode(hashlib.sha256(request.body).digest()).decode()
        if not source and bound and is_checked and bound != actual:
            return Answer(400, body=b"<Error><Code>BadDigest</Code></Error>")
        if "partNumber" not in request.path:
            self.objects[path] = self.objects[f"/{source}"] if source else request.body
        return Answer(200, {"ETag": "e"})


@pytest.mark.parametrize(
    ("checks_parts", "copies", "trusted"),
    [(True, False, True), (False, False, False), (True, True, False)],
)
def test_a_server_that_takes_other_parts_or_unsigned_copies_checks_no_bodies(
    checks_parts: bool, copies: bool, trusted: bool
) -> None:
    server = CheckingServer(checks_parts=checks_parts, copies=copies)
    with scripted(server.answer) as line:
        assert direct_in(client_at(line.url, "s3v4"), "bucket")._checks_bodies() is trusted


def _xml(name: str, content: str) -> Answer:
    space = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    return Answer(200, body=f"<{name} {space}>{content}</{name}>".encode())


@pytest.mark.parametrize(("late", "ends"), [(404, True), (200, False)])
def test_a_server_that_refuses_checksums_checks_no_bodies(late: int, ends: bool) -> None:
    with scripted(OldServer(late).answer) as server:
        direct = direct_in(client_at(server.url, "s3v4"), "bucket")
        assert direct.guarantees() == Guarantees(checks_bodies=False, ends_uploads=ends)
        assert direct.guarantees().are_enough is ends


def test_a_refusal_for_another_reason_is_no_check_of_the_body() -> None:
    def answer(request: Received) -> Answer:
        if request.body != b"memcube" and "x-amz-checksum-sha256" in request.headers:
            return Answer(400, body=b"<Error><Code>RequestTimeout</Code></Error>")
        if request.method == "HEAD":
            return Answer(200, {"Content-Length": "7"})
        return Answer(200)

    with scripted(answer) as server:
        direct = direct_in(client_at(server.url, "s3v4"), "bucket")
        assert not direct._checks_bodies()


def test_a_failure_of_the_moment_is_not_taken_for_a_refusal() -> None:
    with scripted(OldServer(503).answer) as server:
        direct = direct_in(client_at(server.url, "s3v4"), "bucket")
        with pytest.raises(UnavailableError):
            direct.guarantees()
        assert direct._seen is None


@pytest.mark.parametrize("status", [403, 500, 503])
def test_a_server_that_does_not_answer_rightly_is_tried_again(status: int) -> None:
    with scripted(lambda request: Answer(status)) as server:
        direct = direct_in(client_at(server.url, "s3v4"), "bucket")
        with pytest.raises((StorageError, UnavailableError)):
            direct.guarantees()
        assert direct._seen is None


class TestMoto(DirectWritesContract):
    """It takes any body, whatever checksum the request names, but no part after the end."""

    @pytest.fixture
    def direct(self, on_moto: S3Direct) -> DirectWrites:
        return on_moto

    def test_it_was_seen_to_take_any_body(self, direct: DirectWrites) -> None:
        assert direct.guarantees() == Guarantees(checks_bodies=False, ends_uploads=True)
