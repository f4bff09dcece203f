"""MeshConfig's external authorizers → whom proxies ask for policies with the action CUSTOM, and how."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from tulle.api.own import MeshConfig
from tulle.api.own.providers import ExtensionProvider, GRPCAuthorizer, HTTPAuthorizer, ServiceProvider
from tulle.api.values import seconds
from tulle.core.compile import backends
from tulle.core.compile.headers import clean, template
from tulle.core.compile.hostname import Key
from tulle.core.compile.mistakes import error
from tulle.core.compile.objects import mesh_configs, settled
from tulle.core.compile.rule_filters import plain_path
from tulle.core.flow import Fetch, table
from tulle.core.model.authorization import Authorizer
from tulle.core.model.destination import DestinationKey
from tulle.core.model.external_auth import ExternalAuth
from tulle.kit.problem import Problem

_PATIENCE = "10s"


@table
def authorizer(fetch: Fetch, name: str) -> Authorizer | Problem | None:
    """The provider of a name, or why it cannot be asked; None where there is none."""
    for row in fetch.rows(mesh_configs):
        for index, one in enumerate(row.spec.extension_providers):
            if one.name == name:
                return _authorizer(fetch, row, index, one)
    return None


def _authorizer(fetch: Fetch, row: MeshConfig, index: int, one: ExtensionProvider) -> Authorizer | Problem | None:
    http, grpc = one.envoy_ext_authz_http, one.envoy_ext_authz_grpc
    said = http or grpc
    if said is None:
        return None
    at = f"spec.extensionProviders[{index}].{'envoyExtAuthzHttp' if http else 'envoyExtAuthzGrpc'}"
    found = provider_destination(fetch, row, said, at, grpc=grpc is not None)
    if isinstance(found, Problem):
        return found
    wrong = [name for name, value in http.include_additional_headers_in_check.items() if not clean(value)] if http else []
    if wrong:
        message = f"found a control character in the value of {wrong[0]}; needed none"
        return error(row.ref, f"{at}.includeAdditionalHeadersInCheck", "BadFormat", message)
    return Authorizer(one.name, _asks(found, said))


def provider_destination(fetch: Fetch, row: MeshConfig, said: ServiceProvider, at: str, *, grpc: bool) -> backends.Found:
    """The service that a provider of a MeshConfig names, where its port speaks what that needs."""
    space, _slash, host = said.service.rpartition("/")
    # A short name means a service of the root namespace, where what is for the whole mesh lies.
    here = msgspec.structs.replace(row.ref, namespace=space or settled(fetch).root_namespaces[0])
    found = backends.find(fetch, here, at, host, said.port, "", 0)
    if isinstance(found, DestinationKey):
        found = backends.asked(fetch, here, found, at, grpc=grpc)
    if isinstance(found, Problem):
        path = found.path.removesuffix(".number")
        return msgspec.structs.replace(found, ref=row.ref, path=f"{at}.service" if path.endswith(".host") else path)
    return found


def _asks(destination: DestinationKey, said: HTTPAuthorizer | GRPCAuthorizer) -> ExternalAuth:
    body = said.include_request_body_in_check
    made = ExternalAuth(
        destination=destination,
        grpc=isinstance(said, GRPCAuthorizer),
        most_body=body.max_request_bytes if body else 0,
        partial=bool(body and body.allow_partial_message),
        packed=bool(body and body.pack_as_bytes),
        timeout=seconds(said.timeout or _PATIENCE),
        fail_open=said.fail_open,
        status=int(said.status_on_error or 403),
        reroute=said.clear_route_cache,
    )
    if isinstance(said, GRPCAuthorizer):
        return made
    return msgspec.structs.replace(
        made,
        path=plain_path(said.path_prefix),
        shown=_names((*said.include_request_headers_in_check, *said.include_headers_in_check)),
        added=tuple(
            (name.lower(), template(value, placeholders=True))
            for name, value in sorted(said.include_additional_headers_in_check.items())
        ),
        copied=_names(said.headers_to_upstream_on_allow),
        passed=_names(said.headers_to_downstream_on_allow),
        refused=_names(said.headers_to_downstream_on_deny),
    )


def _names(said: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted({name.lower() for name in said}))


def authorizer_problems(fetch: Fetch, key: Key) -> Iterator[Problem]:
    """The authorizers of a MeshConfig that cannot be asked."""
    row = fetch(mesh_configs, key)
    for one in row.spec.extension_providers if row else ():
        found = fetch(authorizer, one.name)
        if isinstance(found, Problem) and row and found.ref == row.ref:
            yield found
