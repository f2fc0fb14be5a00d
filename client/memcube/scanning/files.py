"""Rules for files that are more than data, told by their first bytes and their names."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Final

from memcube_signing.predicates.scan import Finding

_CHECK: Final = "unsafe-files"
_SIGNATURES: Final = (
    (b"\x7fELF", "native-program"),
    (b"MZ", "native-program"),
    (b"\xcf\xfa\xed\xfe", "native-program"),
    (b"\xca\xfe\xba\xbe", "native-program"),
    (b"\x00asm", "native-program"),
    (b"#!", "script"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "office-document-with-macros"),
    (b"L\x00\x00\x00\x01\x14\x02\x00", "shortcut"),
)
_NAMES: Final = re.compile(
    r"(?i)\.(?:exe|dll|so|dylib|scr|com|bat|cmd|ps1|vbs|js|mjs|wsf|hta|lnk|jar|class|msi|apk|sh|py|pyc"
    r"|pkl|pickle|joblib|pt|pth|ckpt|npy|h5|keras|docm|xlsm|pptm)$"
)
_PICKLE: Final = re.compile(rb"\x80[\x02-\x05]")
_ACTIVE_TEXT: Final = re.compile(
    rb"(?i)<script[\s>]|javascript:|\son(?:load|error|click)\s*=|/JavaScript|/Launch|/OpenAction"
)
_MARKUP: Final = re.compile(rb"(?i)^\s*(?:<!doctype html|<html|<svg|<\?xml|%PDF-)")
HEAD_BYTES: Final = 1024 * 1024
"""How much of a text, an archive or a document is looked at."""
SAMPLE_BYTES: Final = 16 * 1024
"""How much of any other data."""


def scan_file(path: str, head: bytes) -> Iterator[Finding]:
    """Findings about a file called `path` that begins with `head` (up to 1 MiB)."""
    if _NAMES.search(path):
        yield Finding(_CHECK, "name-of-a-program", "medium", path)
    for signature, rule in _SIGNATURES:
        if head.startswith(signature):
            yield Finding(_CHECK, rule, "high", path)
    if is_pickle(head):
        yield Finding(_CHECK, "pickle", "high", path)
    if head.startswith(b"PK\x03\x04"):
        yield from _archive(path, head)
    if _MARKUP.match(head) and _ACTIVE_TEXT.search(head):
        yield Finding(_CHECK, "active-document", "medium", path)


def needs_head(sample: bytes) -> bool:
    """Whether more than the `sample` has to be seen: of archives, whose names lie apart, and documents."""
    return sample.startswith(b"PK\x03\x04") or _MARKUP.match(sample) is not None


def is_pickle(head: bytes) -> bool:
    """Whether `head` begins a pickle: read as instructions, and never executed."""
    if not _PICKLE.match(head):
        return False
    import pickletools  # hardly any file gets this far

    try:
        for number, _ in enumerate(pickletools.genops(io.BytesIO(head))):
            if number >= 3:
                return True
    except Exception:  # genops fails in many ways on what is no pickle
        return False
    return True


def _archive(path: str, head: bytes) -> Iterator[Finding]:
    """A zip archive holds pickles where torch wrote it, and classes where Java did."""
    try:
        names = zipfile.ZipFile(io.BytesIO(head)).namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        names = []
    if any(name.endswith((".pkl", "/data.pkl")) for name in names) or b"data.pkl" in head:
        yield Finding(_CHECK, "pickle-in-archive", "high", path)
    elif any(name.endswith((".class", "vbaProject.bin")) for name in names):
        yield Finding(_CHECK, "program-in-archive", "high", path)
    elif "[Content_Types].xml" not in names:
        yield Finding(_CHECK, "archive", "low", path)
