"""Picks the service: `python -m bookinfo {productpage,details,reviews,ratings} [--version v2] [--port 9080]`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from aiohttp import web

from bookinfo import details, productpage, ratings, reviews

SERVICES: dict[str, Callable[[str], web.Application]] = {
    "productpage": productpage.application,
    "details": details.application,
    "reviews": reviews.application,
    "ratings": ratings.application,
}


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(prog="bookinfo", description="One service of the Bookinfo sample.")
    parser.add_argument("service", choices=sorted(SERVICES))
    parser.add_argument(
        "--version", default=os.environ.get("SERVICE_VERSION", "v1"), help="which version to be (reviews: v1, v2, v3)"
    )
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "9080")))
    parser.add_argument("--host", default="0.0.0.0")
    arguments = parser.parse_args()
    app = SERVICES[arguments.service](arguments.version)
    web.run_app(app, host=arguments.host, port=arguments.port, print=None, access_log=None, handle_signals=True)


if __name__ == "__main__":
    main()
