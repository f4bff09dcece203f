"""Envoy's configuration dump as the tables that people know from istioctl. Pure: dump in, rows out."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

Dump = Mapping[str, Any]


class Table(NamedTuple):
    """A heading and rows of text."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


class Filter(NamedTuple):
    """What of it is wanted; "" and 0 mean all. `name` is compared with the resource's name or host, as a part of it."""

    name: str = ""
    port: int = 0


def section(dump: Dump, kind: str) -> Dump:
    """One part of a configuration dump (`Clusters`, `Listeners`, `Routes`, `Endpoints`, `Secrets`, `Bootstrap`)."""
    for part in dump.get("configs", []):
        if str(part.get("@type", "")).endswith(f".{kind}ConfigDump") or str(part.get("@type", "")).endswith(f".{kind}Dump"):
            found: Dump = part
            return found
    return {}


def clusters(dump: Dump, wanted: Filter) -> Table:
    """SERVICE FQDN, PORT, SUBSET, DIRECTION, TYPE: the parts of the names `outbound|9080|v1|reviews.default...`."""
    rows = []
    part = section(dump, "Clusters")
    found = [entry.get("cluster", {}) for key in ("static_clusters", "dynamic_active_clusters") for entry in part.get(key, [])]
    for cluster in found:
        name = cluster.get("name", "")
        direction, port, subset, host, *_client = name.split("|") if name.count("|") >= 3 else ("-", "-", "-", name)
        kind = cluster.get("type", cluster.get("cluster_type", {}).get("name", "STATIC"))
        rows.append((host or "-", port or "-", subset or "-", direction, kind))
    kept = [row for row in rows if wanted.name in row[0] and (not wanted.port or row[1] == str(wanted.port))]
    return Table(
        ("service fqdn", "port", "subset", "direction", "type"), sorted(kept, key=lambda row: (row[0], _number(row[1]), row))
    )


def listeners(dump: Dump, wanted: Filter) -> Table:
    """ADDRESS, PORT, MATCH, DESTINATION: a row for each filter chain."""
    rows = []
    part = section(dump, "Listeners")
    found = [entry.get("listener", {}) for entry in part.get("static_listeners", [])]
    found += [entry.get("active_state", {}).get("listener", {}) for entry in part.get("dynamic_listeners", [])]
    for listener in found:
        address, port = _address(listener.get("address", {}))
        if (wanted.port and port != str(wanted.port)) or wanted.name not in listener.get("name", ""):
            continue
        chains = [*listener.get("filter_chains", [])]
        if "default_filter_chain" in listener:
            chains.append(listener["default_filter_chain"])
        rows += [(listener.get("name", "-"), address, port, _match(chain), _destination(chain)) for chain in chains]
        if listener.get("address", {}).get("socket_address", {}).get("protocol") == "UDP":
            rows.append((listener.get("name", "-"), address, port, "UDP", _datagrams(listener)))
    return Table(("name", "address", "port", "match", "destination"), sorted(rows, key=lambda row: (row[1], _number(row[2]))))


def _datagrams(listener: Dump) -> str:
    proxy = listener.get("listener_filters", [{}])[0].get("typed_config", {})
    action = proxy.get("matcher", {}).get("on_no_match", {}).get("action", {})
    return f"Cluster: {action.get('typed_config', {}).get('cluster', '-')}"


def routes(dump: Dump, wanted: Filter) -> Table:
    """NAME (of the table), VHOST, DOMAINS, MATCH, DESTINATION, FROM: a row for each route, in the order that decides."""
    rows = []
    part = section(dump, "Routes")
    found = [
        entry.get("route_config", {}) for key in ("static_route_configs", "dynamic_route_configs") for entry in part.get(key, [])
    ]
    for table in found:
        for host in table.get("virtual_hosts", []):
            name = str(host.get("name", "-"))
            if wanted.name not in table.get("name", "") and wanted.name not in name:
                continue
            domains = ", ".join(host.get("domains", [])[:2]) + (" ..." if len(host.get("domains", [])) > 2 else "")
            for route in host.get("routes", []):
                origin = route.get("metadata", {}).get("filter_metadata", {}).get("mesh", {}).get("origin", "")
                rows.append(
                    (table.get("name", "-"), name.rpartition("/")[2], domains, _route_match(route), _target(route), origin or "-")
                )
    return Table(("name", "vhost name", "domains", "match", "destination", "from"), rows)


def endpoints(statuses: Dump, wanted: Filter) -> Table:
    """ENDPOINT, STATUS, OUTLIER CHECK, CLUSTER, out of Envoy's `/clusters?format=json`."""
    rows = []
    for status in statuses.get("cluster_statuses", []):
        cluster = status.get("name", "")
        if wanted.name not in cluster:
            continue
        for host in status.get("host_statuses", []):
            address, port = _address(host.get("address", {}))
            if wanted.port and port != str(wanted.port):
                continue
            health = host.get("health_status", {})
            eds = health.get("eds_health_status", "UNKNOWN")
            outlier = "FAILED" if health.get("failed_outlier_check") else "OK"
            rows.append((f"{address}:{port}" if port else address, eds, outlier, cluster))
    return Table(("endpoint", "status", "outlier check", "cluster"), sorted(rows, key=lambda row: (row[3], row[0])))


