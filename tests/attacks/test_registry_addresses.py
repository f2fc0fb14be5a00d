"""Senders that share a rate limit with others, or get out of it."""

import ipaddress

import pytest
from memcube_registry.http.gate import client_address, network_of

PROXIES = (ipaddress.ip_network("10.0.0.0/8"),)


def sender(client: str, forwarded: str = "") -> str:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    return network_of(client_address({"client": (client, 1), "headers": headers}, PROXIES))


def test_ipv4_senders_of_a_socket_for_both_families_do_not_share_one_limit() -> None:
    assert sender("::ffff:192.0.2.1") == sender("192.0.2.1") == "192.0.2.1"
    assert sender("::ffff:192.0.2.1") != sender("::ffff:192.0.2.2")


@pytest.mark.parametrize("spelling", ["192.0.2.9", "::ffff:192.0.2.9", "::FFFF:c000:209"])
def test_no_spelling_of_an_address_is_another_sender(spelling: str) -> None:
    assert sender("::ffff:10.1.2.3", spelling) == "192.0.2.9"
