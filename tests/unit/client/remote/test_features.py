from __future__ import annotations

import pytest
from memcube.http import HttpClient, RetryPolicy
from memcube.remote import Registry
from memcube.settings import Settings
from memcube_protocol.errors import NetworkError
from support.scripted import Answer, scripted


def registry_at(host: str) -> Registry:
    settings = Settings.load({"MEMCUBE_HOME": "/nonexistent"})
    http = HttpClient(
        settings, find_credentials=lambda host: None, retry=RetryPolicy(sleep=lambda seconds: None)
    )
    return Registry(host, http, settings)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404),
        Answer(401),
        Answer(403),
        Answer(405),
        Answer(body=b"<html>"),
        Answer(body=b"[]"),
        Answer(body=b"{}"),
        Answer(body=b'{"features": 3}'),
        Answer(body=b'{"features": {"directUpload": null}}'),
        Answer(body=b'{"features": {"directUpload": true}}'),
    ],
)
def test_a_registry_that_offers_no_direct_uploads_has_none(answer: Answer) -> None:
    with scripted(lambda request: answer) as server:
        registry = registry_at(server.host)
        assert registry.direct is None
        assert registry.direct is None
    assert server.lines() == ["GET /.well-known/memcube.json"]


def test_a_registry_that_does_not_answer_offers_nothing_that_could_be_relied_on() -> None:
    with scripted(lambda request: Answer(500)) as server, pytest.raises(NetworkError):
        _ = registry_at(server.host).features
