"""Hostile input, a sample of each kind: no crash, hang, traceback, internal error or silent difference."""

import random
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hostile import collected, small_job
from hostile.case import Case, Verdict, judged

CASES = collected.cases(range(1))
KINDS = sorted({case.kind for case in CASES})
SLOW_KINDS = {"during a run", "full disk", "memory", "two processes"}  # seconds each: not in the sample


@pytest.fixture(scope="module", autouse=True)
def finished_job(small: Path) -> None:
    small_job.use(small)


def faults(cases: list[Case]) -> list[Verdict]:
    def work(case: Case) -> Verdict:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            return judged(case, Path(folder))

    with ThreadPoolExecutor(2) as pool:
        return [found for found in pool.map(work, cases) if found.fault]


def test_a_sample_of_hostile_cases() -> None:
    dice = random.Random(19)
    kinds = [kind for kind in KINDS if kind not in SLOW_KINDS]
    sample = [dice.choice([case for case in CASES if case.kind == kind]) for kind in kinds]
    assert not faults(sample)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_cases(kind: str) -> None:
    assert not faults([case for case in CASES if case.kind == kind])


def test_a_crash_a_hang_and_a_traceback_are_told() -> None:
    """The judge itself."""
    found = {}
    for name, code in {
        "crash": "import os; os.abort()",
        "hang": "import time; time.sleep(99)",
        "traceback": "1 / 0",
    }.items():
        case = Case(name, "judge", lambda _, code=code: ["-c", code], seconds=1.0)
        found[name] = faults([case])[0].group
    assert found == {name: name for name in found}
