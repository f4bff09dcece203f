"""What proxies tell of calls: `window.py` keeps it for a while (pure), `api.py` takes and shows it."""
