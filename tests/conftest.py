"""Property tests try hypothesis's usual number of examples in `make test`; with `--hypothesis-profile=quick` a fifth.

That is for `make check`, where somebody waits, and for the other Pythons, which are asked whether they do the same. How fast
examples are made says something of the machine and of its other users, and nothing of what is tested.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

_MACHINE = [HealthCheck.too_slow]

settings.register_profile("whole", suppress_health_check=_MACHINE)
settings.register_profile("quick", max_examples=20, suppress_health_check=_MACHINE)
settings.load_profile("whole")
