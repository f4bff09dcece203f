"""Property tests try hypothesis's usual number of examples in `make test`; with `--hypothesis-profile=quick` a fifth.

That is for `make check`, where somebody waits, and for the other Pythons, which are asked whether they do the same.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("quick", max_examples=20)
