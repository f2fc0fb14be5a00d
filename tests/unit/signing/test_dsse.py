"""DSSE envelopes: the edges of what they may hold."""

from __future__ import annotations

import pytest
from memcube_protocol import limits
from memcube_protocol.errors import InvalidStatementError, LimitExceededError
from memcube_signing.dsse import Envelope, Signature, known_fields, pae, text_field

SIG = {"sig": "AA==", "keyid": "alice"}
NO_TEXT = [None, 7, True, b"x", ["x"], {"x": "y"}]


def read(**changes) -> Envelope:
    return Envelope.from_json(
        {"payload": "e30=", "payloadType": "text/x", "signatures": [SIG]} | changes
    )


def refused(reason: str = "malformed-envelope", **changes) -> None:
    with pytest.raises(InvalidStatementError) as caught:
        read(**changes)
    assert caught.value.reason == reason
    assert caught.value.hint


def test_the_bytes_that_are_signed_are_those_of_the_standard():
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("ü", b"") == b"DSSEv1 2 \xc3\xbc 0 "


def test_an_envelope_is_read_field_by_field():
    found = read()
    assert (found.payload, found.payload_type) == (b"{}", "text/x")
    assert found.signatures == (Signature(b"\0", "alice"),)
    assert found.to_json() == {
        "payload": "e30=",
        "payloadType": "text/x",
        "signatures": [SIG],
    }


@pytest.mark.parametrize("length", [1, 2, 255, 256])
def test_a_field_of_text_has_up_to_256_characters(length):
    assert text_field({"a": "x" * length}, "a", "thing") == "x" * length


@pytest.mark.parametrize("value", ["", "x" * 257, *NO_TEXT])
def test_a_field_of_text_is_nothing_else(value):
    with pytest.raises(InvalidStatementError):
        text_field({"a": value}, "a", "thing")


def test_an_object_holds_no_field_that_is_not_known_and_need_not_hold_all():
    assert known_fields({"a": 1}, "thing", {"a", "b"}) == {"a": 1}
    with pytest.raises(InvalidStatementError) as caught:
        known_fields({"a": 1, "c": 2}, "thing", {"a", "b"})
    assert caught.value.reason == "unknown-field"
    for value in ([], "a", None):
        with pytest.raises(InvalidStatementError):
            known_fields(value, "thing", {"a"})


@pytest.mark.parametrize("key_id", [None, "", "x", "x" * 256])
def test_a_key_id_is_short_text_or_none(key_id):
    assert read(signatures=[{"sig": "AA==", "keyid": key_id}]).signatures[0].key_id == (
        key_id or ""
    )


def test_a_key_id_may_be_left_out():
    assert read(signatures=[{"sig": "AA=="}]).signatures == (Signature(b"\0", ""),)


@pytest.mark.parametrize("key_id", ["x" * 257, 7, ["x"], {"x": "y"}])
def test_a_key_id_is_nothing_else(key_id):
    refused(signatures=[{"sig": "AA==", "keyid": key_id}])


@pytest.mark.parametrize("text", ["", *NO_TEXT])
def test_what_is_written_in_base64_is_there(text):
    refused(payload=text)
    refused(signatures=[{"sig": text}])


@pytest.mark.parametrize("text", ["e30", "e31=", "AA+=", "e30=\n", "_-==", "é30="])
def test_base64_has_one_form(text):
    refused("not-base64", payload=text)
    refused("not-base64", signatures=[{"sig": text}])


@pytest.mark.parametrize("signatures", [None, {}, "x", SIG])
def test_signatures_are_a_list(signatures):
    refused(signatures=signatures)


def test_an_envelope_without_a_signature_is_refused():
    refused("no-signature", signatures=[])


def test_a_payload_has_up_to_one_mebibyte():
    most = b"x" * limits.STATEMENT_BYTES
    assert Envelope("text/x", most, (Signature(b"s"),)).payload == most
    with pytest.raises(LimitExceededError):
        Envelope("text/x", most + b"x", (Signature(b"s"),))
