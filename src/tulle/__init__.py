"""tulle: a service mesh that you can `pip install`. Start reading at `docs/architecture.md`."""

__version__ = "0.1.0"
