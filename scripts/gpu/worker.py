"""A task in its own process: its rows go to the pipe, one by one."""

import json
import os
import sys
from typing import Any

from gpu import bare, plan
from gpu.processes import die_with_parent


def run(task: dict[str, Any]) -> None:
    """A task: `part`, `engine`, `model`, `done`, `settings`, `ceiling`, and `rows`, the pipe's descriptor."""
    die_with_parent()
    os.set_inheritable(task["rows"], False)  # a program of this task must not keep the pipe open
    bare.stand_in()
    settings = plan.Settings.from_json(task["settings"])
    if settings.device == "cpu":
        import torch

        torch.set_num_threads(1)  # two that wait for each other beside other work can be a hundred times slower
    with os.fdopen(task["rows"], "w", encoding="utf-8") as pipe:

        def emit(row: dict[str, Any]) -> None:
            print(json.dumps(row, default=str), file=pipe, flush=True)

        done = set(task["done"])
        work = plan.Work(settings, task["engine"], task["model"], done, emit, task["ceiling"])
        plan.perform(task["part"], work)


def main() -> int:
    """The program of a task: it comes on standard input."""
    run(json.load(sys.stdin))
    return 0
