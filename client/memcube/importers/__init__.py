"""Reading memories of other systems as records: nothing is lost, nothing is run, no secret is kept."""

from memcube.importers.jsonl import read_jsonl
from memcube.importers.markdown import read_markdown_folder
from memcube.importers.memos import is_memos, read_memos
from memcube.importers.report import Imported, ImportReport

__all__ = [
    "ImportReport",
    "Imported",
    "is_memos",
    "read_jsonl",
    "read_markdown_folder",
    "read_memos",
]
