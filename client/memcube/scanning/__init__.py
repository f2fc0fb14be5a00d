"""Scanning a cube before it is published and before it is mounted (docs/spec/scanning.md).

    scan = scan_cube(cube, LayerScanner(blobs), name="registry.example/alice/notes", now=now)
    scan.findings, scan.counts          a statement to sign: memcube_signing.predicates.scan

Rules are documented regular expressions with checks of their own (checksums, entropy), looked for only
where a literal that every match contains occurs. Nothing that is found is kept or shown: a finding
names the rule and the place.
"""
