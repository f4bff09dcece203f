"""What people see of single requests of this node's workloads: access logs, and taps.

Envoy ──lines──▶ files.py (kept within bounds) ──▶ follow.py ─▶ lines.py ─┐
Envoy ──entries, while somebody looks──▶ tap.py ─▶ requests.py ───────────┴▶ looks.py ──▶ control plane ──▶ person
"""
