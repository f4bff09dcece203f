"""`tulle control-plane`: the program of `app/control_plane_program.py` with a flag and a variable for each of its settings."""

from __future__ import annotations

from pathlib import Path

import click

from tulle.cli.setting import Duration, setting

LEVELS = ("debug", "info", "warning", "error")

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("control-plane")
@setting(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Store, certificate authority and kubeconfig. Default: /var/lib/tulle, or a person's XDG state folder.",
)
@setting(
    "--api-address", default="127.0.0.1:15080", show_default=True, metavar="HOST:PORT", help="API server, for kubectl and nodes."
)
@setting("--xds-address", default="127.0.0.1:15012", show_default=True, metavar="HOST:PORT", help="xDS server, for nodes.")
@setting(
    "--advertise",
    multiple=True,
    metavar="NAME",
    help="A further name or address by which nodes and people reach it; goes into its certificate. Repeatable.",
)
@setting("--name", default="", help="Tells it from other control planes of the mesh. Default: the host's name.")
@setting(
    "--store",
    default="",
    metavar="STORE",
    help="sqlite:PATH, memory: or etcd://HOST:PORT[,HOST:PORT...][/PREFIX] (etcds: TLS). Default: SQLite in the state folder.",
)
@setting(
    "--encryption-key-file",
    type=_FILE,
    help="Keys that the secrets in the store are sealed with, base64 of 32 bytes each, the first one seals. Needed with etcd.",
)
@setting("--etcd-ca-file", type=_FILE, help="Whom to trust as etcd (PEM). Default: the machine's roots.")
@setting("--etcd-cert-file", type=_FILE, help="The certificate to show to etcd (PEM).")
@setting("--etcd-key-file", type=_FILE, help="Its key (PEM).")
@setting("--trust-domain", also=("TRUST_DOMAIN",), default="cluster.local", show_default=True, help="SPIFFE trust domain.")
@setting("--oidc-issuer-url", default="", metavar="URL", help="OpenID Connect issuer whose ID tokens people may use; https.")
@setting("--oidc-client-id", default="", metavar="ID", help="The audience that its tokens must have.")
@setting("--oidc-username-claim", default="sub", show_default=True, metavar="CLAIM", help="Which claim is the user's name.")
@setting(
    "--oidc-username-prefix",
    default="",
    metavar="TEXT",
    help="Stands before user names; - for none. Default: the issuer and #, none for the claim email.",
)
@setting("--oidc-groups-claim", default="", metavar="CLAIM", help="Which claim has the user's groups.")
@setting("--oidc-groups-prefix", default="", metavar="TEXT", help="Stands before groups.")
@setting(
    "--oidc-ca-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Authorities that the issuer's certificate is checked with. Default: the machine's.",
)
@setting("--oidc-required-claim", multiple=True, metavar="NAME=VALUE", help="What tokens must also say. Repeatable.")
@setting(
    "--certificate-lifetime",
    also=("SECRET_TTL",),
    type=Duration(),
    default="24h",
    show_default=True,
    help="How long a workload's certificate lives; it is renewed at half of that.",
)
@setting("--jwt-lifetime", type=Duration(), default="5m", show_default=True, help="How long a JWT-SVID lives.")
@setting(
    "--bundle-refresh",
    type=Duration(),
    default="5m",
    show_default=True,
    help="How often other trust domains are to look at this one's trust bundle.",
)
@setting(
    "--ca-key-type",
    type=click.Choice(("ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-3072", "rsa-4096")),
    default="ecdsa-p256",
    show_default=True,
    help="Kind of the root key that is made at the first start, and at each rotation.",
)
@setting(
    "--ca-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="An intermediate to sign with: ca-cert.pem, ca-key.pem, root-cert.pem and cert-chain.pem. Followed when they change.",
)
@setting(
    "--ca-signer-url",
    default="",
    metavar="URL",
    help="Have all signed by a PKI like Vault's: https://.../v1/pki/sign-verbatim/ROLE.",
)
@setting("--ca-signer-token-file", type=_FILE, help="The token for it; read for each request.")
@setting("--ca-signer-ca-file", type=_FILE, help="Whom to trust as that server (PEM). Default: the machine's roots.")
@setting("--ca-signer-root-file", type=_FILE, help="What the mesh trusts when that signs (PEM). Followed when it changes.")
@setting(
    "--bundle-endpoint",
    metavar="HOST:PORT",
    help="Where other trust domains may read this one's trust bundle. Default: nowhere.",
)
@setting(
    "--bundle-endpoint-cert-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The endpoint's certificate chain: profile https_web. Without one: https_spiffe, with the control plane's own.",
)
@setting("--bundle-endpoint-key-file", type=click.Path(dir_okay=False, path_type=Path), help="Its key.")
@setting("--kubernetes-api", default="", metavar="URL", help="A cluster whose service accounts are believed (TokenReview).")
@setting("--kubernetes-token-file", type=_FILE, help="The token with which to ask it; read for each request.")
@setting("--kubernetes-ca-file", type=_FILE, help="Whom to trust as its API server (PEM). Default: the machine's roots.")
@setting("--kubernetes-audience", default="tulle", show_default=True, metavar="NAME", help="Whom those tokens must be for.")
@setting(
    "--kubernetes-node",
    multiple=True,
    metavar="NS/SA=NS/SA[,NS/SA]",
    help="A service account whose pods are node agents, and the identities that these may have; * stands for any. Repeatable.",
)
@setting(
    "--history", type=Duration(), default="30d", show_default=True, help="How long changes are kept, for history and rollback."
)
@setting(
    "--metrics-window",
    type=Duration(),
    default="6h",
    show_default=True,
    help="How long counted calls are kept in memory, for `tulle stat` and the page.",
)
@setting(
    "--calls-window",
    type=Duration(),
    default="7d",
    show_default=True,
    help="How long recorded calls are kept, in whole days, for `tulle calls` and `tulle explain`.",
)
@setting(
    "--prometheus-url",
    default="",
    metavar="URL",
    help="A Prometheus that reads this mesh: `tulle stat`, `routes`, `edges`, `top`, `graph` and the page show its figures.",
)
@setting("--prometheus-token-file", type=_FILE, help="The bearer token for it; read for each request.")
@setting("--prometheus-ca-file", type=_FILE, help="Whom to trust as it (PEM). Default: the machine's roots.")
@setting(
    "--trace-sampling",
    type=click.FloatRange(0, 100),
    default=0.0,
    show_default=True,
    metavar="PERCENT",
    help="Which share of the requests is traced where no Telemetry says one.",
)
@setting(
    "--ratelimit-redis",
    default="",
    metavar="URL",
    help="A Redis in which several control planes count exact rate limits: redis://, rediss:// (TLS) or unix://.",
)
@setting("--log-level", type=click.Choice(LEVELS), default="info", show_default=True)
def control_plane(
    state_dir: Path | None,
    api_address: str,
    xds_address: str,
    advertise: tuple[str, ...],
    name: str,
    store: str,
    encryption_key_file: Path | None,
    etcd_ca_file: Path | None,
    etcd_cert_file: Path | None,
    etcd_key_file: Path | None,
    trust_domain: str,
    oidc_issuer_url: str,
    oidc_client_id: str,
    oidc_username_claim: str,
    oidc_username_prefix: str,
    oidc_groups_claim: str,
    oidc_groups_prefix: str,
    oidc_ca_file: Path | None,
    oidc_required_claim: tuple[str, ...],
    certificate_lifetime: float,
    jwt_lifetime: float,
    bundle_refresh: float,
    bundle_endpoint: str | None,
    bundle_endpoint_cert_file: Path | None,
    bundle_endpoint_key_file: Path | None,
    ca_key_type: str,
    ca_dir: Path | None,
    kubernetes_api: str,
    kubernetes_token_file: Path | None,
    kubernetes_ca_file: Path | None,
    kubernetes_audience: str,
    kubernetes_node: tuple[str, ...],
    ca_signer_url: str,
    ca_signer_token_file: Path | None,
    ca_signer_ca_file: Path | None,
    ca_signer_root_file: Path | None,
    history: float,
    metrics_window: float,
    calls_window: float,
    prometheus_url: str,
    prometheus_token_file: Path | None,
    prometheus_ca_file: Path | None,
    trace_sampling: float,
    ratelimit_redis: str,
    log_level: str,
) -> None:
    """Run the control plane: API server, store, certificate authority, xDS."""
    from tulle.app.control_plane_program import run_control_plane
    from tulle.app.settings import ControlPlaneSettings
    from tulle.kit import paths

    if bool(bundle_endpoint_cert_file) != bool(bundle_endpoint_key_file):
        raise click.UsageError("--bundle-endpoint-cert-file and --bundle-endpoint-key-file go together.")
    run_control_plane(
        ControlPlaneSettings(
            state_dir=state_dir or paths.state_dir(),
            api_address=api_address,
            xds_address=xds_address,
            advertise=advertise,
            name=name,
            store=store,
            encryption_key_file=encryption_key_file,
            etcd_ca_file=etcd_ca_file,
            etcd_cert_file=etcd_cert_file,
            etcd_key_file=etcd_key_file,
            trust_domain=trust_domain,
            oidc_issuer_url=oidc_issuer_url,
            oidc_client_id=oidc_client_id,
            oidc_username_claim=oidc_username_claim,
            oidc_username_prefix=oidc_username_prefix,
            oidc_groups_claim=oidc_groups_claim,
            oidc_groups_prefix=oidc_groups_prefix,
            oidc_ca_file=oidc_ca_file,
            oidc_required_claim=oidc_required_claim,
            certificate_lifetime=certificate_lifetime,
            jwt_lifetime=jwt_lifetime,
            bundle_refresh=bundle_refresh,
            bundle_endpoint=bundle_endpoint or "",
            bundle_endpoint_cert_file=bundle_endpoint_cert_file,
            bundle_endpoint_key_file=bundle_endpoint_key_file,
            ca_key_type=ca_key_type,
            ca_dir=ca_dir,
            kubernetes_api=kubernetes_api,
            kubernetes_token_file=kubernetes_token_file,
            kubernetes_ca_file=kubernetes_ca_file,
            kubernetes_audience=kubernetes_audience,
            kubernetes_node=kubernetes_node,
            ca_signer_url=ca_signer_url,
            ca_signer_token_file=ca_signer_token_file,
            ca_signer_ca_file=ca_signer_ca_file,
            ca_signer_root_file=ca_signer_root_file,
            history=history,
            metrics_window=metrics_window,
            calls_window=calls_window,
            prometheus_url=prometheus_url,
            prometheus_token_file=prometheus_token_file,
            prometheus_ca_file=prometheus_ca_file,
            trace_sampling=trace_sampling,
            ratelimit_redis=ratelimit_redis,
            log_level=log_level,
        )
    )
