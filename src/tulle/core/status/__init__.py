"""Objects → their status, as upstream defines it: one row an object, made from the rows of `core.compile`. Pure.

What a listener's status says and what a gateway binds are read off the same rows, so that the two cannot differ.

| module | makes |
|---|---|
| `rows` | `Status`, `Condition`: what a row says, without times and generations |
| `features` | what we support of the Gateway API, one table |
| `gateway_classes`, `gateways`, `listener_sets`, `routes`, `backend_tls_policies` | the status of the Gateway API's kinds |
| `istio` | `status.conditions` and `status.validationMessages` of Istio's kinds |
| `objects` | `object_status` of each object |
| `progress` | what waits for proxies, decided by what they have acknowledged |
| `merge` | the status as it is to be written over the one that stands |

A row does not know proxies: a condition says whom it waits for, and `progress.decided` fills it in. So an acknowledgement
computes no row again, and a written status is never an input (`compile.objects.bare`).
"""
