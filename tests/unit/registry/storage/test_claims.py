"""Claims to uploads: one owner at a time, and nothing that a former owner does counts."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from memcube_protocol.errors import ConflictError
from memcube_registry.database import Database, utc_now
from memcube_registry.storage import claim_table
from memcube_registry.storage import claims as memory_claims
from memcube_registry.storage.claim_table import DatabaseClaims
from memcube_registry.storage.claims import Claims, MemoryClaims


@contextmanager
def silence() -> Iterator[None]:
    """What is claimed meanwhile lapses at once, as if its owner had not been heard of for long."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (memory_claims, claim_table):
            patch.setattr(module, "LEASE", timedelta(seconds=-1))
        yield


class ClaimsContract:
    """What every `Claims` must do; subclass it once per kind."""

    @pytest.fixture
    def claims(self) -> Claims:
        raise NotImplementedError

    def test_an_unknown_upload_has_no_state_until_it_is_taken(self, claims: Claims) -> None:
        assert claims.state("upload") == ""
        assert not list(claims.all())
        assert claims.take("upload", "one") == ""
        (known,) = claims.all()
        assert (known.upload, known.state) == ("upload", "")
        assert abs(utc_now() - known.written_at) < timedelta(minutes=1)

    def test_another_owner_is_refused_until_the_first_lets_go(self, claims: Claims) -> None:
        claims.take("upload", "one")
        with pytest.raises(ConflictError):
            claims.take("upload", "two")
        assert claims.take("other", "two") == ""
        claims.keep("upload", "one", "half", release=True)
        assert claims.take("upload", "two") == "half"

    def test_an_owner_may_take_what_it_has(self, claims: Claims) -> None:
        claims.take("upload", "one")
        assert claims.take("upload", "one") == ""

    def test_what_was_kept_is_known_at_once_to_everybody(self, claims: Claims) -> None:
        claims.take("upload", "one")
        claims.keep("upload", "one", "state")
        assert claims.state("upload") == "state"
        with pytest.raises(ConflictError):
            claims.take("upload", "two")

    def test_an_owner_not_heard_of_is_followed_and_its_later_word_does_not_count(
        self, claims: Claims
    ) -> None:
        with silence():
            claims.take("upload", "one")
            claims.keep("upload", "one", "before")
        assert claims.take("upload", "two") == "before"
        with pytest.raises(ConflictError):
            claims.keep("upload", "one", "after")
        assert claims.state("upload") == "before"
        claims.keep("upload", "two", "theirs")

    def test_an_owner_that_is_renewed_stays(self, claims: Claims) -> None:
        with silence():
            claims.take("upload", "one")
        claims.renew({"one", "nobody"})
        with pytest.raises(ConflictError):
            claims.take("upload", "two")

    def test_who_holds_an_upload_is_known_until_it_is_let_go(self, claims: Claims) -> None:
        claims.take("upload", "one")
        assert [known.owner for known in claims.all()] == ["one"]
        claims.keep("upload", "one", "state", release=True)
        assert [known.owner for known in claims.all()] == [None]

    def test_a_forgotten_upload_gives_its_state_to_one_only(self, claims: Claims) -> None:
        claims.take("upload", "one")
        claims.keep("upload", "one", "state")
        assert claims.forget("upload") == "state"
        assert claims.forget("upload") is None
        with pytest.raises(ConflictError):
            claims.keep("upload", "one", "again")


class TestMemoryClaims(ClaimsContract):
    @pytest.fixture
    def claims(self) -> Claims:
        return MemoryClaims()


class TestDatabaseClaims(ClaimsContract):
    @pytest.fixture
    def claims(self, database: Database) -> Claims:
        return DatabaseClaims(database)
