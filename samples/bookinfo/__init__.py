"""Bookinfo, the sample application: four small services with the interfaces of Istio's Bookinfo.

So everybody's examples fit. They know nothing of the mesh. `python -m bookinfo SERVICE` (with the folder above on PYTHONPATH)
serves one of them on `$PORT`, 9080 unless set.
"""
