"""MemLoader: makes the memories of verified cubes usable by a model, or says why it does not.

    with memcube.mount(["alice/notes", "acme/style"], model=model, tokenizer=tokenizer) as memory:
        memory.context("Which backups are there?")     # text for a prompt
        memory.generate("Which backups are there?")    # the model's answer

Order matters: LoRA first, then the KV cache, whose key names the adapters that were active, then
the records, which fit every model. Each kind goes through the cubes in the order of their priority.
"""

from __future__ import annotations

from memcube.memories.plaintext.hit import Hit
from memcube.mounting.choosing import Asked, Names, choose
from memcube.mounting.chosen import PRIORITIES, Chosen
from memcube.mounting.forgotten import ForgottenRecord
from memcube.mounting.loading import MemLoader
from memcube.mounting.mount import mount, plan_mount
from memcube.mounting.mounted import MountedCube, MountedMemory
from memcube.mounting.offers import Wishes
from memcube.mounting.planning import Act, Plan, Planned
from memcube.mounting.sources import Overlay, RecordSource
from memcube.mounting.steps import MountStep, Step

__all__ = [
    "PRIORITIES",
    "Act",
    "Asked",
    "Chosen",
    "ForgottenRecord",
    "Hit",
    "MemLoader",
    "MountStep",
    "MountedCube",
    "MountedMemory",
    "Names",
    "Overlay",
    "Plan",
    "Planned",
    "RecordSource",
    "Step",
    "Wishes",
    "choose",
    "mount",
    "plan_mount",
]
