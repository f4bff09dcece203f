"""Why a request got its status: from the record of it, Envoy's flags and details, and the configuration. Pure.

record ─▶ causes.py (what each flag and detail means) ─▶ known.py (the objects and rows that it is about) ─▶ paragraph.py
"""

from tulle.core.explain.paragraph import Explanation, deciding, explain

__all__ = ["Explanation", "deciding", "explain"]
