import pytest
from memcube.http.origins import Origin, Reach, follow, reach_of_address
from memcube_protocol.errors import NetworkError, UnsafeRedirectError

ADDRESSES = {
    "registry.example": ["93.184.215.14"],
    "cdn.example": ["151.101.1.69"],
    "inside.example": ["10.0.0.5"],
    "store.inside.example": ["10.0.0.6"],
    "rebound.example": ["93.184.215.14", "127.0.0.1"],
    "metadata.example": ["169.254.169.254"],
    "mapped.example": ["::ffff:127.0.0.1"],
}


def resolver(host: str, port: int) -> list[str]:
    return ADDRESSES[host]


def lead(base: str, location: str) -> str:
    return follow(Origin.of(base), base, location, resolver=resolver)[0]


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://a.example/x", Origin("https", "a.example", 443)),
        ("http://A.example:5000", Origin("http", "a.example", 5000)),
        ("https://[::1]:5000/", Origin("https", "::1", 5000)),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, origin: Origin) -> None:
    assert Origin.of(url) == origin
    assert Origin.of(str(origin)) == origin


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/v2/",
        "ftp://a",
        "file:///etc/passwd",
        "http://",
        "http://u:p@a/",
        "http://:p@a/",
        "http://@a/",
        "http://:@127.0.0.1:8080\\@a/",
        "http://127.0.0.1\\.a/",
        "http://a%2e/",
        "http://a:x/",
        "http://a b/",
    ],
)
def test_what_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(NetworkError):
        Origin.of(url)


@pytest.mark.parametrize(
    ("base", "location", "url"),
    [
        ("https://registry.example/a/b", "/c", "https://registry.example/c"),
        ("https://registry.example/a/b", "c?d#e", "https://registry.example/a/c?d"),
        ("https://registry.example/a", "https://cdn.example/x", "https://cdn.example/x"),
        ("http://127.0.0.1:1/a", "http://127.0.0.1:2/b", "http://127.0.0.1:2/b"),
        ("http://127.0.0.1:1/a", "https://cdn.example/b", "https://cdn.example/b"),
        (
            "https://inside.example/a",
            "https://store.inside.example/b",
            "https://store.inside.example/b",
        ),
    ],
)
def test_safe_redirects_are_followed(base: str, location: str, url: str) -> None:
    assert lead(base, location) == url


@pytest.mark.parametrize(
    ("base", "location"),
    [
        ("https://registry.example/a", "http://registry.example/a"),
        ("https://registry.example/a", "http://127.0.0.1/a"),
        ("https://registry.example/a", "https://127.0.0.1/a"),
        ("https://registry.example/a", "https://[::1]/a"),
        ("https://registry.example/a", "https://localhost/a"),
        ("https://registry.example/a", "https://0.0.0.0/a"),
        ("https://registry.example/a", "https://[::ffff:127.0.0.1]/a"),
        ("https://registry.example/a", "https://10.0.0.5/a"),
        ("https://registry.example/a", "https://100.64.0.1/a"),
        ("https://registry.example/a", "https://metadata.example/a"),
        ("https://registry.example/a", "https://rebound.example/a"),
        ("https://registry.example/a", "https://mapped.example/a"),
        ("https://registry.example/a", "https://inside.example/a"),
        ("https://inside.example/a", "https://127.0.0.1/a"),
        ("https://inside.example/a", "https://169.254.169.254/a"),
        ("https://rebound.example/a", "https://inside.example/a"),
        ("https://rebound.example/a", "https://127.0.0.1/a"),
        ("http://registry.example/a", "http://cdn.example/a"),
        ("http://127.0.0.1:1/a", "http://cdn.example/b"),
    ],
)
def test_redirects_downward_or_inward_are_not_followed(base: str, location: str) -> None:
    with pytest.raises(UnsafeRedirectError):
        lead(base, location)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "gopher://x/", "javascript:1"])
def test_redirects_to_other_schemes_are_not_followed(location: str) -> None:
    with pytest.raises(NetworkError):
        lead("https://registry.example/a", location)


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("93.184.215.14", Reach.PUBLIC),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", Reach.PUBLIC),
        ("192.168.1.1", Reach.PRIVATE),
        ("fd00::1", Reach.PRIVATE),
        ("fe80::1%eth0", Reach.LINK_LOCAL),
        ("64:ff9b::a00:5", Reach.PRIVATE),
        ("64:ff9b::7f00:1", Reach.LOOPBACK),
        ("2002:c0a8:101::1", Reach.PRIVATE),
        ("64:ff9b::5db8:d70e", Reach.PUBLIC),
        ("127.9.9.9", Reach.LOOPBACK),
        ("::", Reach.LOOPBACK),
        ("224.0.0.1", Reach.LOOPBACK),
    ],
)
def test_every_address_has_a_reach(address: str, reach: Reach) -> None:
    assert reach_of_address(address) is reach
