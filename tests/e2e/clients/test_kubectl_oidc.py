"""The real kubectl with an ID token of an OpenID Connect issuer, against a whole control plane."""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.issuer import issuing
from tests.support.kubectl import Kubectl, kubectls
from tests.support.mesh import free_port
from tulle.app.control_plane import ControlPlane
from tulle.app.settings import ControlPlaneSettings
from tulle.client.kubeconfig import read, with_token

pytestmark = pytest.mark.e2e


async def test_a_person_of_the_issuer(tmp_path: Path) -> None:
    """People of a company's single sign-on would not get in, would get in as somebody else, or with what nobody granted them."""
    if not kubectls():
        pytest.skip("there is no kubectl")
    async with issuing() as issuer:
        trusted = tmp_path / "issuer.pem"
        trusted.write_bytes(issuer.ca.pem)
        settings = ControlPlaneSettings(
            state_dir=tmp_path / "state",
            api_address=f"127.0.0.1:{free_port()}",
            xds_address=f"127.0.0.1:{free_port()}",
            oidc_issuer_url=issuer.url,
            oidc_client_id="tulle",
            oidc_username_prefix="sso:",
            oidc_groups_claim="groups",
            oidc_groups_prefix="sso:",
            oidc_ca_file=trusted,
        )
        async with ControlPlane(settings):
            own = tmp_path / "state" / "kubeconfig"
            admin = Kubectl(kubectls()[0], own, tmp_path)

            async def with_(token: str, *arguments: str) -> subprocess.CompletedProcess[str]:
                config = tmp_path / "person.kubeconfig"
                config.write_text(with_token(read(own), token, "person"))
                return await asyncio.to_thread(Kubectl(admin.path, config, tmp_path).run, *arguments)

            token = issuer.token(groups=["operators"])
            told = await with_(token, "auth", "whoami")
            assert "sso:alice" in told.stdout, told.stderr
            assert "sso:operators" in told.stdout
            refused = await with_(token, "get", "virtualservices")
            assert 'User "sso:alice" cannot list resource "virtualservices"' in refused.stderr
            binding = ("create", "clusterrolebinding", "operators", "--clusterrole=operator", "--group=sso:operators")
            await asyncio.to_thread(admin, *binding)
            assert (await with_(token, "auth", "can-i", "create", "virtualservices")).stdout.strip() == "yes"
            assert (await with_(token, "auth", "can-i", "create", "clusterroles")).stdout.strip() == "no"
            for bad in (issuer.token(exp=time.time() - 60), issuer.token(aud="another"), f"{token[:-4]}AAAA"):
                refused = await with_(bad, "get", "virtualservices")
                assert refused.returncode != 0
                assert "Unauthorized" in refused.stderr or "must be logged in" in refused.stderr, refused.stderr
