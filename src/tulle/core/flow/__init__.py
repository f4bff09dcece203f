"""Derived tables: say what a row is made of, and only what a change touches is made again.

This package knows no mesh. It is the idea of salsa (Rust) and krt (Istio) on one page:

- An `Input` holds rows by key. Only `Flow.commit` changes it. It may have named indexes: "all rows of namespace x".
- A `Table` is a pure function `(fetch, key) -> row or None`. It reads other rows only through `fetch`, which writes down what
  was read: those are its dependencies, there is no other declaration of them.
- `Flow` holds the rows. `commit(batch)` marks as doubtful what depends, over any number of steps, on a changed input row or on
  a changed index bucket; nothing is computed yet. A doubtful row is settled when it is asked for: its dependencies are settled
  in the order in which they were read, and only where one of them really has another value is the function called again. A row
  that comes out equal (`==`) stops the change there: what depends on it is settled without being computed.
- A `Watch` keeps rows alive and says which of them changed. A row that neither a watch nor another row uses is dropped.

Rules for the functions: no side effects, no reading around `fetch`, equal inputs give equal rows, no cycles (a cycle raises
`CycleError`). Rows are values: never change one after returning it.

    services: Input[str, Service] = Input("services", namespace=lambda key, row: [row.namespace])

    @table
    def names_of(fetch: Fetch, namespace: str) -> tuple[str, ...]:
        return tuple(row.name for row in fetch.rows(services, "namespace", namespace))

    flow = Flow()
    flow.commit({services: {"a": Service(...), "b": None}})  # None deletes
    flow.get(names_of, "default")

Reading by index depends on which keys are in the bucket (`fetch.keys`), and `fetch.rows` on each row besides. The order of rows
is the order of their keys, so that nothing depends on the order in which they came.
"""

from tulle.core.flow.graph import CycleError, Fetch, Flow, Watch
from tulle.core.flow.tables import Input, Table, table

__all__ = ["CycleError", "Fetch", "Flow", "Input", "Table", "Watch", "table"]
