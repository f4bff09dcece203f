"""What proxies check their peers with: each trust domain with its own authorities, and only those that are configured."""

from __future__ import annotations

from typing import Any

from tests.unit.core.compile.mesh import changes, obj
from tulle.core import type_urls
from tulle.core.compile.layers import UNGUARDED
from tulle.core.envoy.tls import ROOTS
from tulle.core.pipeline import Pipeline
from tulle.pb.envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_spiffe_validator_config_pb2

OWN, WEST = "own roots\n", "west's roots\n"


def trusted(pipeline: Pipeline) -> Any:
    """What the secret says: one bundle as text, or bundles by trust domain."""
    resource = pipeline.table(UNGUARDED, type_urls.SECRET)[ROOTS]
    context = secret_pb2.Secret.FromString(resource.value).validation_context
    if not context.HasField("custom_validator_config"):
        return context.trusted_ca.inline_bytes.decode()
    assert not context.HasField("trusted_ca"), "what is trusted there is trusted for every name"
    config = tls_spiffe_validator_config_pb2.SPIFFECertValidatorConfig()
    assert context.custom_validator_config.typed_config.Unpack(config)
    return {one.name: one.trust_bundle.inline_bytes.decode() for one in config.trust_domains}


def mesh(**spec: Any) -> Any:
    said = {"apiVersion": "tulle.dev/v1alpha1", "kind": "MeshConfig", "metadata": {"name": "mesh"}, "spec": spec}
    return changes([obj(said)])


def test_each_trust_domain_has_its_own_roots() -> None:
    """Broken: a partner could sign for this mesh, one that is configured no longer is believed, or the mesh's old name is not."""
    pipeline = Pipeline(trust_domain="east.example")
    pipeline.take_roots(OWN.encode(), {"west.example": WEST})
    assert trusted(pipeline) == OWN, "a bundle that nobody configured is nobody's"
    west = {"trustDomain": "west.example", "bundleEndpoint": {"url": "https://west.example/"}}
    pipeline.commit(mesh(federatedTrustDomains=[west]), 1)
    assert trusted(pipeline) == {"east.example": OWN, "west.example": WEST}
    pipeline.commit(mesh(federatedTrustDomains=[west], trustDomainAliases=["old.example"]), 2)
    assert trusted(pipeline) == {"east.example": OWN, "old.example": OWN, "west.example": WEST}
    pipeline.commit(mesh(federatedTrustDomains=[west], trustDomainAliases=["west.example"]), 3)
    assert trusted(pipeline) == {"east.example": OWN, "west.example": OWN}, "a name of its own is not somebody else's"
    pipeline.take_roots(OWN.encode(), {})
    pipeline.commit(mesh(federatedTrustDomains=[west]), 4)
    assert trusted(pipeline) == OWN, "configured, and not read yet"
