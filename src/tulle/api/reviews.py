"""Kubernetes' reviews: questions to the API server that are answered and not kept. `status` has the answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import ConfigDict, Field

from tulle.api.object import Fault, Metadata, Object, Ruled, Schema
from tulle.api.values import Int64, Many, Map


class _Part(Schema):
    """Newer clients may say more than is known here; what they add narrows a question or is of no effect."""

    model_config = ConfigDict(extra="ignore")


class ResourceAttributes(_Part):
    """A question about resources: `verb` (`*` for any) on a `resource` of an API `group`; `name` "" is all of them."""

    namespace: str = ""
    verb: str = ""
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    field_selector: dict[str, Any] | None = None
    label_selector: dict[str, Any] | None = None


class NonResourceAttributes(_Part):
    """A question about a path of the server that is no resource; `verb` is the method in lower case."""

    path: str = ""
    verb: str = ""


class _Question(_Part, Ruled):
    resource_attributes: ResourceAttributes | None = None
    non_resource_attributes: NonResourceAttributes | None = None

    def faults(self) -> Iterator[Fault]:
        """One of the two."""
        if (self.resource_attributes is None) == (self.non_resource_attributes is None):
            found = "none" if self.resource_attributes is None else "both"
            message = f"found {found} of resourceAttributes and nonResourceAttributes; needed one of them"
            yield Fault(("resourceAttributes",), message, "Required" if found == "none" else "OneOf")


class SelfSubjectAccessReviewSpec(_Question):
    """May I?"""


class SubjectAccessReviewSpec(_Question):
    """May that user, in these groups?"""

    user: str = ""
    groups: Many[str] = ()
    extra: Map[Many[str]] = Field(default_factory=dict)
    uid: str = ""

    def faults(self) -> Iterator[Fault]:
        """Somebody."""
        yield from super().faults()
        if not self.user and not self.groups:
            yield Fault(("user",), "found neither a user nor groups; needed at least one of them", "Required")


class _Review(Object):
    model_config = ConfigDict(extra="ignore")

    metadata: Metadata = Field(default_factory=Metadata)


class SelfSubjectAccessReview(_Review):
    """Asks whether the caller may do something."""

    kind: Literal["SelfSubjectAccessReview"] = "SelfSubjectAccessReview"
    spec: SelfSubjectAccessReviewSpec


class SubjectAccessReview(_Review):
    """Asks whether a user may do something."""

    kind: Literal["SubjectAccessReview"] = "SubjectAccessReview"
    spec: SubjectAccessReviewSpec


class LocalSubjectAccessReview(_Review):
    """Asks whether a user may do something in the namespace of the review."""

    kind: Literal["LocalSubjectAccessReview"] = "LocalSubjectAccessReview"
    spec: SubjectAccessReviewSpec


class SelfSubjectRulesReviewSpec(_Part):
    """Where."""

    namespace: str = ""


class SelfSubjectRulesReview(_Review):
    """Asks for all that the caller may do in a namespace."""

    kind: Literal["SelfSubjectRulesReview"] = "SelfSubjectRulesReview"
    spec: SelfSubjectRulesReviewSpec


class SelfSubjectReview(_Review):
    """Asks who the caller is."""

    kind: Literal["SelfSubjectReview"] = "SelfSubjectReview"


class TokenReviewSpec(_Part):
    """Whose token, and for which of these audiences."""

    token: str = ""
    audiences: Many[str] = ()


class TokenReview(_Review):
    """Asks whose a bearer token is."""

    kind: Literal["TokenReview"] = "TokenReview"
    spec: TokenReviewSpec


class BoundObjectReference(_Part):
    """An object that a token is to live with."""

    kind: str = ""
    api_version: str = ""
    name: str = ""
    uid: str = ""


class TokenRequestSpec(_Part, Ruled):
    """For whom, for how long (seconds)."""

    audiences: Many[str] = ()
    expiration_seconds: Int64 | None = None
    bound_object_ref: BoundObjectReference | None = None

    def faults(self) -> Iterator[Fault]:
        """Ten minutes at least."""
        seconds = self.expiration_seconds
        if seconds is not None and seconds < 600:
            yield Fault(("expirationSeconds",), f"found {seconds}; may not specify a duration less than 10 minutes")
        elif seconds is not None and seconds > 2**32:
            yield Fault(("expirationSeconds",), f"found {seconds}; may not specify a duration larger than 2^32 seconds")


class TokenRequest(_Review):
    """Asks for a token of a service account."""

    kind: Literal["TokenRequest"] = "TokenRequest"
    spec: TokenRequestSpec = Field(default_factory=TokenRequestSpec)
