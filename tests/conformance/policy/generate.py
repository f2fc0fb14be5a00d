"""Writes policies.json: policies to accept with the scope that decides, and policies to refuse."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from memcube_signing.transparency.checkpoint import NoteKey
from support.signing import ALICE, EDDIE

KEY = base64.b64encode(ALICE.public_key.der).decode()
OTHER = base64.b64encode(EDDIE.public_key.der).decode()
LOG_KEY = str(NoteKey("a.example", EDDIE.public_key))
HEAD = f'format = 1\n[keys]\nalice = "{KEY}"\neddie = "{OTHER}"\n'
SCOPES = (
    '[scopes."registry.example/alice/**"]\npublishers = ["alice"]\n'
    '[scopes."registry.example/alice/notes"]\npublishers = ["alice", "eddie"]\nthreshold = 2\n'
    '[scopes."*.example/*/notes"]\nmode = "warn"\n[scopes."**"]\npublishers = []\n'
)
NAMES = {
    "registry.example/alice/notes": "registry.example/alice/notes",
    "registry.example/alice/other/notes": "registry.example/alice/**",
    "registry.example/bob/notes": "*.example/*/notes",
    "other.example:5000/bob/notes": "**",
    "registry.example/alice": "**",
    "registry.example/a1ice/facts": "**",
}


def scope(body: str) -> str:
    return f'{HEAD}[scopes."registry.example/alice/**"]\n{body}\n'


ACCEPT = [
    {"name": "no scope at all", "policy": "format = 1\n", "decides": {"a.example/b/c": "default"}},
    {
        "name": "a scope that demands CI jobs",
        "policy": scope(
            'jobs = [{issuer = "https://ci.example", subject = "repo:alice/memories:*", '
            'claims = {ref = "refs/tags/*"}}]'
        ),
        "decides": {"registry.example/alice/notes": "registry.example/alice/**"},
    },
    {
        "name": "a scope that demands the registry's countersignature, by a key of the policy",
        "policy": scope('countersignature = "required"')
        + f'[registries]\n"registry.example" = "{KEY}"\n',
        "decides": {"registry.example/alice/notes": "registry.example/alice/**"},
    },
    {"name": "the closest scope decides alone", "policy": HEAD + SCOPES, "decides": NAMES},
]
REJECT = {
    "no format": "[keys]\n",
    "another format": "format = 2\n",
    "not TOML": "format = ",
    "an unknown word": scope("publisher = []"),
    "an unknown table": "format = 1\n[rules]\n",
    "a key that is not named": scope('publishers = ["bob"]'),
    "a threshold that cannot be met": scope('publishers = ["alice"]\nthreshold = 2'),
    "one key counted twice": scope('publishers = ["alice", "alice"]\nthreshold = 2'),
    "a duration in words": scope('max_staleness = "a day"'),
    "an unknown mode": scope('mode = "lax"'),
    "an unknown demand": scope('log = "always"'),
    "an unknown demand of countersignatures": scope('countersignature = "always"'),
    "a registry whose key is none": 'format = 1\n[registries]\n"a.example" = "eA=="\n',
    "a registry that is no host": f'format = 1\n[registries]\n"a.example/b" = "{KEY}"\n',
    "a registry in upper case": f'format = 1\n[registries]\n"A.example" = "{KEY}"\n',
    "a log of a host in upper case": f'format = 1\n[logs]\n"A.example" = "{LOG_KEY}"\n',
    "a log of a host with its usual port": f'format = 1\n[logs]\n"a.example:443" = "{LOG_KEY}"\n',
    "no job at all": scope("jobs = []"),
    "a job without issuer": scope('jobs = [{subject = "x"}]'),
    "a job without claims": scope('jobs = [{issuer = "https://ci.example"}]'),
    "an open end within a word": scope(
        'jobs = [{issuer = "https://ci.example", claims = {ref = "refs/heads/ma*"}}]'
    ),
    "a word about jobs that is unknown": scope(
        'jobs = [{issuer = "https://ci.example", workflow = "release.yml"}]'
    ),
    "a witness that is not named": scope('witnesses = ["w"]'),
    "a wildcard in the middle": 'format = 1\n[scopes."a.example/**/c"]\n',
    "a host alone": 'format = 1\n[scopes."a.example"]\n',
    "a host in upper case": 'format = 1\n[scopes."A.example/b"]\n',
    "a look-alike letter": 'format = 1\n[scopes."registry.example/аlice/**"]\n',
    "a mapping from a wildcard": 'format = 1\n[scopes."a.example/*"]\norigin = "b.example/c"\n',
    "a key that is none": 'format = 1\n[keys]\na = "eA=="\n',
}


def document() -> dict:
    return {
        "about": "docs/spec/policy.md; `decides` maps names to the scope that decides about them",
        "accept": ACCEPT,
        "reject": [
            {"name": name, "policy": policy, "code": "invalid-policy"}
            for name, policy in REJECT.items()
        ],
    }


if __name__ == "__main__":
    path = Path(__file__).with_name("policies.json")
    path.write_text(json.dumps(document(), indent=1, ensure_ascii=False) + "\n", "utf-8")
