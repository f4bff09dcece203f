"""Python's collector of cycles, told what a control plane is: many objects that stay.

A full collection walks every object of the mesh: half a second at 10,000, in which no request is answered. What is there after
the load is set aside once; after that only what changes is walked. Of what a commit makes nearly all stays, as the collector
does not know: left to itself it walks that twice, at two ages, which costs a tenth of the time of a control plane that is written
to all the time.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

# New objects before they are looked through: some milliseconds in which nobody is answered. Of more the first are no longer in
# the processor's cache and cost twice as much; with less, what requests have in hand is looked through at every commit.
_YOUNG = 10_000
_OFTEN = 1_000  # so often before all objects are
_AGES = (10 * _YOUNG, 4, 100)  # where nothing is committed, and all the same so many are made
_PYTHON = (700, 10, 10)  # its own


def settle() -> None:
    """Look through what is new if it is much; what is still used counts as old at once. To be called after every commit."""
    young, _, often = gc.get_count()
    if young > _YOUNG and gc.isenabled():
        gc.collect(2 if often > _OFTEN else 1)


def started() -> None:
    """For a program without many objects: what was loaded is no longer looked at, and for the rest it is as Python does it."""
    gc.freeze()
    gc.set_threshold(*_PYTHON)


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
