"""The OIDC issuer that the control plane's settings name."""

from __future__ import annotations

from tulle.app.settings import ControlPlaneSettings
from tulle.control.apiserver.oidc import Oidc, OidcSettings
from tulle.kit.errors import Refused


def oidc_issuer(settings: ControlPlaneSettings) -> Oidc | None:
    """Whose tokens are taken; None without an issuer. Raises `Refused` where the settings make no sense."""
    if not settings.oidc_issuer_url:
        if settings.oidc_client_id:
            raise Refused("--oidc-client-id: found one without an issuer", hint="give --oidc-issuer-url too")
        return None
    required: dict[str, str] = {}
    for claim in settings.oidc_required_claim:
        name, _, value = claim.partition("=")
        if not name or not value:
            raise Refused(f"--oidc-required-claim: found {claim!r}, needed NAME=VALUE")
        required[name] = value
    return Oidc(
        OidcSettings(
            settings.oidc_issuer_url,
            settings.oidc_client_id,
            username_claim=settings.oidc_username_claim,
            username_prefix=settings.oidc_username_prefix,
            groups_claim=settings.oidc_groups_claim,
            groups_prefix=settings.oidc_groups_prefix,
            ca_file=settings.oidc_ca_file,
            required_claims=required,
        )
    )
