"""What a person reads of an Envoy: the tables out of its configuration dump, the state of the proxies, and never a key."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.certificates import Roots
from tests.unit.cli.conftest import Shell
from tulle.cli import proxy_tables
from tulle.cli.proxy import _details, _row
from tulle.cli.proxy_tables import Filter
from tulle.kit.redact import REDACTED, redact

ADMIN = "type.googleapis.com/envoy.admin.v3."
HTTP_MANAGER = {"typed_config": {"rds": {"route_config_name": "9080.default"}}}
DUMP: dict[str, Any] = {
    "configs": [
        {
            "@type": f"{ADMIN}ClustersConfigDump",
            "static_clusters": [{"cluster": {"name": "BlackHoleCluster", "type": "STATIC"}}],
            "dynamic_active_clusters": [
                {"cluster": {"name": "outbound|9080|v1|reviews.default.svc.cluster.local", "type": "EDS"}},
                {"cluster": {"name": "inbound|9080||", "type": "STATIC"}},
            ],
        },
        {
            "@type": f"{ADMIN}ListenersConfigDump",
            "dynamic_listeners": [
                {
                    "active_state": {
                        "listener": {
                            "name": "virtualInbound",
                            "address": {"socket_address": {"address": "0.0.0.0", "port_value": 15006}},
                            "filter_chains": [
                                {
                                    "filter_chain_match": {"destination_port": 9080, "transport_protocol": "tls"},
                                    "filters": [{"typed_config": {"cluster": "inbound|9080||"}}],
                                }
                            ],
                            "default_filter_chain": {"filters": [HTTP_MANAGER]},
                        }
                    }
                }
            ],
        },
        {
            "@type": f"{ADMIN}RoutesConfigDump",
            "dynamic_route_configs": [
                {
                    "route_config": {
                        "name": "9080.default",
                        "virtual_hosts": [
                            {
                                "name": "9080.default/reviews.default.svc.cluster.local:9080",
                                "domains": ["reviews", "reviews.default", "10.0.0.1"],
                                "routes": [
                                    {
                                        "match": {
                                            "prefix": "/",
                                            "headers": [{"name": "end-user", "string_match": {"exact": "jason"}}],
                                        },
                                        "route": {"cluster": "v2"},
                                        "metadata": {"filter_metadata": {"mesh": {"origin": "VirtualService default/reviews"}}},
                                    },
                                    {
                                        "match": {"path": "/x"},
                                        "route": {
                                            "weighted_clusters": {
                                                "clusters": [{"name": "v1", "weight": 80}, {"name": "v2", "weight": 20}]
                                            }
                                        },
                                    },
                                    {"match": {"safe_regex": {"regex": "a.*"}}, "direct_response": {"status": 503}},
                                ],
                            }
                        ],
                    }
                }
            ],
        },
    ]
}


def test_clusters_by_the_parts_of_their_names() -> None:
    """`tulle proxy config cluster` would not be readable as istioctl's is."""
    table = proxy_tables.clusters(DUMP, Filter())
    assert ("reviews.default.svc.cluster.local", "9080", "v1", "outbound", "EDS") in table.rows
    assert ("-", "9080", "-", "inbound", "STATIC") in table.rows
    assert ("BlackHoleCluster", "-", "-", "-", "STATIC") in table.rows
    assert len(proxy_tables.clusters(DUMP, Filter(name="reviews")).rows) == 1
    assert len(proxy_tables.clusters(DUMP, Filter(port=9080)).rows) == 2


def test_listeners_by_filter_chain() -> None:
    """Nobody would see what a port does with which kind of connection."""
    assert proxy_tables.listeners(DUMP, Filter()).rows == [
        ("virtualInbound", "0.0.0.0", "15006", "Port: 9080; Trans: tls", "Cluster: inbound|9080||"),
        ("virtualInbound", "0.0.0.0", "15006", "ALL", "Route: 9080.default"),
    ]
    assert not proxy_tables.listeners(DUMP, Filter(port=15001)).rows


def test_routes_in_the_order_that_decides_and_where_they_come_from() -> None:
    """The first match decides: another order, or a lost condition, would tell a lie about the mesh."""
    rows = proxy_tables.routes(DUMP, Filter()).rows
    assert [row[3:] for row in rows] == [
        ("/* end-user=jason", "v2", "VirtualService default/reviews"),
        ("/x", "v1 80, v2 20", "-"),
        ("~a.*", "status 503", "-"),
    ]
    assert rows[0][:3] == ("9080.default", "reviews.default.svc.cluster.local:9080", "reviews, reviews.default ...")


