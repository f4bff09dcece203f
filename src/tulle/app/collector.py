"""Python's collector of cycles, told what a control plane is: many objects that stay.

A full collection walks every object of the mesh: half a second at 10,000, in which no request is answered. What is there after
the load is set aside once; after that only what changes is walked.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

# New objects before the youngest are looked through (a request makes some hundreds), how often that is before the next age is
# looked at too (some 100,000 objects: 40 ms in which nobody is answered), and before all are.
_AGES = (20_000, 4, 100)


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """While everything is read: nothing is collected. Afterwards what was read is no longer looked at."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*_AGES)
        gc.enable()
