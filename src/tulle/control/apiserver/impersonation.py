"""`kubectl --as`: acting as another user, for those whose roles grant the verb `impersonate` on him and all that he has."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote

from multidict import CIMultiDictProxy

from tulle.control.apiserver import errors
from tulle.control.apiserver.auth import AUTHENTICATED, Attributes, Authorizer, User
from tulle.control.apiserver.tokens import service_account_groups

_USER, _GROUP, _UID, _EXTRA = "Impersonate-User", "Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-"
_ALL = "impersonate-"
_GROUP_NAME = "authentication.k8s.io"
_ACCOUNT = "system:serviceaccount:"
_ANONYMOUS = ("system:anonymous", "system:unauthenticated")


async def impersonated(headers: CIMultiDictProxy[str], user: User, authorizer: Authorizer) -> User:
    """The user to act as: `user` itself where no header asks for another. Raises a `Denial`: 403, or 400 for half a wish."""
    if not any(header[: len(_ALL)].lower() == _ALL for header in headers):
        return user
    names, groups, uids = headers.getall(_USER, []), headers.getall(_GROUP, []), headers.getall(_UID, [])
    extra: dict[str, tuple[str, ...]] = {}
    for header, value in headers.items():
        if header.lower().startswith(_EXTRA.lower()):
            key = unquote(header[len(_EXTRA) :].lower())
            extra[key] = (*extra.get(key, ()), value)
    if not names:
        if groups or uids or extra:
            raise errors.bad_request(f"{_USER}: found none; needed a user to impersonate beside groups, a uid or extra fields")
        return user
    if len(names) > 1 or len(uids) > 1 or not all((*names, *groups, *uids)):
        raise errors.bad_request(f"{_USER}, {_UID}: found several, or an empty one; needed one value each")
    for asked in _asked(names[0], groups, uids, extra):
        if not (await authorizer.allowed(user, asked)).allowed:
            what = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
            where = f' in the namespace "{asked.namespace}"' if asked.namespace else " at the cluster scope"
            message = f'User "{user.name}" cannot impersonate resource "{what}" in API group "{asked.group}"{where}'
            raise errors.forbidden(f'{asked.resource} "{asked.name}" is forbidden: {message}')
    return User(names[0], _groups(names[0], groups), "", uids[0] if uids else "", extra, actor=user.name)


def asked_of(name: str, groups: tuple[str, ...]) -> Iterator[Attributes]:
    """What must be allowed to whoever wants to be that user in those groups, or to make a token for him."""
    return _asked(name, list(groups), [], {})


def _asked(name: str, groups: list[str], uids: list[str], extra: dict[str, tuple[str, ...]]) -> Iterator[Attributes]:
    namespace, _, account = name.removeprefix(_ACCOUNT).partition(":") if name.startswith(_ACCOUNT) else ("", "", "")
    if namespace and account:
        yield Attributes("impersonate", "", "serviceaccounts", "", namespace, account)
    else:
        yield Attributes("impersonate", "", "users", "", "", name)
    for group in groups:
        yield Attributes("impersonate", "", "groups", "", "", group)
    for uid in uids:
        yield Attributes("impersonate", _GROUP_NAME, "uids", "", "", uid)
    for key, values in extra.items():
        for value in values:
            yield Attributes("impersonate", _GROUP_NAME, "userextras", key, "", value)


def _groups(name: str, groups: list[str]) -> tuple[str, ...]:
    """What was asked for; a service account has its own where none was."""
    if not groups and name.startswith(_ACCOUNT):
        groups = list(service_account_groups(name.removeprefix(_ACCOUNT).partition(":")[0]))
    if name == _ANONYMOUS[0]:
        return tuple(dict.fromkeys((*groups, _ANONYMOUS[1])))
    return tuple(dict.fromkeys((*groups, AUTHENTICATED)))