def test_endpoints_with_their_health() -> None:
    """An endpoint that is not sent to would look like one that is."""
    host = {
        "address": {"socket_address": {"address": "10.0.0.1", "port_value": 9080}},
        "health_status": {"eds_health_status": "DRAINING", "failed_outlier_check": True},
    }
    table = proxy_tables.endpoints({"cluster_statuses": [{"name": "c", "host_statuses": [host]}]}, Filter())
    assert table.rows == [("10.0.0.1:9080", "DRAINING", "FAILED", "c")]


def test_secrets_show_certificates_and_whom_they_name() -> None:
    """A certificate that has ended would be shown as valid, or its identity not at all."""
    chain, _ = Roots().leaf("spiffe://cluster.local/ns/default/sa/x")
    secret = {"tls_certificate": {"certificate_chain": {"inline_bytes": base64.b64encode(chain).decode()}}}
    dump = {
        "configs": [
            {"@type": f"{ADMIN}SecretsConfigDump", "dynamic_active_secrets": [{"name": "default", "secret": secret}]},
        ]
    }
    now = datetime.now(UTC)
    row = proxy_tables.secrets(dump, Filter(), now).rows[0]
    assert row[:4] == ("default", "Cert Chain", "ACTIVE", "true")
    assert row[-1] == "spiffe://cluster.local/ns/default/sa/x"
    assert proxy_tables.secrets(dump, Filter(), now + timedelta(days=36500)).rows[0][3] == "false"


@pytest.mark.parametrize("form", ["short", "json", "yaml"])
def test_a_dump_in_a_file(nowhere: Shell, tmp_path: Path, form: str) -> None:
    """A dump that somebody sent could not be looked at, or would show the key that is in it."""
    key = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
    secret = {"tls_certificate": {"private_key": {"inline_bytes": base64.b64encode(key.encode()).decode()}}}
    part = {"@type": f"{ADMIN}SecretsConfigDump", "static_secrets": [{"name": "default", "secret": secret, "note": key}]}
    file = tmp_path / "dump.json"
    file.write_text(json.dumps({"configs": [*DUMP["configs"], part]}))
    for what in ("secret", "all", "route"):
        done = nowhere("proxy", "config", what, "--file", str(file), "-o", form)
        assert done.returncode == 0, done.stderr
        for hidden in ("PRIVATE KEY", "c2VjcmV0", base64.b64encode(key.encode()).decode()[:40]):
            assert hidden not in done.stdout
    assert "9080.default" in done.stdout
    if form == "json":
        assert json.loads(done.stdout)["@type"].endswith("RoutesConfigDump")
    if form == "yaml":
        assert yaml.safe_load(done.stdout)["@type"].endswith("RoutesConfigDump")


def test_what_is_no_dump(nowhere: Shell, tmp_path: Path) -> None:
    """A wrong file would show an empty mesh."""
    file = tmp_path / "x"
    for text in ("{}", "[1]", "no json"):
        file.write_text(text)
        done = nowhere("proxy", "config", "all", "--file", str(file))
        assert done.returncode == 1
        assert "needed Envoy's /config_dump" in done.stderr


def test_redaction_keeps_what_is_no_secret() -> None:
    """Where a key lies may be read, what it is may not; and the rest stays as it is."""
    document = {
        "private_key": {"filename": "/k.pem", "inline_string": "x"},
        "trusted_ca": {"inline_string": "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"},
        "other": ["a", 1, None, True],
    }
    assert redact(document) == {**document, "private_key": {"filename": "/k.pem", "inline_string": REDACTED}}


def test_states_of_a_proxy() -> None:
    """A proxy that refuses, or lags behind, would be shown as in sync."""

    def status(name: str, sent: int, acked: int, **more: Any) -> dict[str, Any]:
        return {"type_url": f"type.googleapis.com/{name}", "sent": sent, "acked": acked, "resources": 3, **more}

    proxy = {
        "proxy": "default/reviews-v1",
        "peer": "spiffe://cluster.local/node/one",
        "connected": 0.0,
        "synced": 7,
        "held": False,
        "types": [
            status("envoy.config.cluster.v3.Cluster", 9, 9),
            status("envoy.config.listener.v3.Listener", 9, 8),
            status("envoy.config.route.v3.RouteConfiguration", 9, 9, refused={"9080.default": "no such field"}),
        ],
    }
    assert _row(proxy) == ["default/reviews-v1", "one", "SYNCED", "STALE", "NOT SENT", "REFUSED", "NOT SENT", "7"]
    assert _row({**proxy, "held": True})[2] == "WAITING"
    details = _details(proxy)
    assert "RDS 9080.default: no such field" in details
    assert "1970-01-01T00:00:00Z" in details
