"""The page: `page.py` serves the files of `static/` (native ES modules, no build step), `live.py` says when to look again."""
