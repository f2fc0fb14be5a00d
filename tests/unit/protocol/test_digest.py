from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol.digest import HEX_CHARS, Digest, new_hasher
from memcube_protocol.errors import InvalidDigestError
from support.attempts import attempt


@settings(max_examples=50)
@given(st.binary(), st.sampled_from(sorted(HEX_CHARS)))
def test_a_digest_is_that_of_hashlib_and_round_trips(content: bytes, algorithm: str) -> None:
    digest = Digest.of(content, algorithm)
    assert digest.hex == hashlib.new(algorithm, content).hexdigest()
    assert Digest.parse(str(digest)) == digest
    hasher = digest.hasher()
    hasher.update(content[:3])
    hasher.update(memoryview(content)[3:])
    assert Digest.finish(algorithm, hasher) == digest


@settings(max_examples=200)
@given(st.text(max_size=100) | st.from_regex(r"sha(256|512):[0-9a-fA-F]{60,130}"))
def test_text_is_a_digest_in_its_one_spelling_or_refused(text: str) -> None:
    result = attempt(lambda: Digest.parse(text))
    assert isinstance(result, InvalidDigestError) or str(result) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256",
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 64 + "\n",
        "sha256: " + "a" * 63,
        "SHA256:" + "a" * 64,
        "sha512:" + "a" * 64,
        "md5:" + "a" * 32,
        "sha256:" + "g" * 64,
        "sha256:" + "١" * 64,
    ],
)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(InvalidDigestError):
        Digest.parse(text)


def test_an_unknown_algorithm_has_no_hasher() -> None:
    with pytest.raises(InvalidDigestError, match="crc32"):
        new_hasher("crc32")


def test_digests_sort_by_algorithm_and_hex() -> None:
    digests = [Digest("sha256", "b" * 64), Digest("sha512", "a" * 128), Digest("sha256", "a" * 64)]
    assert [digest.hex[0] + digest.algorithm[-1] for digest in sorted(digests)] == [
        "a6",
        "b6",
        "a2",
    ]
