from collections.abc import Callable
from typing import Any

import pytest
from memcube.accounts.credentials import Credentials
from memcube.http.authorization import Authenticator, merge_scopes
from memcube.http.origins import Origin
from memcube_protocol.errors import NetworkError, UnauthenticatedError, UnsafeRedirectError

REGISTRY = Origin("https", "registry.example", 443)
LOCAL = Origin("http", "127.0.0.1", 5000)
ANN = Credentials("ann", "s3cret")
TOKEN = Credentials("", "t0ken")
PULL = frozenset({"repository:ann/notes:pull"})
PUSH = frozenset({"repository:ann/notes:pull,push"})
ADDRESSES = {"auth.example": ["93.184.215.14"], "registry.example": ["93.184.215.15"]}
BEARER = 'Bearer realm="https://auth.example/token",service="r",scope="repository:ann/notes:pull"'


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Realm:
    """A token endpoint that remembers what it was asked."""

    def __init__(self, body: Callable[[int], bytes] | None = None) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self._body = body or (lambda n: b'{"token": "abc%d", "expires_in": 300}' % n)

    def __call__(self, url: str, authorization: str | None, origin: Origin) -> bytes:
        self.asked.append((url, authorization))
        return self._body(len(self.asked))


def authenticator(
    realm: Realm, credentials: Credentials | None = ANN, clock: Clock | None = None
) -> Authenticator:
    def find(host: str) -> Credentials | None:
        return credentials if host in ("registry.example", "127.0.0.1:5000") else None

    return Authenticator(
        find, realm, now=clock or Clock(), resolver=lambda host, port: ADDRESSES[host]
    )


def test_the_handshake_asks_the_realm_for_what_is_wanted() -> None:
    realm = Realm()
    header = authenticator(realm).answer(REGISTRY, PUSH, BEARER, None)
    assert header == "Bearer abc1"
    assert realm.asked == [
        (
            "https://auth.example/token?service=r&scope=repository%3Aann%2Fnotes%3Apull%2Cpush",
            "Basic YW5uOnMzY3JldA==",
        )
    ]


def test_without_credentials_an_anonymous_token_is_asked_for() -> None:
    realm = Realm()
    assert authenticator(realm, None).answer(REGISTRY, PULL, BEARER, None) == "Bearer abc1"
    assert realm.asked[0][1] is None


def test_a_token_is_used_until_it_runs_out_and_for_narrower_scopes_too() -> None:
    realm, clock = Realm(), Clock()
    auth = authenticator(realm, clock=clock)
    assert auth.header(REGISTRY, PUSH) is None
    auth.answer(REGISTRY, PUSH, BEARER, None)
    assert auth.header(REGISTRY, PUSH) == "Bearer abc1"
    assert auth.header(REGISTRY, PULL) == "Bearer abc1"
    assert auth.header(REGISTRY, frozenset({"repository:bob/x:pull"})) is None
    assert auth.header(LOCAL, PULL) is None
    clock.now_s += 291
    assert auth.header(REGISTRY, PUSH) is None


def test_a_token_of_narrow_scope_is_not_used_for_more() -> None:
    auth = authenticator(Realm())
    auth.answer(REGISTRY, PULL, BEARER, None)
    assert auth.header(REGISTRY, PUSH) is None


def test_a_token_that_another_thread_got_is_tried_first() -> None:
    realm = Realm()
    auth = authenticator(realm)
    first = auth.answer(REGISTRY, PULL, BEARER, None)
    assert auth.answer(REGISTRY, PULL, BEARER, None) == first
    assert len(realm.asked) == 1
    assert auth.answer(REGISTRY, PULL, BEARER, first) == "Bearer abc2"


def test_an_api_token_goes_with_every_request_to_its_registry_and_to_no_other() -> None:
    realm = Realm()
    auth = authenticator(realm, TOKEN)
    header = auth.header(REGISTRY, PUSH)
    assert header == "Bearer t0ken"
    assert auth.header(Origin("https", "other.example", 443), PUSH) is None
    assert auth.header(Origin("https", "registry.example", 8443), PUSH) is None
    assert auth.header(REGISTRY, frozenset({"repository:any/thing:delete"})) == header
    assert auth.answer(REGISTRY, PUSH, BEARER, header) is None
    assert not realm.asked


def test_basic_is_answered_where_it_is_asked_for_and_once() -> None:
    auth = authenticator(Realm())
    header = auth.answer(REGISTRY, PULL, 'Basic realm="x"', None)
    assert header == ANN.basic
    assert auth.answer(REGISTRY, PULL, 'Basic realm="x"', header) is None


@pytest.mark.parametrize("challenge", ["Negotiate", 'Digest realm="x"', ""])
def test_schemes_that_are_not_known_are_not_answered(challenge: str) -> None:
    assert authenticator(Realm()).answer(REGISTRY, PULL, challenge, None) is None


@pytest.mark.parametrize(
    ("origin", "realm_url", "error"),
    [
        (REGISTRY, "http://auth.example/token", NetworkError),
        (REGISTRY, "http://127.0.0.1/token", NetworkError),
        (REGISTRY, "https://127.0.0.1/token", UnsafeRedirectError),
        (REGISTRY, "https://[fe80::1]/token", UnsafeRedirectError),
        (LOCAL, "http://auth.example/token", NetworkError),
        (REGISTRY, "ftp://auth.example/token", NetworkError),
        (REGISTRY, "/token", NetworkError),
        (REGISTRY, "https://ann:pw@auth.example/token", NetworkError),
    ],
)
def test_credentials_go_to_no_unsafe_realm(
    origin: Origin, realm_url: str, error: type[Exception]
) -> None:
    realm = Realm()
    with pytest.raises(error):
        authenticator(realm).answer(origin, PULL, f'Bearer realm="{realm_url}"', None)
    assert not realm.asked


@pytest.mark.parametrize(
    ("origin", "realm_url"),
    [(LOCAL, "http://127.0.0.1:6000/token"), (LOCAL, "https://auth.example/token")],
)
def test_a_registry_on_this_machine_may_have_its_realm_here_or_over_https(
    origin: Origin, realm_url: str
) -> None:
    realm = Realm()
    assert authenticator(realm).answer(origin, PULL, f'Bearer realm="{realm_url}"', None)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"token": ""}',
        b'{"token": 3}',
        b'{"token": "a b"}',
        b'{"token": "a\\r\\nHost: x"}',
        b'{"access_token": "\\u00e9"}',
    ],
)
def test_a_token_that_would_break_a_header_is_not_used(body: bytes) -> None:
    with pytest.raises(UnauthenticatedError):
        authenticator(Realm(lambda n: body)).answer(REGISTRY, PULL, BEARER, None)


@pytest.mark.parametrize("life", ["-1", "0", "true", '"soon"', "null"])
def test_a_senseless_life_counts_as_a_minute(life: str) -> None:
    clock = Clock()
    auth = authenticator(
        Realm(lambda n: f'{{"token": "abc", "expires_in": {life}}}'.encode()), clock=clock
    )
    auth.answer(REGISTRY, PULL, BEARER, None)
    clock.now_s += 49
    assert auth.header(REGISTRY, PULL) or life == "true"
    clock.now_s += 2
    assert auth.header(REGISTRY, PULL) is None


def test_scopes_of_one_repository_are_joined() -> None:
    scopes: list[Any] = ["repository:a:pull", "repository:b:pull", "repository:a:push,pull", "x"]
    assert merge_scopes(scopes) == ["repository:a:pull,push", "repository:b:pull"]
