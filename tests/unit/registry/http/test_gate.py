"""The gate's parts: whose address counts."""

import ipaddress

import pytest
from memcube_registry.http.gate import client_address, network_of

PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128"))


def scope(client: str | None, *forwarded: str) -> dict[str, object]:
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    return {"client": (client, 1) if client else None, "headers": headers}


@pytest.mark.parametrize(
    ("client", "forwarded", "expected"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.9"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.9"], "198.51.100.9"),
        ("10.0.0.1", ["203.0.113.5, 198.51.100.9"], "198.51.100.9"),
        ("10.0.0.1", ["203.0.113.5, 198.51.100.9, 10.2.3.4"], "198.51.100.9"),
        ("10.0.0.1", ["203.0.113.5", "198.51.100.9"], "198.51.100.9"),
        ("10.0.0.1", ["203.0.113.5, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["10.9.9.9"], "10.9.9.9"),
        ("::1", ["2001:db8::7"], "2001:db8::7"),
        (None, ["198.51.100.9"], "unknown"),
    ],
)
def test_only_trusted_proxies_are_believed_and_only_the_last_stranger_counts(
    client: str | None, forwarded: list[str], expected: str
) -> None:
    assert client_address(scope(client, *forwarded), PROXIES) == expected


def test_without_trusted_proxies_the_header_is_nothing() -> None:
    assert client_address(scope("10.0.0.1", "198.51.100.9"), ()) == "10.0.0.1"


def test_an_ipv6_network_is_one_sender() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:2") == "2001:db8::/64"
    assert network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("unknown") == "unknown"
