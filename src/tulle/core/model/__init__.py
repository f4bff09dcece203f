"""The mesh's own nouns, frozen. No API kind and no Envoy message is known here.

`compile/` makes them from API objects, `envoy/` turns them into protobuf, `evaluate/` interprets them. Complete enough to
decide a request without Envoy. Every struct omits its defaults when encoded, so that a golden `model.yaml` stays short.
"""
