"""Rate limits that proxies have together: their shares, and exact counting."""
