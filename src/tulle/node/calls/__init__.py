"""Single calls, as this node's Envoys tell of them (`core/envoy/calls.py`): a sample, and what failed.

Envoy ──OTLP logs──▶ intake.py ─▶ entry.py (a call) ─▶ core/recorded (shapes) ─▶ recorder.py ──▶ control plane
"""
