"""Runs the hostile cases of `tests/hostile/*_cases.py`, those of some seeds, too: a table by kind.

python scripts/hostile_campaign.py [--seeds 10 --only stores --workers 2 --out verdicts.jsonl]
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from campaign import isolated
from hostile import collected
from hostile.case import Case, Verdict, judged


def of_seeds(seeds: int, only: list[str]) -> list[Case]:
    """Fixed cases, and those of each seed, of a kind of `only` or with a name that begins so; all without it."""
    every = collected.cases(range(seeds))
    return [one for one in every if not only or any(part == one.kind or one.name.startswith(part) for part in only)]


def verdicts(cases: list[Case], workers: int, out: Path | None) -> list[Verdict]:
    """Runs the cases, each in a folder of its own, which is deleted afterwards; those that `out` holds are not run."""
    known = {one["case"]: Verdict(**one) for one in (isolated.read(out) if out is not None else [])}

    def work(case: Case) -> Verdict:
        if case.name in known:
            return known[case.name]
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            try:
                found = judged(case, Path(folder))
            except Exception as error:  # noqa: BLE001 - one case must not end a campaign
                found = Verdict(case.name, case.kind, f"case broken: {error!r}", -1, 0, "", "")
        if out is not None:
            isolated.written(out, [dataclasses.asdict(found)])
        return found

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, cases))


def table(found: list[Verdict]) -> str:
    """Faults by kind."""
    groups = sorted({one.group for one in found} - {"ok"})
    lines = ["| kind | cases | ok | " + " | ".join(groups) + " |", "|---" * (len(groups) + 3) + "|"]
    for kind in [*sorted({one.kind for one in found}), "all"]:
        some = Counter(one.group for one in found if kind in ("all", one.kind))
        counts = " | ".join(str(some[group] or "·") for group in groups)
        lines.append(f"| {kind} | {some.total()} | {some['ok']} | {counts} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", nargs="*", default=[], help="kinds, or how names begin")
    parser.add_argument("--workers", type=int, default=2, help="cases side by side")
    parser.add_argument("--out", type=Path, help="verdicts as lines of JSON; a second call goes on")
    chosen = parser.parse_args()
    began = time.monotonic()
    found = verdicts(of_seeds(chosen.seeds, chosen.only), chosen.workers, chosen.out)
    print(table(found))
    print(f"\n{len(found)} cases in {time.monotonic() - began:.0f} s")
    bad = [one for one in found if one.fault]
    for one in bad:
        print(json.dumps({**dataclasses.asdict(one), "seconds": round(one.seconds, 1)}))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
