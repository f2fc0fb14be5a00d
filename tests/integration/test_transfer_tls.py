"""Transfers over TLS and through a proxy: the same bytes, and no trust without a reason."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from memcube.http import FileBody, HttpClient, Request, RetryPolicy
from memcube.settings import Settings
from memcube_protocol.errors import NetworkError
from support.scripted import Answer, Scripted, scripted

CONTENT = os.urandom(9_000_000)


@dataclass
class Authority:
    """A certificate for 127.0.0.1 that signs itself, and its key."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder, key = tmp_path_factory.mktemp("tls"), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "memcube test")])
    now = datetime.datetime.now(datetime.UTC)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(here, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    found = Authority(folder / "certificate.pem", folder / "key.pem")
    found.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    found.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return found


@pytest.fixture
def server(authority: Authority) -> Iterator[Scripted]:
    with scripted(lambda request: Answer(body=CONTENT), tls=authority.context()) as found:
        yield found


def client(waits: list[float]) -> HttpClient:
    settings = Settings.load({"MEMCUBE_HOME": "/nonexistent"})
    retry = RetryPolicy(sleep=waits.append)
    return HttpClient(settings, find_credentials=lambda host: None, retry=retry)


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(server: Scripted) -> None:
    waits: list[float] = []
    with pytest.raises(NetworkError, match="certificate"):
        client(waits).send(Request("GET", f"https://{server.host}/"))
    assert not waits
    assert not server.received


def test_files_go_up_and_come_down_over_tls(
    server: Scripted, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    path, sent = tmp_path / "blob", []
    path.write_bytes(CONTENT)
    http = client([])
    body = FileBody(path, 1000, len(CONTENT) - 1000, sent.append)
    http.send(Request("PUT", f"https://{server.host}/", body=body)).close()
    assert server.received[0].body == CONTENT[1000:]
    assert sum(sent) == len(CONTENT) - 1000
    with http.send(Request("GET", f"https://{server.host}/")) as response:
        assert response.content(len(CONTENT)) == CONTENT
    http.close()


def test_a_proxy_is_used_for_other_machines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.load(
        {"MEMCUBE_HOME": "/nonexistent", "MEMCUBE_INSECURE": "registry.test:5000"}
    )
    http = HttpClient(settings, find_credentials=lambda host: None)
    with scripted(lambda request: Answer()) as proxy, scripted(lambda request: Answer()) as here:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        http.send(Request("GET", "http://registry.test:5000/v2/")).close()
        http.send(Request("GET", f"{here.url}/v2/")).close()
        assert proxy.lines() == ["GET http://registry.test:5000/v2/"]
        assert here.lines() == ["GET /v2/"]
    http.close()
