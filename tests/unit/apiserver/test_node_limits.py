"""What a node may write, asked over HTTP: Leases of Gateways. (Workloads and Services: test_authorization.py.)"""

from __future__ import annotations

from typing import Any

from tests.support.apiserver import running
from tests.support.asking import Person


async def test_a_node_takes_leases_of_gateways_for_itself() -> None:
    """Broken: a node that is broken into would give itself other people's Leases, or a Gateway of a namespace that is not its."""

    async def identities(node: str) -> tuple[str, ...] | None:
        return {"n1": ("default/*",), "n2": ("shop/*",)}.get(node)

    def lease(name: str, *, gateway: bool = True, node: str = "", holder: str = "") -> dict[str, Any]:
        notes, labels = {"tulle.dev/node": node} if node else {}, {"tulle.dev/gateway": "gw"} if gateway else {}
        metadata = {"name": name, "labels": labels, "annotations": notes}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {"holderIdentity": holder} if holder else {},
        }

    leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    async with (
        running(identities=identities) as served,
        Person(served, "admin", "system:masters") as admin,
        Person(served, uris=["spiffe://cluster.local/node/n1"]) as one,
        Person(served, uris=["spiffe://cluster.local/node/n2"]) as two,
    ):
        for body in (lease("free"), lease("named", node="n2"), lease("theirs", gateway=False)):
            assert await admin.status("POST", leases, body) == 201
        assert await one.status("PUT", f"{leases}/free", lease("free", holder="n2")) == 403
        assert await one.status("PUT", f"{leases}/free", lease("free", gateway=False, holder="n1")) == 403
        assert await two.status("PUT", f"{leases}/free", lease("free", holder="n2")) == 403, "its token is for another namespace"
        assert await one.status("PUT", f"{leases}/free", lease("free", holder="n1")) == 200
        assert await one.status("PUT", f"{leases}/named", lease("named", node="n1", holder="n1")) == 403
        assert await one.status("PUT", f"{leases}/theirs", lease("theirs", holder="n1")) == 403
        assert await one.status("DELETE", f"{leases}/free") == 403
        assert await one.status("POST", leases, lease("new")) == 403
