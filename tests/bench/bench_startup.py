"""How long the command line takes to start, against an interpreter that does nothing."""

import sys
from functools import partial

from support.measuring import alternate, measure, report
from support.servers import clean_environment, command

ROUNDS = 15


def test_start_of_the_command_line() -> None:
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        'python -c "import memcube"': [sys.executable, "-c", "import memcube"],
        "memcube --help": [command("memcube"), "--help"],
    }
    environment = clean_environment()
    costs = alternate(
        {name: partial(measure, words, env=environment) for name, words in commands.items()},
        ROUNDS,
    )
    bare = costs["python -c pass"]
    rows = [
        [
            name,
            round(cost.wall_s * 1000),
            round((cost.wall_s - bare.wall_s) * 1000),
            round(cost.client_cpu_s * 1000),
        ]
        for name, cost in costs.items()
    ]
    columns = ["command", "wall ms", "more than bare Python, ms", "CPU ms"]
    report("startup", f"Start-up, medians of {ROUNDS} runs", columns, rows)
