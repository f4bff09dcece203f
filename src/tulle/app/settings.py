"""What the programs can be told. Each field is a flag and a `TULLE_*` variable of the command line; defaults are conventions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tulle.kit import paths


@dataclass(frozen=True, slots=True)
class ControlPlaneSettings:
    """`tulle control-plane`.

    Addresses are `host:port`. `advertise` are further names and addresses by which nodes and people reach it: they go into its
    certificate. `name` tells it from other control planes of the mesh ("": made from the host's name). `store` is `sqlite:PATH`,
    `memory:` or `etcd://HOST:PORT,.../PREFIX` ("": SQLite in the state folder). `certificate_lifetime` is that of workloads'
    certificates, `jwt_lifetime` that of their JWT-SVIDs, `bundle_refresh` after how long other trust domains look at the bundle
    again, `history` how long changes are kept, `metrics_window` counted calls and `calls_window` recorded ones, all in seconds.
    With `prometheus_url` figures are those of a Prometheus that reads the mesh. `trace_sampling` is the percentage of traces
    where no Telemetry says one (0: none, at no cost). Exact rate limits are counted in `ratelimit_redis` ("": by each control
    plane for itself). The bundle is at `bundle_endpoint` ("": nowhere), under a certificate in files, else under the control
    plane's own. `oidc_*` are kube-apiserver's; without an issuer no OIDC tokens are taken. `ca_key_type` is that of the roots
    that are made here; `ca_dir` has an intermediate that is brought (`control/ca/brought.py`); `kubernetes_*` name a cluster
    whose accounts are believed (`control/ca/kubernetes.py`); with `ca_signer_url` all is signed elsewhere
    (`control/ca/external.py`).
    """

    state_dir: Path = field(default_factory=paths.state_dir)
    api_address: str = "127.0.0.1:15080"
    xds_address: str = "127.0.0.1:15012"
    advertise: tuple[str, ...] = ()
    name: str = ""
    store: str = ""
    encryption_key_file: Path | None = None
    etcd_ca_file: Path | None = None
    etcd_cert_file: Path | None = None
    etcd_key_file: Path | None = None
    trust_domain: str = "cluster.local"
    oidc_issuer_url: str = ""
    oidc_client_id: str = ""
    oidc_username_claim: str = "sub"
    oidc_username_prefix: str = ""
    oidc_groups_claim: str = ""
    oidc_groups_prefix: str = ""
    oidc_ca_file: Path | None = None
    oidc_required_claim: tuple[str, ...] = ()
    certificate_lifetime: float = 24 * 3600.0
    jwt_lifetime: float = 300.0
    bundle_refresh: float = 300.0
    bundle_endpoint: str = ""
    bundle_endpoint_cert_file: Path | None = None
    bundle_endpoint_key_file: Path | None = None
    ca_key_type: str = "ecdsa-p256"
    ca_dir: Path | None = None
    kubernetes_api: str = ""
    kubernetes_token_file: Path | None = None
    kubernetes_ca_file: Path | None = None
    kubernetes_audience: str = "tulle"
    kubernetes_node: tuple[str, ...] = ()
    ca_signer_url: str = ""
    ca_signer_token_file: Path | None = None
    ca_signer_ca_file: Path | None = None
    ca_signer_root_file: Path | None = None
    history: float = 30 * 24 * 3600.0
    metrics_window: float = 6 * 3600.0
    calls_window: float = 7 * 24 * 3600.0
    prometheus_url: str = ""
    prometheus_token_file: Path | None = None
    prometheus_ca_file: Path | None = None
    trace_sampling: float = 0.0
    ratelimit_redis: str = ""
    log_level: str = "info"


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """`tulle demo up`. `load` is requests a second through the ingress, 0 for none."""

    detach: bool = False
    capture: str = "auto"
    ingress_port: int = 8080
    api_port: int = 15080
    xds_port: int = 15012
    load: float = 0.0
