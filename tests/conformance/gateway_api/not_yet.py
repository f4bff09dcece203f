"""What of the Gateway API's conformance suite does not pass yet: test → reason, and the checks of it that fail.

Such as `"HTTPRouteWeight": ("weights are not kept", ("shares",))`.
"""

from __future__ import annotations

NOT_YET: dict[str, tuple[str, tuple[str, ...]]] = {}
