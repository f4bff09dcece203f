"""Known vulnerabilities of what the lock files name: one question to the OSV database, the one that pip-audit and uv ask too.

What tulle runs with makes it fail; what only tests and checks use is told. Where the database does not answer within a few
seconds nothing is said to be wrong: a check must work without a network. What was answered holds for a day.
usage: packaging/audit.py FOLDER    where FOLDER keeps the answer
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import re
import sys
import threading
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SERVICE = os.environ.get("OSV_URL", "https://api.osv.dev") + "/v1/querybatch"
PATIENCE = 5.0  # seconds
SILENT = 3600.0  # who did not answer is not asked again so soon
FRESH = 24 * 3600.0


def pinned(lock: Path) -> set[tuple[str, str]]:
    """Names and versions in a lock file."""
    return set(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^ ;\\]+)", lock.read_text(), re.MULTILINE))


def ask(packages: list[tuple[str, str]]) -> dict[str, list[str]]:
    """`name version` → ids of what is known against it; OSError or ValueError where there is no answer."""
    queries = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in packages]
    body = json.dumps({"queries": queries}).encode()
    request = urllib.request.Request(SERVICE, body, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:  # noqa: S310
            results = json.loads(reply.read())["results"]
    except (HTTPException, KeyError, TypeError) as error:
        raise ValueError(f"no answer of the database: {error!r}") from error
    if len(results) != len(packages):
        raise ValueError("an answer to another question")
    return {
        f"{name} {version}": sorted(one["id"] for one in found.get("vulns", []))
        for (name, version), found in zip(packages, results, strict=True)
        if found.get("vulns")
    }


def soon(packages: list[tuple[str, str]]) -> dict[str, list[str]] | Exception:
    """The answer, or why there is none within the time; looking up a name can take much longer than any timeout says."""
    answers: queue.Queue[dict[str, list[str]] | Exception] = queue.Queue()

    def work() -> None:
        try:
            answers.put(ask(packages))
        except (OSError, ValueError) as error:
            answers.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return answers.get(timeout=PATIENCE)
    except queue.Empty:
        return TimeoutError(f"nothing within {PATIENCE:.0f} s")


def main(folder: Path) -> int:
    """1 where something that tulle runs with has a known vulnerability."""
    runtime = pinned(ROOT / "requirements.lock")
    packages = sorted(runtime | pinned(ROOT / "requirements-dev.lock"))
    kept = folder / f"audit-{hashlib.sha256(repr(packages).encode()).hexdigest()[:16]}.json"
    if kept.exists() and time.time() - kept.stat().st_mtime < FRESH:
        known = json.loads(kept.read_text())
    else:
        silent = folder / "audit-silent"
        if silent.exists() and time.time() - silent.stat().st_mtime < SILENT:
            return 0
        answer = soon(packages)
        if isinstance(answer, Exception):
            print(f"dependencies not audited: {SERVICE} does not answer ({answer})")
            silent.touch()
            return 0
        known = answer
        kept.write_text(json.dumps(known))
    ours = {f"{name} {version}" for name, version in runtime}
    for package, ids in known.items():
        print(f"{package}: {', '.join(ids)}{'' if package in ours else ' (only for tests and checks)'}; see https://osv.dev")
    return 1 if ours & set(known) else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
