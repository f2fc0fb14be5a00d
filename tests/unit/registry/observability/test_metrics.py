"""Metrics have few labels, and none that names anything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube_registry.jobs.service import Figures
from memcube_registry.observability.metrics import Metrics, route_class

CLASSES = {
    "v2", "upload", "blob", "manifest", "tags", "referrers", "api", "token", "health", "metrics",
    "well-known", "docs", "hub", "hub file", "other",
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2/", "v2"),
        ("/v2/alice/notes/blobs/sha256:0", "blob"),
        ("/v2/alice/notes/blobs/uploads/", "upload"),
        ("/v2/alice/notes/blobs/uploads/0123", "upload"),
        ("/v2/alice/manifests/notes/manifests/latest", "manifest"),
        ("/v2/alice/notes/tags/list", "tags"),
        ("/v2/alice/notes/referrers/sha256:0", "referrers"),
        ("/api/v1/me", "api"),
        ("/api/whoami-v2", "hub"),
        ("/api/models/alice/notes/tree/main", "hub"),
        ("/alice/notes/resolve/main/README.md", "hub file"),
        ("/datasets/alice/notes/resolve/main/README.md", "hub file"),
        ("/token", "token"),
        ("/readyz", "health"),
        ("/.well-known/memcube.json", "well-known"),
        ("/alice", "other"),
        ("", "other"),
    ],
)
def test_a_path_has_a_class(path: str, expected: str) -> None:
    assert route_class(path) == expected


@given(st.text(max_size=80))
def test_every_path_has_one_of_a_few_classes(path: str) -> None:
    assert route_class(path) in CLASSES
    assert route_class("/" + path) in CLASSES


JOBS = [("queued", 4.0), ("running", 0.0), ("dead", 2.0)]


def test_figures_add_up_and_odd_methods_share_a_label() -> None:
    metrics = Metrics()
    metrics.count_job("countersign", "done")
    for method in ("GET", "GET", "BREW", "WHEN"):
        metrics.record(route="blob", method=method, status=200, duration_s=0.1, received=5, sent=7)
    text = metrics.exposition(uploads_open=3, jobs=Figures(queued=4, dead=2, oldest_s=90)).decode()
    assert 'memcube_requests_total{method="GET",route="blob",status="200"} 2.0' in text
    assert 'memcube_requests_total{method="other",route="blob",status="200"} 2.0' in text
    assert 'memcube_received_bytes_total{route="blob"} 20.0' in text
    assert 'memcube_sent_bytes_total{route="blob"} 28.0' in text
    assert "memcube_uploads_open 3.0" in text
    assert 'memcube_job_tries_total{kind="countersign",outcome="done"} 1.0' in text
    assert [f'memcube_jobs{{state="{name}"}} {count}' in text for name, count in JOBS] == [True] * 3
    assert "memcube_jobs_oldest_seconds 90.0" in text
