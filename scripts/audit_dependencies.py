"""Known vulnerabilities of what is installed, by pip-audit; without a network it says so and passes.

    python scripts/audit_dependencies.py

Exit status 1 where one is known that is not in `ACCEPTED`.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

# identifier -> why it does no harm here. None at present.
ACCEPTED: dict[str, str] = {}
COMMAND = (sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--skip-editable")
_OFFLINE = re.compile(r"ConnectionError|ConnectTimeout|ReadTimeout|NameResolutionError|ProxyError|HTTPError")
_SECONDS = 300.0


@dataclass(frozen=True)
class Audit:
    """What was found: a line for each vulnerability that counts, or why nothing could be found."""

    lines: list[str]
    skipped: str = ""


def audit(command: Sequence[str] = COMMAND) -> Audit:
    """Runs pip-audit.

    Raises:
        RuntimeError: it failed for another reason than the network.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Audit([], f"no answer in {_SECONDS:.0f} s")
    try:
        found = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1][:200]
        if _OFFLINE.search(done.stderr):
            return Audit([], f"no network ({last})")
        raise RuntimeError(f"pip-audit: status {done.returncode}: {last}") from None
    return Audit(
        [
            f"{package['name']} {package['version']}: {known['id']}, mended in {known['fix_versions'] or 'no version'}"
            for package in found["dependencies"]
            for known in package.get("vulns", [])
            if known["id"] not in ACCEPTED
        ]
    )


def main() -> None:
    try:
        found = audit()
    except RuntimeError as error:
        sys.exit(str(error))
    if found.skipped:
        print(f"pip-audit: skipped: {found.skipped}")
        return
    print("\n".join(found.lines) or "pip-audit: no known vulnerability")
    sys.exit(1 if found.lines else 0)


if __name__ == "__main__":
    main()
