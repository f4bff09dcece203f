"""The real kubectl as tests use it, with a home and a kubeconfig of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_OLDEST = 24  # older ones validate for themselves, with other words

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: cart}
spec:
  selector: {app: cart}
  ports:
  - {port: 80, name: http, targetPort: 8080}
  - {port: 81, name: admin}
"""

ROUTE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v1}
      weight: 80
    - destination: {host: reviews, subset: v2}
      weight: 20
"""


def kubectls() -> list[str]:
    """Every kubectl that can be tried, the tests' own first."""
    own = Path(sys.executable).with_name("kubectl")
    found = [
        str(path)
        for path in (own, shutil.which("kubectl", path="/usr/bin:/usr/local/bin:/snap/bin"))
        if path and Path(path).exists()
    ]
    usable = []
    for path in dict.fromkeys(found):
        version = subprocess.run([path, "version", "--client", "-o", "json"], capture_output=True, text=True, timeout=30)
        minor = re.search(r'"minor": "(\d+)', version.stdout)
        if minor and int(minor[1]) >= _OLDEST:
            usable.append(path)
    return usable


@dataclass
class Kubectl:
    """One kubectl with a home and a kubeconfig of its own."""

    path: str
    kubeconfig: Path
    home: Path

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """`more`: environment variables."""
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig), **more}
        return subprocess.Popen(
            [self.path, *arguments], env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, *arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **more)
        out, err = process.communicate(stdin, timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def __call__(self, *arguments: str, stdin: str = "", **more: str) -> str:
        """Standard output; fails the test where kubectl fails."""
        done = self.run(*arguments, stdin=stdin, **more)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def object(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("get", *arguments, "-o", "json"))
        return found


def changed(text: str, *pairs: tuple[str, str]) -> str:
    """The text with each first of a pair replaced by the second; it must be there."""
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text
