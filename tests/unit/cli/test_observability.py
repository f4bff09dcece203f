"""What Prometheus and Grafana are given: complete, of metrics that there are, and taken by the real programs."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tulle.cli.alerts import rules
from tulle.cli.dashboards import dashboards
from tulle.cli.prometheus_config import configuration

SOURCE = Path(__file__).parents[3] / "src" / "tulle"
# Istio's and the mesh's own names; what else is in an expression is a function or a label.
NAME = re.compile(r"\b((?:istio|tulle|pilot|process|citadel|envoy)_[a-z_]+)\b")


def expressions() -> Iterator[str]:
    for board in dashboards().values():
        for panel in board["panels"]:
            yield from (target["expr"] for target in panel["targets"])
    for group in yaml.safe_load(rules())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def test_every_metric_is_one_that_we_have() -> None:
    """Broken: a panel would stay empty for ever, or an alert never come."""
    text = "\n".join(file.read_text() for file in SOURCE.rglob("*.py") if file.parent.name != "cli")
    known = set(re.findall(NAME, text)) | {"envoy_server_stats_overflow_counter"}
    for expression in expressions():
        for name in re.findall(NAME, expression):
            assert name in known or re.sub("_(bucket|sum|count)$", "", name) in known, f"{name} in {expression}"


def test_dashboards_fit() -> None:
    """Broken: Grafana would refuse a dashboard, or lay one panel over another."""
    for name, board in dashboards().items():
        assert board["uid"] == f"tulle-{name}"
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            place: dict[str, Any] = panel["gridPos"]
            cells = {(x, place["y"]) for x in range(place["x"], place["x"] + place["w"])}
            assert place["x"] + place["w"] <= 24
            assert not cells & taken, panel["title"]
            taken |= cells
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed (Debian package prometheus)")
def test_promtool_takes_it(tmp_path: Path) -> None:
    """Broken: Prometheus would not start, or an alert mean something else."""
    (tmp_path / "alerts.yml").write_text(rules())
    (tmp_path / "token").write_text("a")
    (tmp_path / "ca.crt").write_text("")
    (tmp_path / "prometheus.yml").write_text(configuration("https://127.0.0.1:15080", str(tmp_path)))
    boards = [target["expr"] for board in dashboards().values() for panel in board["panels"] for target in panel["targets"]]
    asked = [one.replace("$__rate_interval", "1m").replace("$", "") for one in boards]
    recorded = [{"record": f"a:{number}", "expr": one} for number, one in enumerate(asked)]
    (tmp_path / "boards.yml").write_text(yaml.safe_dump({"groups": [{"name": "a", "rules": recorded}]}))
    (tmp_path / "cases.yml").write_text(CASES)
    for argv in (["check", "rules", "alerts.yml", "boards.yml"], ["test", "rules", "cases.yml"]):
        done = subprocess.run(["promtool", *argv], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


# What each alert says of a mesh that is well, and of one that is not.
CASES = """
rule_files: [alerts.yml]
evaluation_interval: 1m
tests:
- interval: 1m
  input_series:
  - series: 'istio_requests_total{SERVICE="a",response_code="200"}'
    values: '0+90x30'
  - series: 'istio_requests_total{SERVICE="a",response_code="503"}'
    values: '0+10x30'
  - series: 'istio_requests_total{SERVICE="b",response_code="200"}'
    values: '0+100x30'
  - series: 'up{job="tulle-control-planes",instance="one"}'
    values: '1x10 0x20'
  - series: 'pilot_total_xds_rejects{instance="one"}'
    values: '0x10 1x20'
  - series: 'tulle_certificates_late{instance="one"}'
    values: '2x30'
  - series: 'tulle_certificate_not_after_seconds{holder="n/a",node="h"}'
    values: '3000x30'
  - series: 'tulle_ca_not_after_seconds'
    values: '100000000x30'
  alert_rule_test:
  - {eval_time: 9m, alertname: TulleControlPlaneDown, exp_alerts: []}
  - eval_time: 13m
    alertname: TulleControlPlaneDown
    exp_alerts:
    - exp_labels: {severity: critical, job: tulle-control-planes, instance: one}
      exp_annotations:
        summary: A control plane does not answer
        description: Proxies go on with what they have; nothing that is written arrives, and certificates are not renewed.
  - eval_time: 20m
    alertname: TulleErrorRate
    exp_alerts:
    - exp_labels: {severity: critical, destination_service_name: a, destination_service_namespace: n}
      exp_annotations:
        summary: a in n fails
        description: 10% of the requests of the last five minutes failed. See `tulle stat` and `tulle edges`.
  - eval_time: 12m
    alertname: TulleConfigurationRefused
    exp_alerts:
    - exp_labels: {severity: critical, instance: one}
      exp_annotations:
        summary: A proxy refuses its configuration (NACK)
        description: It keeps what it had. `tulle proxy status` names it, and what it refuses.
  - eval_time: 15m
    alertname: TulleRotationLate
    exp_alerts:
    - exp_labels: {severity: warning, instance: one}
      exp_annotations: {summary: 2 certificates should have been renewed, description: See `tulle certs` for whose they are.}
  - eval_time: 15m
    alertname: TulleCertificateExpiry
    exp_alerts:
    - exp_labels: {severity: critical, holder: n/a, node: h}
      exp_annotations:
        summary: The certificate of n/a ends within an hour
        description: Node h should have renewed it long ago. See `tulle certs`.
  - {eval_time: 15m, alertname: TulleAuthorityExpiry, exp_alerts: []}
""".replace("SERVICE", 'reporter="source",destination_service_namespace="n",destination_service_name')
