"""Settings: where they come from, and that a wrong one is refused by its name."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube_protocol.errors import InvalidSettingError
from memcube_registry import settings
from memcube_registry.settings import Settings, load, masked, parse_size, to_environment


def test_without_anything_the_platform_holds_sqlite_and_files() -> None:
    found = load({})
    assert found.data_dir.is_absolute()
    assert found.database_url == f"sqlite:///{found.data_dir / 'registry.db'}"
    assert found.token_key_file == found.data_dir / "token.key"
    assert found.url == "http://127.0.0.1:7070"


def test_options_win_over_variables_and_these_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "registry.toml"
    file.write_text('port = 1\nhost = "0.0.0.0"\nworkers = 2\n')
    environ = {"MEMCUBE_REGISTRY_CONFIG": str(file), "MEMCUBE_REGISTRY_PORT": "2"}
    found = load({**environ, "MEMCUBE_REGISTRY_WORKERS": "3"}, options={"workers": 4})
    assert (found.host, found.port, found.workers) == ("0.0.0.0", 2, 4)


def test_the_clients_variables_are_none_of_the_servers() -> None:
    clients = {"MEMCUBE_TOKEN": "x", "MEMCUBE_ENDPOINT": "y", "MEMCUBE_HOME": "z", "PATH": "/bin"}
    assert load(clients) == load({})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "http"),
        ("PORT", ""),
        ("WORKERS", "-1"),
        ("ANONYMOUS_PULL", "perhaps"),
        ("DEFAULT_QUOTA_BYTES", "12 parsecs"),
        ("DEFAULT_QUOTA_BYTES", "1e9"),
        ("BODY_TIMEOUT_S", "0"),
        ("BODY_TIMEOUT_S", "nan"),
        ("BODY_TIMEOUT_S", "inf"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "LOUD"),
        ("EXTERNAL_URL", "ftp://example.org"),
        ("EXTERNAL_URL", "https://user@example.org"),
        ("EXTERNAL_URL", "https://example.org/path"),
        ("EXTERNAL_URL", 'https://exa"mple.org'),
        ("EXTERNAL_URL", "https://example.org\r\nx: y"),
        ("EXTERNAL_URL", "https://example.org:99999"),
        ("STORAGE", "tape"),
        ("S3_BUCKET", "Our_Bucket"),
        ("S3_BUCKET", "../etc"),
        ("S3_PREFIX", "/rooted/"),
        ("S3_PREFIX", "unended"),
        ("S3_PREFIX", "../up/"),
        ("S3_ENDPOINT_URL", "s3.example.org"),
        ("S3_ENDPOINT_URL", "https://s3.example.org/bucket"),
        ("S3_PUBLIC_URL", "https://user@s3.example.org"),
        ("S3_READS", "sometimes"),
        ("S3_URL_EXPIRY_S", "0"),
        ("S3_URL_EXPIRY_S", "604801"),
        ("HUB_REPOSITORY", "cubes"),
        ("HUB_REPOSITORY", "acme/../cubes"),
        ("HUB_REPOSITORY", "acme/cubes/more"),
        ("HUB_ENDPOINT", "hub.example.org"),
        ("HUB_ENDPOINT", "https://user@hub.example.org"),
        ("HUB_READS", "sometimes"),
        ("TRUSTED_PROXIES", "10.0.0.0/8,everybody"),
        ("COLOUR", "blue"),
    ],
)
def test_a_wrong_variable_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(InvalidSettingError, match=f"MEMCUBE_REGISTRY_{name}") as caught:
        load({f"MEMCUBE_REGISTRY_{name}": value})
    assert caught.value.hint


def test_a_blob_of_one_request_is_no_larger_than_s3_takes() -> None:
    assert load({}, options={"s3_whole_bytes": "5GiB"}).s3_whole_bytes == 5 << 30
    with pytest.raises(InvalidSettingError, match="s3_whole_bytes"):
        load({}, options={"s3_whole_bytes": "6GiB"})


def test_s3_without_a_bucket_is_refused_by_the_name_of_what_is_missing() -> None:
    with pytest.raises(InvalidSettingError, match="MEMCUBE_REGISTRY_S3_BUCKET"):
        load({"MEMCUBE_REGISTRY_STORAGE": "s3"})
    assert load({}, options={"storage": "s3", "s3_bucket": "our-cubes"}).s3_reads == "redirect"


def test_the_hub_without_a_repository_is_refused_by_the_name_of_what_is_missing() -> None:
    with pytest.raises(InvalidSettingError, match="MEMCUBE_REGISTRY_HUB_REPOSITORY"):
        load({"MEMCUBE_REGISTRY_STORAGE": "hub"})
    chosen = load({}, options={"storage": "hub", "hub_repository": "acme/cubes"})
    assert chosen.hub_staging_dir == chosen.data_dir / "staging"


@pytest.mark.parametrize(
    "text",
    ["prot = 1", "port = true", 'port = "1"x', "host = 1", "data_dir = 3", "[port]\nx = 1"],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "registry.toml"
    file.write_text(text)
    with pytest.raises(InvalidSettingError):
        load({}, file=file)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match=r"absent\.toml"):
        load({}, file=tmp_path / "absent.toml")


def test_workers_get_the_same_settings_through_the_environment(tmp_path: Path) -> None:
    found = Settings(data_dir=tmp_path, anonymous_pull=False, drain_s=0.25, port=8, workers=2)
    assert load(to_environment(found)) == found


@given(st.integers(0, 10**6), st.sampled_from(["", "KiB", "MiB", "GiB", " TiB"]))
def test_sizes_are_binary(count: int, unit: str) -> None:
    power = ["", "KiB", "MiB", "GiB", "TiB"].index(unit.strip())
    assert parse_size("x", f"{count}{unit}") == count * 1024**power


@given(st.text(max_size=40))
def test_any_text_as_a_setting_is_taken_or_refused_with_our_error(text: str) -> None:
    for name in ("PORT", "EXTERNAL_URL", "TRUSTED_PROXIES", "DEFAULT_QUOTA_BYTES", "DRAIN_S"):
        try:
            load({f"MEMCUBE_REGISTRY_{name}": text, "MEMCUBE_REGISTRY_DATA_DIR": "/x"})
        except InvalidSettingError:
            continue


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:9"),
        ("::", "http://[::1]:9"),
        ("::1", "http://[::1]:9"),
        ("10.1.2.3", "http://10.1.2.3:9"),
    ],
)
def test_the_url_is_one_that_a_client_can_use(host: str, url: str) -> None:
    assert Settings(host=host, port=9).url == url


def test_the_service_is_host_and_port_of_the_external_url() -> None:
    found = Settings(external_url="https://memcube.example.org/")
    assert (found.url, found.service) == ("https://memcube.example.org", "memcube.example.org")


def test_passwords_are_not_shown() -> None:
    shown = masked(Settings(database_url="postgresql://memcube:hunter2@db:5432/memcube"))
    assert shown["database_url"] == "postgresql://memcube:***@db:5432/memcube"
    assert masked(Settings(hub_token="hf_secret"))["hub_token"] == "***"
    assert masked(Settings())["hub_token"] == ""


def test_the_guide_lists_every_setting_as_the_code_has_it() -> None:
    guide = Path(__file__).parents[3] / "docs" / "guide" / "settings.md"
    assert guide.read_text(encoding="utf-8") == settings.guide(), "run `make docs`"


def test_there_is_a_process_for_each_core_and_no_more_than_four() -> None:
    cores = len(os.sched_getaffinity(0))
    assert load({}).workers == min(cores, 4)
    assert load({"MEMCUBE_REGISTRY_WORKERS": "7"}).workers == 7
