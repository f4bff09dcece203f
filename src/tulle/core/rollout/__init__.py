"""Roll-outs, decided purely: `plan` (what was asked for), `judge` (what was measured), `decide` (what is to be done), `steering`
(the weights of a route). `control/rollouts.py` looks and does.
"""
