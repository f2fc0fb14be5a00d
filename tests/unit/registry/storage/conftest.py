"""Fixtures of the blob drivers' tests: credentials, and parts so small that several fit into a test."""

import pytest
from memcube_registry.storage.s3 import writing
from support.swift import SwiftServer

PART_BYTES = 5 << 20
"""The least that S3 takes for a part which is not the last."""


@pytest.fixture
def s3(s3_server: SwiftServer, monkeypatch: pytest.MonkeyPatch) -> SwiftServer:
    """A real S3 server whose credentials this process has; parts and checkpoints are 5 MiB."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(writing, "PART_BYTES", PART_BYTES)
    monkeypatch.setattr(writing, "CHECKPOINT_BYTES", PART_BYTES)
    return s3_server
