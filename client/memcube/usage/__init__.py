"""Behavioural indicators: which memories are used, when last, and how well they fitted. Kept here alone.

    usage = Usage.of(settings)              one for a process; nothing is opened before it is needed
    usage.mounted("host/acme/atlas", digest)
    usage.found("host/acme/atlas", [("rule-3", 7.1)])
    usage.answered([Use("host/acme/atlas", "rule-3", 7.1)])
    usage.records("host/acme/atlas", ["rule-3"])["rule-3"].strength(now)

The third class of a MemCube's metadata (docs/spec/config.md) changes with use, so it lies in a file
beside the cubes and never in one. It holds ids of records, never a text and never a question. Nothing
sends it anywhere.
"""

from __future__ import annotations

from memcube.usage.indicators import Answered, CubeUse, RecordUse, Use, Version
from memcube.usage.recorder import Usage
from memcube.usage.sidecar import Sidecar

__all__ = ["Answered", "CubeUse", "RecordUse", "Sidecar", "Usage", "Use", "Version"]
