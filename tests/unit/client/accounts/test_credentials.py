import base64
import json
from pathlib import Path

import pytest
from memcube.accounts.credentials import Credentials, CredentialStore
from memcube.settings import Settings
from memcube_protocol.errors import InvalidRequestError, StorageError

HOST = "registry.example"
ANN = Credentials("ann", "s3cret")


def store(home: Path, **variables: str) -> CredentialStore:
    environ = {"MEMCUBE_HOME": str(home), "MEMCUBE_KEYRING": "0"} | variables
    return CredentialStore(Settings.load(environ), {"DOCKER_CONFIG": str(home / "docker")})


def test_credentials_are_kept_in_a_file_that_only_the_owner_reads(tmp_path: Path) -> None:
    where = store(tmp_path).put(HOST, ANN)
    assert Path(where).stat().st_mode & 0o777 == 0o600
    assert store(tmp_path).find(HOST) == ANN
    assert store(tmp_path).find("other.example") is None


def test_logging_out_forgets_one_host_only(tmp_path: Path) -> None:
    credentials = store(tmp_path)
    credentials.put(HOST, ANN)
    credentials.put("other.example", ANN)
    assert credentials.remove(HOST)
    assert not credentials.remove(HOST)
    assert credentials.find("other.example") == ANN


def test_the_token_variable_is_for_the_default_registry_and_no_other(tmp_path: Path) -> None:
    credentials = store(tmp_path, MEMCUBE_TOKEN="t0ken", MEMCUBE_ENDPOINT=f"https://{HOST}")
    credentials.put(HOST, ANN)
    assert credentials.find(HOST) == Credentials("", "t0ken")
    assert credentials.find("other.example") is None


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = Path(store(tmp_path).put(HOST, ANN))
    path.chmod(0o644)
    with pytest.raises(StorageError, match="read by others") as caught:
        store(tmp_path).find(HOST)
    assert "chmod" in str(caught.value.hint)


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"registry.example": 3}'])
def test_a_damaged_file_is_an_error_that_shows_nothing_of_it(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "credentials.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(StorageError, match="damaged"):
        store(tmp_path).find(HOST)


def test_a_login_of_docker_is_found_last(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    auth = base64.b64encode(b"docker:pass").decode()
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": {HOST: {"auth": auth}}}))
    assert store(tmp_path).find(HOST) == Credentials("docker", "pass")
    store(tmp_path).put(HOST, ANN)
    assert store(tmp_path).find(HOST) == ANN


@pytest.mark.parametrize(("name", "secret"), [("a:b", "x"), ("a", ""), ("a", "x\r\nHost: y")])
def test_credentials_that_would_break_a_header_are_refused(name: str, secret: str) -> None:
    with pytest.raises(InvalidRequestError):
        Credentials(name, secret)


def test_secrets_show_in_no_representation() -> None:
    assert "s3cret" not in repr(ANN)
