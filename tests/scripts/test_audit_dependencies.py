"""What pip-audit says, and what becomes of it."""

import json
import sys

import audit_dependencies
import pytest
from audit_dependencies import audit

FOUND = {
    "dependencies": [
        {"name": "good", "version": "1", "vulns": []},
        {"name": "unknown", "skip_reason": "not found"},
        {"name": "bad", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]},
    ],
    "fixes": [],
}


def printing(out: str, err: str = "", status: int = 0) -> list[str]:
    code = f"import sys; sys.stdout.write({out!r}); sys.stderr.write({err!r}); sys.exit({status})"
    return [sys.executable, "-c", code]


def test_a_vulnerability_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert audit(printing(json.dumps(FOUND), status=1)).lines == ["bad 1.0: PYSEC-1, mended in ['1.1']"]
    monkeypatch.setitem(audit_dependencies.ACCEPTED, "PYSEC-1", "not reachable")
    assert audit(printing(json.dumps(FOUND), status=1)).lines == []


def test_without_a_network_it_is_skipped_and_other_failures_are_not() -> None:
    assert "no network" in audit(printing("", "x\nrequests.exceptions.ConnectionError: nowhere", 1)).skipped
    with pytest.raises(RuntimeError, match="status 2: bad option"):
        audit(printing("", "bad option", 2))
