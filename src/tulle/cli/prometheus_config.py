"""The configuration of a Prometheus that reads a mesh."""

from __future__ import annotations

from typing import Any

import yaml

CONFIG, CA, TOKEN, ALERTS = "prometheus.yml", "ca.crt", "token", "alerts.yml"
INTERVAL = "15s"
WORKLOADS, NODES, PLANES = "tulle-workloads", "tulle-nodes", "tulle-control-planes"


def configuration(server: str, folder: str) -> str:
    """YAML. `server` is the control plane's URL; in `folder` lie the token, what its certificate is checked with, and rules."""

    def access() -> dict[str, Any]:
        # Prometheus 2.42 adds the usual type to scrapes, but not to discovery.
        token = {"type": "Bearer", "credentials_file": f"{folder}/{TOKEN}"}
        return {"authorization": token, "tls_config": {"ca_file": f"{folder}/{CA}"}}

    def job(name: str, what: str, **more: Any) -> dict[str, Any]:
        url = f"{server.rstrip('/')}/tulle/v1/prometheus/{what}"
        return {"job_name": name, **more, "http_sd_configs": [{"url": url, "refresh_interval": INTERVAL, **access()}]}

    made = {
        "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [f"{folder}/{ALERTS}"],
        "scrape_configs": [
            job(WORKLOADS, "workloads"),
            job(NODES, "nodes"),
            job(PLANES, "control-planes", scheme="https", **access()),
        ],
    }
    return _HEAD + yaml.safe_dump(made, sort_keys=False, width=120)


_HEAD = "# Made by `tulle observability prometheus`. What is read is found by Prometheus itself; nothing has to be added here.\n"
