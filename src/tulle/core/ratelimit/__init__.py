"""Rate limits that several proxies share, decided purely. Their rules and all names are in `core.model.rate_limit`.

In:  `Pipeline.shared_limits`: each rule that is counted by shares, with the proxies that enforce it (`SharedLimit`);
     what these were asked for, from Envoy's counters (`Limit.stat_prefix`).
Out: `Pipeline.take_shares({(rule id, proxy id): share})` with shares above 0 up to 1, which are 1 together for each rule. Who
     has none given has an even split among the members. A share that changes is one small resource of one proxy, and leaves
     buckets as full as they are.

`Pipeline.exact_limits` are the rules that the service has to count.
"""
