"""What is wrong with the objects of a mesh, with a stable code each: for `tulle analyze`, `apply`, `check` and `kubectl`.

    objects ──▶ inputs ──▶ object_findings (compile's problems and the analyzers) ──▶ Finding (codes)

| module | has |
|---|---|
| `codes` | the table of all codes: what each means, how bad it is, how it is mended |
| `inputs` | what is read beside the tables of `compile` |
| `coverage` | whether one match takes all that another would |
| `objects`, `shadowing`, `routing`, `tls`, `policies`, `gateways`, `services`, `secrets` | the analyzers, by subject |
| `findings` | which analyzers a kind has, and the table of what they find |
| `analysis` | `Analysis`, which keeps the findings of a flow up to date, and `analyze`, for one set of objects |

An analyzer is a function of `core.flow`: it reads rows through `fetch`, and what it finds is found again only where one of them
changed. Rules that `compile` knows are not written again: `object_problems` has them. Nothing is imported here: the command line
has findings to print, and no use for what finds them.
"""
