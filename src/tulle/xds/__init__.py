"""The xDS protocol, which the control plane and the node both speak. `stream.py` is pure; `server.py`, `client.py` do the I/O."""
