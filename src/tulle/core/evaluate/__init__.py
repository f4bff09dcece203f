"""The model and a request → what a proxy does with it, and why: the second backend of the model beside `core/envoy`.

Nothing here knows an API kind or an Envoy message. That it decides as Envoy does is what tests/property/test_evaluate.py is for.
"""

from tulle.core.evaluate.decision import Decision, Outcome, Passed
from tulle.core.evaluate.hosts import choose_host
from tulle.core.evaluate.request import Request
from tulle.core.evaluate.routes import decide, decide_route

__all__ = ["Decision", "Outcome", "Passed", "Request", "choose_host", "decide", "decide_route"]
