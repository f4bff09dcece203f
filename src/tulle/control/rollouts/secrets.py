"""Fields of Secrets that Rollouts name: keys that sign, addresses that are secret."""

from __future__ import annotations

import base64

from tulle.api.kubernetes import Secret
from tulle.kit.errors import Refused
from tulle.ports import Key, Store


async def secret_value(store: Store, namespace: str, name: str, key: str) -> str:
    """A field of a Secret. Raises `Refused` where there is none."""
    stored = await store.get(Key("secrets", namespace, name))
    if stored is None:
        raise Refused(f"Secret {namespace}/{name} is not there")
    secret = Secret.model_validate(stored.body)
    if key in secret.string_data:
        return secret.string_data[key]
    try:
        return base64.b64decode(secret.data[key], validate=True).decode()
    except KeyError:
        raise Refused(f"Secret {namespace}/{name} has no {key}") from None
    except ValueError:
        raise Refused(f"Secret {namespace}/{name}: {key} is no text") from None
