"""Verifying a pulled cube of 1 GiB, beside OpenSSF's model_signing over the same files and signature."""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bench.bench_client import fresh_machine, make_cube, scratch
from memcube.trust import Attestation, Question, judge_cube
from memcube.trust.pins import Pins
from memcube_protocol import media_types, oci
from memcube_protocol.reference import Reference
from memcube_signing import referrer
from memcube_signing.release import PREDICATE_TYPE
from support.measuring import GIB, Cost, alternate, measure, report
from support.servers import command
from support.signing import ALICE, ORIGIN, manifest, signed

__all__ = ["scratch"]
FILES = 16
ROUNDS = 3
OPEN = "import sys; from memcube.client import Client; Client().open(sys.argv[1])"
IMPORT = "import memcube.client"


def test_verifying_a_pulled_cube(scratch: Path) -> None:
    if shutil.which("model_signing") is None:
        pytest.skip("model_signing is not installed (.ci/model-signing installs it)")
    folder = make_cube(scratch / "cube", FILES, GIB // FILES)
    with fresh_machine(scratch / "ours") as (machine, _):
        machine.ok("push", folder, "--public")
        machine.ok("pull", "bench/cube")
        machine.ok("unpack", "bench/cube", scratch / "out")
        machine.ok("provenance", "bench/cube", "--export", scratch / "proof")
        environ = machine.environment
        theirs = [
            *("model_signing", "verify", "key", str(scratch / "out")),
            *("--signature", str(scratch / "proof" / "model-signature.1.sigstore.json")),
            *("--public_key", str(scratch / "proof" / "publisher.pem")),
        ]

        def run(arguments: list[str]) -> Cost:
            return measure(arguments, env=environ)

        costs = alternate(
            {
                "model_signing verify": lambda: run(theirs),
                "memcube verify: every byte hashed anew": lambda: run(
                    [command("memcube"), "verify", "bench/cube", "--offline"]
                ),
                "memcube open: hashed by the transfer": lambda: run(
                    [sys.executable, "-c", OPEN, "bench/cube"]
                ),
                "start of model_signing alone": lambda: run(["model_signing", "--help"]),
                "start of memcube alone": lambda: run([sys.executable, "-c", IMPORT]),
            },
            ROUNDS,
        )
    rows: list[tuple[object, ...]] = [
        (name, cost.client_cpu_s, cost.wall_s) for name, cost in costs.items()
    ]
    decision = f"{1000 * decision_s():.1f} ms"
    rows.append(("memcube: the decision alone, in the process", decision, decision))
    report(
        "verify",
        f"Verifying a pulled cube of 1 GiB in {FILES} files: CPU of the process, medians of {ROUNDS}",
        ("", "CPU s", "wall s"),
        rows,
    )


def decision_s() -> float:
    """Seconds of one decision: release, signature, pins, statements."""
    bundle = signed()
    subject = oci.Descriptor(media_types.OCI_MANIFEST, manifest().digest, 1)
    attached = referrer.write(bundle, PREDICATE_TYPE, subject, ALICE.public_key)
    question = Question(
        Reference.parse(f"{ORIGIN}:latest"),
        manifest(),
        [Attestation(attached, bundle.raw)] * 4,
        Pins(),
        datetime(2026, 2, 1, tzinfo=UTC),
    )
    times = []
    for _ in range(50):
        started = time.perf_counter()
        assert judge_cube(question).error is None
        times.append(time.perf_counter() - started)
    return statistics.median(times)
