"""Chaos: clients work on a registry while its processes are killed; afterwards a checker compares.

    make chaos                             a bounded run on SQLite and local files
    PYTHONPATH=tests python -m chaos --kills 100 --seed 7 --profile postgres-s3 --minutes 20

    plan        what happens, from the seed alone: operations, contents, kills and when
    contents    the bytes of blobs and manifests, from the seed alone
    clients     threads that speak HTTP, and `memcube` processes; they keep the journal
    journal     what was acknowledged, what was refused, what nobody knows
    deployment  the registry, its database and its store, to be killed and begun again
    monkey      kills, fills the disk, moves the clock
    model       which final states the journal permits
    checker     compares them with what is there, by code of its own
    report      docs/chaos.md

docs/chaos.md says what the runs found, and what they cannot show.
"""
