"""Answers to Kubernetes' reviews: `kubectl auth can-i`, `auth whoami`, `create token`, and servers that ask for their users.

Each is a POST that stores nothing. Who may ask what is authorised like any create.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import structlog

from tulle.api.decode import decode_review
from tulle.api.kind import Kind
from tulle.api.registry import REVIEWS, TOKEN_REQUEST, kind_of_resource
from tulle.api.reviews import (
    BoundObjectReference,
    NonResourceAttributes,
    ResourceAttributes,
    SelfSubjectAccessReview,
    SelfSubjectRulesReview,
    SubjectAccessReview,
    TokenRequest,
    TokenReview,
)
from tulle.control.apiserver import errors
from tulle.control.apiserver.auth import Attributes, Decision, User
from tulle.control.apiserver.authn import Authenticator
from tulle.control.apiserver.authorizer import RbacAuthorizer
from tulle.control.apiserver.guard import Guard
from tulle.control.apiserver.table import timestamp
from tulle.control.apiserver.target import Target
from tulle.control.apiserver.tokens import AUDIENCE, Bound, service_account_groups
from tulle.ports import Key, Store

log = structlog.get_logger("tulle.apiserver")

Raw = dict[str, Any]
Answer = Callable[[Guard, Target, Any], Awaitable[Raw]]

_LIFETIME = 3600.0  # seconds of a token that asks for none
_ACCOUNTS = "serviceaccounts"


class Reviews:
    """What is served: `find` by path, then `answer`."""

    def __init__(self, store: Store, authenticator: Authenticator, authorizer: RbacAuthorizer) -> None:
        self.store, self.authenticator, self.authorizer = store, authenticator, authorizer
        answers: dict[str, Answer] = {
            "SelfSubjectAccessReview": self._may_i,
            "SubjectAccessReview": self._may_user,
            "LocalSubjectAccessReview": self._may_user,
            "SelfSubjectRulesReview": self._what_may_i,
            "SelfSubjectReview": self._who_am_i,
            "TokenReview": self._whose,
        }
        self._by_place = {(kind.group, kind.plural): (kind, answers[kind.kind]) for kind in REVIEWS}

    def find(self, path: str) -> tuple[Target, Kind, Answer] | None:
        """The review that a raw path is for: its target, the kind of its body, and what answers; None where it is for none."""
        match [unquote(part) for part in path.strip("/").split("/")]:
            case ["apis", group, version, plural]:
                found = self._by_place.get((group, plural))
                if found is not None and version in found[0].versions and not found[0].namespaced:
                    return Target(found[0], version, ""), *found
            case ["apis", group, version, "namespaces", namespace, plural] if namespace:
                found = self._by_place.get((group, plural))
                if found is not None and version in found[0].versions and found[0].namespaced:
                    return Target(found[0], version, namespace), *found
            case ["api", "v1", "namespaces", namespace, "serviceaccounts", name, "token"] if namespace and name:
                accounts = kind_of_resource(_ACCOUNTS)
                assert accounts is not None
                return Target(accounts, "v1", namespace, name, "token"), TOKEN_REQUEST, self._token
        return None

    async def _may_i(self, guard: Guard, _at: Target, review: SelfSubjectAccessReview) -> Raw:
        asked = _attributes(review.spec.resource_attributes, review.spec.non_resource_attributes)
        return _access(await guard.allowed(asked))

    async def _may_user(self, _guard: Guard, at: Target, review: SubjectAccessReview) -> Raw:
        spec = review.spec
        if at.namespace:
            resource = spec.resource_attributes
            if resource is None or resource.namespace != at.namespace:
                found = "none" if resource is None else resource.namespace or "none"
                wrong = f"found {found}; needed {at.namespace}, the namespace of the review"
                raise errors.bad_field(at.kind, "", "spec.resourceAttributes.namespace", wrong)
        user = User(spec.user, spec.groups, uid=spec.uid, extra=dict(spec.extra))
        asked = _attributes(spec.resource_attributes, spec.non_resource_attributes)
        return _access(await self.authorizer.allowed(user, asked))

    async def _what_may_i(self, guard: Guard, at: Target, review: SelfSubjectRulesReview) -> Raw:
        namespace = review.spec.namespace
        if not namespace:
            raise errors.bad_field(at.kind, "", "spec.namespace", "found none; needed a namespace")
        rules = [rule.raw() for rule, _ in self.authorizer.rules(guard.user, namespace)]
        unique = [rule for index, rule in enumerate(rules) if rule not in rules[:index]]
        return {
            "incomplete": False,
            "resourceRules": [rule for rule in unique if "nonResourceURLs" not in rule],
            "nonResourceRules": [rule for rule in unique if "nonResourceURLs" in rule],
        }

    async def _who_am_i(self, guard: Guard, _at: Target, _review: Any) -> Raw:
        return {"userInfo": _info(guard.user)}

    async def _whose(self, _guard: Guard, _at: Target, review: TokenReview) -> Raw:
        found = await self.authenticator.redeem(review.spec.token, review.spec.audiences or (AUDIENCE,))
        if found is None:
            return {"authenticated": False, "user": {}, "error": "the token is not valid, or not for these audiences"}
        user, audiences = found
        return {"authenticated": True, "user": _info(user), "audiences": list(audiences)}

    async def _token(self, guard: Guard, at: Target, review: TokenRequest) -> Raw:
        account = await self.store.get(at.key)
        if account is None:
            raise errors.not_found(at.kind, at.name)
        spec = review.spec
        bound = [Bound(_ACCOUNTS, at.namespace, at.name, account.body["metadata"]["uid"])]
        if spec.bound_object_ref is not None:
            bound.append(await self._bound(at, spec.bound_object_ref))
        token, number, kept = await self.authenticator.tokens.create(
            f"system:serviceaccount:{at.namespace}:{at.name}",
            service_account_groups(at.namespace),
            float(spec.expiration_seconds or _LIFETIME),
            guard.user.author,
            audiences=spec.audiences,
            uid=bound[0].uid,
            bound=bound,
        )
        log.info("token made", user=kept.user, id=number, author=kept.author, until=timestamp(kept.expires))
        return {"token": token, "expirationTimestamp": timestamp(kept.expires)}

    async def _bound(self, at: Target, ref: BoundObjectReference) -> Bound:
        if (ref.kind, ref.api_version) != ("Secret", "v1"):
            wrong = f"found {ref.kind} of {ref.api_version or 'no version'}; needed a Secret of v1"
            raise errors.bad_field(TOKEN_REQUEST, at.name, "spec.boundObjectRef", wrong)
        secrets = kind_of_resource("secrets")
        assert secrets is not None
        stored = await self.store.get(Key("secrets", at.namespace, ref.name))
        if stored is None:
            raise errors.not_found(secrets, ref.name)
        uid = str(stored.body["metadata"]["uid"])
        if ref.uid not in ("", uid):
            raise errors.conflict(
                secrets, ref.name, f"the UID in the bound object reference ({ref.uid}) is not the object's ({uid})"
            )
        return Bound("secrets", at.namespace, ref.name, uid)


def read(kind: Kind, body: Any) -> Any:
    """The typed review of a request's body. Raises a `Denial` with every mistake."""
    if not isinstance(body, dict):
        raise errors.bad_request("the body is not an object")
    api_version = f"{kind.group}/{kind.versions[0]}"
    for field, needed in (("apiVersion", api_version), ("kind", kind.kind)):
        if body.setdefault(field, needed) != needed:
            raise errors.bad_request(f"{field}: found {str(body[field])[:100]!r}; needed {needed}")
    review, problems = decode_review(body, kind)
    if review is None:
        raise errors.invalid(kind, "", problems)
    return review