def secrets(dump: Dump, wanted: Filter, now: datetime) -> Table:
    """RESOURCE NAME, TYPE, STATUS, VALID, SERIAL NUMBER, NOT AFTER, NOT BEFORE, IDENTITY. Never a private key."""
    rows = []
    part = section(dump, "Secrets")
    for key, status in (
        ("static_secrets", "ACTIVE"),
        ("dynamic_active_secrets", "ACTIVE"),
        ("dynamic_warming_secrets", "WARMING"),
    ):
        for entry in part.get(key, []):
            name, secret = entry.get("name", "-"), entry.get("secret", {})
            if wanted.name not in name:
                continue
            if "tls_certificate" in secret:
                kind, holder = "Cert Chain", secret["tls_certificate"].get("certificate_chain", {})
            else:
                kind, holder = "CA", secret.get("validation_context", {}).get("trusted_ca", {})
            certificates = list(_certificates(holder))
            rows += [(name, kind, status, *_facts(it, now)) for it in certificates] or [(name, kind, status, *["-"] * 5)]
    header = ("resource name", "type", "status", "valid", "serial number", "not after", "not before", "identity")
    return Table(header, rows)


def _certificates(holder: Dump) -> Iterator[Any]:
    """Parsed certificates of a DataSource; for the leaf's chain only the leaf and what follows it."""
    from cryptography import x509

    text = holder.get("inline_string", "").encode()
    with contextlib.suppress(ValueError):
        text = text or base64.b64decode(holder.get("inline_bytes", ""))
    if b"BEGIN CERTIFICATE" in text:
        with contextlib.suppress(ValueError):
            yield from x509.load_pem_x509_certificates(text)


def _facts(certificate: Any, now: datetime) -> tuple[str, ...]:
    from cryptography import x509

    after, before = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        identity = ", ".join(names.get_values_for_type(x509.UniformResourceIdentifier)) or "-"
    except x509.ExtensionNotFound:
        identity = "-"
    valid = "true" if before <= now <= after else "false"
    return (valid, f"{certificate.serial_number:x}", _time(after), _time(before), identity)


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _address(address: Dump) -> tuple[str, str]:
    socket = address.get("socket_address")
    if socket:
        return str(socket.get("address", "-")), str(socket.get("port_value", ""))
    if pipe := address.get("pipe"):
        return str(pipe.get("path", "-")), ""
    internal = address.get("envoy_internal_address", {})
    return f"internal:{internal.get('server_listener_name', '-')}", ""


def _match(chain: Dump) -> str:
    """A filter chain's match in istioctl's words."""
    match = chain.get("filter_chain_match", {})
    words = []
    if port := match.get("destination_port"):
        words.append(f"Port: {port}")
    if names := match.get("server_names"):
        words.append(f"SNI: {','.join(names)}")
    if transport := match.get("transport_protocol"):
        words.append(f"Trans: {transport}")
    if protocols := match.get("application_protocols"):
        words.append(f"App: {','.join(protocols)}")
    if ranges := match.get("prefix_ranges"):
        words.append("Addr: " + ",".join(f"{it.get('address_prefix')}/{it.get('prefix_len', 0)}" for it in ranges))
    return "; ".join(words) or "ALL"


def _destination(chain: Dump) -> str:
    """Where a filter chain's last filter sends: a route table or a cluster."""
    for filter_ in reversed(chain.get("filters", [])):
        config = filter_.get("typed_config", {})
        if "rds" in config:
            return f"Route: {config['rds'].get('route_config_name', '-')}"
        if "route_config" in config:
            inline = config["route_config"]
            targets = [_target(route) for host in inline.get("virtual_hosts", []) for route in host.get("routes", [])]
            return f"Inline Route: {', '.join(dict.fromkeys(targets)) or inline.get('name', '-')}"
        if "cluster" in config:
            return f"Cluster: {config['cluster']}"
        if "weighted_clusters" in config:
            return _weighted(config["weighted_clusters"])
    return "-"


def _route_match(route: Dump) -> str:
    """`/prefix*`, `/exact`, `~regex`, and the headers and parameters that are asked for."""
    match = route.get("match", {})
    words = []
    shapes: dict[str, Callable[[Any], str]] = {
        "prefix": lambda it: f"{it.rstrip('/') if it != '/' else it}*",
        "path": str,
        "path_separated_prefix": lambda it: f"{it}(/*)",
        "safe_regex": lambda it: f"~{it.get('regex', '')}",
        "connect_matcher": lambda _: "CONNECT",
    }
    words += [say(match[field]) for field, say in shapes.items() if field in match]
    words += [f"{header.get('name')}{_value(header)}" for header in match.get("headers", [])]
    words += [f"?{parameter.get('name')}{_value(parameter)}" for parameter in match.get("query_parameters", [])]
    return " ".join(words) or "*"


def _value(condition: Dump) -> str:
    match = condition.get("string_match", {})
    not_ = "!" if condition.get("invert_match") else ""
    for field, sign in (("exact", "="), ("prefix", "=^"), ("suffix", "=$"), ("contains", "~"), ("safe_regex", "=~")):
        if field in match:
            value = match[field]
            return f"{not_}{sign}{value.get('regex', '') if isinstance(value, dict) else value}"
    return f"{not_}(present)"


def _target(route: Dump) -> str:
    if direct := route.get("direct_response"):
        return f"status {direct.get('status', '-')}"
    if redirect := route.get("redirect"):
        return f"redirect {redirect.get('host_redirect', '')}{redirect.get('path_redirect', '')}"
    action = route.get("route", {})
    if "weighted_clusters" in action:
        return _weighted(action["weighted_clusters"])
    return str(action.get("cluster", action.get("cluster_header", "-")))


def _weighted(weighted: Dump) -> str:
    return ", ".join(f"{it.get('name')} {it.get('weight', 0)}" for it in weighted.get("clusters", []))


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
