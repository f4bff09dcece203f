"""The control plane's OIDC settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tulle.app.oidc import oidc_issuer
from tulle.app.settings import ControlPlaneSettings
from tulle.kit.errors import Refused


def test_no_issuer_no_tokens() -> None:
    """Without the setting no token of anybody is taken."""
    assert oidc_issuer(ControlPlaneSettings()) is None


def test_settings_reach_the_issuer() -> None:
    """A flag that has no effect is worse than none."""
    settings = ControlPlaneSettings(
        oidc_issuer_url="https://issuer.example",
        oidc_client_id="tulle",
        oidc_username_claim="email",
        oidc_username_prefix="u:",
        oidc_groups_claim="groups",
        oidc_groups_prefix="g:",
        oidc_required_claim=("hd=example.com", "a=b=c"),
    )
    made = oidc_issuer(settings)
    assert made is not None
    found = made.settings
    assert (found.issuer_url, found.client_id, found.username_claim) == ("https://issuer.example", "tulle", "email")
    assert (found.username_prefix, found.groups_claim, found.groups_prefix) == ("u:", "groups", "g:")
    assert found.required_claims == {"hd": "example.com", "a": "b=c"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"oidc_required_claim": ("hd",)}, "NAME=VALUE"),
        ({"oidc_client_id": ""}, "client id"),
        ({"oidc_issuer_url": ""}, "without an issuer"),
    ],
)
def test_half_a_setting_is_refused(change: dict[str, Any], said: str) -> None:
    """A control plane must not start with less protection than its settings ask for."""
    whole = ControlPlaneSettings(oidc_issuer_url="https://issuer.example", oidc_client_id="tulle")
    with pytest.raises(Refused, match=said):
        oidc_issuer(replace(whole, **change))
