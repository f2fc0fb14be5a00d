from pathlib import Path

import pytest
from memcube.settings import Endpoint, Settings, is_loopback
from memcube_protocol.errors import InvalidSettingError


def load(home: Path, config: str = "", **variables: str) -> Settings:
    if config:
        (home / "config.toml").write_text(config, "utf-8")
    return Settings.load({"MEMCUBE_HOME": str(home)} | variables)


def test_without_settings_the_registry_on_this_machine_is_the_default(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.endpoint.url == "http://127.0.0.1:7070"
    assert settings.store_path == tmp_path / "store"
    assert not settings.offline


def test_variables_win_over_the_file(tmp_path: Path) -> None:
    settings = load(tmp_path, 'endpoint = "https://a.example"\nparallel = 2', MEMCUBE_PARALLEL="7")
    assert settings.endpoint == Endpoint("https", "a.example")
    assert settings.parallel == 7


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ('endpiont = "x"', "endpiont"),
        ("parallel = 0", "parallel"),
        ('parallel = "many"', "parallel"),
        ('offline = "perhaps"', "offline"),
        ('insecure = "host"', "insecure"),
        ('endpoint = "ftp://host"', "endpoint"),
        ('endpoint = "https://host/path"', "endpoint"),
        ("endpoint = 3", "endpoint"),
        ("endpoint = [", "config.toml"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path: Path, config: str, named: str) -> None:
    with pytest.raises(InvalidSettingError, match=named) as caught:
        load(tmp_path, config)
    assert caught.value.hint


def test_plain_http_to_another_machine_has_to_be_allowed(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match="unencrypted"):
        load(tmp_path, MEMCUBE_ENDPOINT="http://registry.example")
    settings = load(
        tmp_path,
        MEMCUBE_ENDPOINT="http://registry.example",
        MEMCUBE_INSECURE="registry.example, other.example:5000",
    )
    assert settings.endpoint.scheme == "http"
    assert settings.endpoint_of("other.example:5000").scheme == "http"
    assert settings.endpoint_of("third.example").scheme == "https"


def test_a_token_shows_in_no_representation_and_holds_no_spaces(tmp_path: Path) -> None:
    assert "s3cret" not in repr(load(tmp_path, MEMCUBE_TOKEN="s3cret"))
    with pytest.raises(InvalidSettingError) as caught:
        load(tmp_path, MEMCUBE_TOKEN="s3cret and more")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("host", ["localhost", "localhost:80", "127.3.2.1:5000", "[::1]:5000"])
def test_loopback_is_known_in_all_its_forms(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["localhost.example", "128.0.0.1", "[::2]", "127.0.0.1.example"])
def test_what_only_looks_like_loopback_is_not(host: str) -> None:
    assert not is_loopback(host)


def test_one_registry_has_one_spelling(tmp_path: Path) -> None:
    settings = load(tmp_path, MEMCUBE_ENDPOINT="https://Registry.Example:443")
    assert settings.endpoint.host == "registry.example"
    assert settings.endpoint_of("REGISTRY.example:443") == settings.endpoint
    assert settings.endpoint_of("localhost:80") == Endpoint("http", "localhost")
    assert settings.endpoint_of("localhost:443") == Endpoint("http", "localhost:443")


def test_direct_uploads_are_on_unless_they_are_forbidden(tmp_path: Path) -> None:
    assert load(tmp_path).direct
    assert not load(tmp_path, MEMCUBE_DIRECT="0").direct
    assert not load(tmp_path, "direct = false").direct