def answered(kind: Kind, at: Target, body: Raw, status: Raw) -> Raw:
    """The review with its answer. A token that was asked about is not said again."""
    spec = {name: value for name, value in (body.get("spec") or {}).items() if kind.kind != "TokenReview" or name != "token"}
    metadata: Raw = {"creationTimestamp": None}
    if at.name:
        metadata |= {"name": at.name, "namespace": at.namespace}
    made: Raw = {"kind": kind.kind, "apiVersion": f"{kind.group}/{kind.versions[0]}", "metadata": metadata}
    return made | ({"spec": spec} if "spec" in kind.model.model_fields else {}) | {"status": status}


def _attributes(resource: ResourceAttributes | None, path: NonResourceAttributes | None) -> Attributes:
    if resource is not None:
        return Attributes(
            resource.verb, resource.group, resource.resource, resource.subresource, resource.namespace, resource.name
        )
    assert path is not None
    return Attributes(path.verb, path=path.path or "/")


def _access(decision: Decision) -> Raw:
    return {"allowed": decision.allowed} | ({"reason": decision.reason} if decision.reason else {})


def _info(user: User) -> Raw:
    made: Raw = {"username": user.name} | ({"uid": user.uid} if user.uid else {}) | {"groups": list(user.groups)}
    return made | ({"extra": {key: list(values) for key, values in user.extra.items()}} if user.extra else {})
