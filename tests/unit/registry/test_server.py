"""The processes of the registry's server."""

import subprocess
import sys
from pathlib import Path

STARTING = """
import os, signal, time
from types import SimpleNamespace
from memcube_registry.server import drain_first
drain_first(SimpleNamespace(signal_handler_interrupt=lambda: None, wrks=[]), 3600)
seen, told = os.pipe()
worker = os.fork()
if worker == 0:
    os.write(told, b"forked")
    time.sleep(100)  # it imports the application and has no handlers of its own
    os._exit(1)
os.read(seen, 6)
os.kill(worker, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]))
"""


def test_a_worker_that_is_still_starting_ends_when_it_is_told_to(tmp_path: Path) -> None:
    mark = tmp_path / "draining"
    done = subprocess.run(
        [sys.executable, "-c", STARTING],
        env={"MEMCUBE_INTERNAL_DRAIN_MARK": str(mark)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0\n"
    assert not mark.exists()
