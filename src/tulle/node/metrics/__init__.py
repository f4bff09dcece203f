"""A workload's metrics: what its Envoy counts, under Istio's names, and beside it what its application says of itself.

Envoy ──protobuf──▶ families.py ──▶ standard.py (Istio's names and labels) ──▶ text.py ──▶ :15020/stats/prometheus
"""
