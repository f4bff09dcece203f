"""Python's collector of cycles, told what a control plane is: many objects that stay.

A full collection walks every object of the mesh: half a second at 10,000, in which no request is answered. What is there after
the load is set aside once; after that only what changes is walked.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

_YOUNG = 20_000  # new objects before the youngest are looked through; a request makes some hundreds


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """While everything is read: nothing is collected. Afterwards what was read is no longer looked at."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(_YOUNG, 20, 20)
        gc.enable()
