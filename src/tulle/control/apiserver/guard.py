"""What one user may do, as a thing to ask: for the request as it comes, and for the objects that it really writes.

    routes ──▶ Guard.require(verb, target)            before anything is read
    Objects ──▶ Guard.check(verb, target, body, old)   with the object as it will be stored, after patches and defaults

`request["guard"]` has it in sub-applications.
"""

from __future__ import annotations

from typing import Any

from tulle.control.apiserver import errors
from tulle.control.apiserver.auth import Attributes, Authorizer, User
from tulle.control.apiserver.target import Target

Raw = dict[str, Any]


class Guard:
    """The permissions of one user."""

    def __init__(self, authorizer: Authorizer, user: User) -> None:
        self.authorizer, self.user = authorizer, user

    async def require(self, verb: str, target: Target) -> None:
        """Raises a `Denial` (403) where the user may not do `verb` to the target."""
        kind = target.kind
        asked = Attributes(verb, kind.group, kind.plural, target.subresource, target.namespace, target.name)
        decision = await self.authorizer.allowed(self.user, asked)
        if not decision.allowed:
            raise self._forbidden(verb, target)

    async def check(self, verb: str, target: Target, body: Raw | None, old: Raw | None) -> None:
        """The last word before a write: `verb` is `create`, `update` or `delete`; `body` None for a delete, `old` for a create.

        Raises a `Denial` (403) where this user may not write this content.
        """

    def _forbidden(self, verb: str, target: Target) -> errors.Denial:
        kind = target.kind
        where = f' in the namespace "{target.namespace}"' if target.namespace else " at the cluster scope"
        what = f"{kind.plural}/{target.subresource}" if target.subresource else kind.plural
        message = f'User "{self.user.name}" cannot {verb} resource "{what}" in API group "{kind.group}"{where}'
        return errors.forbidden(f'{kind.resource} "{target.name}" is forbidden: {message}', kind, target.name)
