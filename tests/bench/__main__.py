"""`make bench`: measures, prints one table with the figures that were to be reached beside those that were, and writes JSON.

`python -m tests.bench [latency] [handshakes] [scale] [routes] [policies] [api] [ca] [calls] [watching]
[page] [reports] [ratelimit] [rollouts] [limits] [--rounds 9]`; without names, all.
`--against REVISION` compares this build with an older one, and measures nothing else unless it is named too. Never a test:
figures are reported, not asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from tests.bench import (
    accuracy,
    against,
    api,
    ca,
    calls,
    latency,
    limits,
    policed,
    policies,
    ratelimit,
    reports,
    rollbacks,
    rollouts,
    routes,
    scale,
    watching,
)
from tests.bench.scene import Taken

OUT = Path("build/bench.json")
EVERYTHING = [
    "latency",
    "handshakes",
    "scale",
    "routes",
    "policies",
    "api",
    "ca",
    "calls",
    "watching",
    "page",
    "reports",
    "ratelimit",
    "rollouts",
    "limits",
]


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", choices=[*EVERYTHING, []], default=[])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--against", metavar="REVISION", help="an older build, for traffic that uses no feature")
    arguments = parser.parse_args()
    console = Console(width=110)
    table = Table("", "measured", "to reach", title=f"tulle, medians of {arguments.rounds} rounds")
    found: dict[str, Any] = {}
    what = arguments.what or ([] if arguments.against else EVERYTHING)
    if arguments.against and os.geteuid():
        console.print("against: needs root, for the network namespaces; left out")
    elif arguments.against:
        compared = against.measure(arguments.against, arguments.rounds, arguments.seconds)
        found["against"] = msgspec.to_builtins(compared)
        _against(table, compared)
    if "latency" in what and os.geteuid():
        console.print("latency: needs root, for the network namespaces that all four variants share; left out")
    elif "latency" in what:
        measured = latency.measure(arguments.rounds, arguments.seconds)
        found["latency"] = msgspec.to_builtins(measured)
        _latency(table, measured)
    if "handshakes" in what and not os.geteuid():
        shaken = latency.handshakes(arguments.rounds, arguments.seconds)
        found["handshakes"] = msgspec.to_builtins(shaken)
        _handshakes(table, shaken)
    if "scale" in what:
        grown = asyncio.run(scale.measure(arguments.rounds))
        found["scale"] = msgspec.to_builtins(grown)
        _scale(table, grown)
    if "routes" in what:
        compiled = routes.measure(arguments.rounds)
        found["routes"] = msgspec.to_builtins(compiled)
        _routes(table, compiled)
    if "policies" in what:
        judged = policies.measure(arguments.rounds)
        found["policies"] = msgspec.to_builtins(judged)
        _policies(table, judged)
        kept = asyncio.run(policed.measure(arguments.rounds))
        found["policed"] = msgspec.to_builtins(kept)
        _policed(table, kept)
    if "api" in what:
        served = asyncio.run(api.measure(arguments.rounds))
        found["api"] = msgspec.to_builtins(served)
        _api(table, served)
    if "ca" in what:
        signed = asyncio.run(ca.measure(arguments.rounds))
        found["ca"] = msgspec.to_builtins(signed)
        _ca(table, signed)
    if "calls" in what and not os.geteuid():
        recorded = calls.measure(arguments.rounds, arguments.seconds)
        found["calls"] = msgspec.to_builtins(recorded)
        _calls(table, recorded)
    if "watching" in what and not os.geteuid():
        watched = watching.measure(arguments.rounds, arguments.seconds)
        found["watching"] = msgspec.to_builtins(watched)
        _watching(table, watched)
    if "page" in what:
        from tests.bench import page  # a browser and its driver, which nothing else needs

        seen = asyncio.run(page.measure())
        found["page"] = msgspec.to_builtins(seen)
        _page(table, seen.painted, seen.filled, seen.moving, seen.zooming)
    if "reports" in what:
        reported = asyncio.run(reports.measure())
        found["reports"] = msgspec.to_builtins(reported)
        _reports(table, reported)
    if "ratelimit" in what:
        limited = ratelimit.measure(arguments.rounds, arguments.seconds)
        found["ratelimit"] = msgspec.to_builtins(limited)
        _ratelimit(table, limited)
        if not os.geteuid():
            held = accuracy.measure()
            found["accuracy"] = msgspec.to_builtins(held)
            _accuracy(table, held)
    if "rollouts" in what:
        rolled = asyncio.run(rollouts.measure())
        found["rollouts"] = msgspec.to_builtins(rolled)
        table.add_row(f"[bold]{rolled.rollouts} roll-outs under way[/]", "[dim]of a core, of the control plane[/]", "")
        table.add_row("within an interval", f"{rolled.steady:.1f}%", "below 30%")
        table.add_row("a step of each every 10 s", f"{rolled.moving:.1f}% ({rolled.steps} steps)", "")
        backs = asyncio.run(rollbacks.measure())
        found["rollbacks"] = msgspec.to_builtins(backs)
        for cause, (took, cpu) in backs.all.items():
            alone = f"one {backs.one[cause][0]:.2f} s, " if cause in backs.one else ""
            table.add_row(f"back: {cause}", f"{alone}all at once {took:.2f} s ({cpu:.1f} s of a core)", "below 2 s")
        table.add_section()
    if "limits" in what:
        controlled = asyncio.run(limits.measure())
        found["limits"] = msgspec.to_builtins(controlled)
        _limits(table, controlled)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(found, indent=2) + "\n")
    console.print(table)
    console.print(f"written to {OUT}")


def _latency(table: Table, measured: latency.Latency) -> None:
    load = f"{measured.rate} requests/s over {measured.connections} connections"
    table.add_row(f"[bold]{load}[/]", "[dim]p50, p90, p99; CPU a 1,000 requests[/]", "")
    for name, row in measured.rows.items():
        table.add_row(name, _figures(row), "")
    goals = {"features": "p50 and CPU at most x1.05", "minimal": "p50 and CPU at most x1.20"}
    for base, ratios in measured.ratios.items():
        table.add_row(f"mesh / {base}", _times(ratios), goals[base])
    table.add_section()


def _handshakes(table: Table, shaken: latency.Latency) -> None:
    load = f"{shaken.rate} requests/s, each with a handshake of mutual TLS"
    table.add_row(f"[bold]{load}[/]", "[dim]p50, p90, p99; CPU a 1,000 requests[/]", "")
    for name, row in shaken.rows.items():
        table.add_row(name, f"{_figures(row)}; {1e6 / row.cpu:.0f} handshakes/s and core of the pair", "")
    for base, ratios in shaken.ratios.items():
        table.add_row(f"mesh / {base}", _times(ratios), "p99 and CPU at most x1.05")
    table.add_section()


def _calls(table: Table, recorded: calls.Calls) -> None:
    table.add_row(f"[bold]{recorded.rate} requests/s[/]", "[dim]p50, p90, p99; CPU a 1,000 requests; the node agent[/]", "")
    for name, row in recorded.rows.items():
        goal = "agent below 3% of a core" if name == "on" else ""
        table.add_row(f"recording {name}", f"{_figures(row)}; {recorded.agent[name]:.2f}% of a core", goal)
    table.add_row("on / off", f"{_times(recorded.ratios)}; {recorded.recorded} calls recorded", "")
    table.add_section()


def _watching(table: Table, watched: watching.Watching) -> None:
    table.add_row(f"[bold]{watched.rate} requests/s, seen[/]", "[dim]p50, p90, p99; CPU a 1,000 requests[/]", "")
    for name, row in watched.rows.items():
        table.add_row(name, _figures(row), "")
    goals = {"logs / off": "p99 at most x1.10, CPU at most x1.15"}
    for name, ratio in watched.ratios.items():
        table.add_row(name, _times(ratio), goals.get(name, ""))
    table.add_section()


def _page(table: Table, painted: float, filled: float, moving: float, zooming: float) -> None:
    table.add_row("[bold]The page in Chromium[/]", "", "")
    table.add_row("first paint, 500 services", f"{painted:.2f} s", "< 1 s")
    table.add_row("all of them there", f"{filled:.2f} s", "")
    table.add_row("300 nodes and 1,000 links, moved and zoomed", f"{moving:.0f} and {zooming:.0f} frames a second", "> 30")
    table.add_section()


def _reports(table: Table, reported: reports.Reports) -> None:
    what = f"{reported.proxies} proxies report, {reported.kinds} kinds of call, 6 h kept"
    table.add_row(f"[bold]{what}[/]", f"[dim]{reported.reports_per_second:.0f} reports/s[/]", "")
    table.add_row("control plane, nobody looks", f"{reported.share:.1f}% of a core", "< 25%")
    table.add_row("control plane, memory after all", f"{reported.rss_mb:.0f} MB", "< 400 MB")
    table.add_row("what the page asks, p99", f"{reported.p99:.0f} ms", "< 100 ms")
    for name, (p50, p99) in sorted(reported.queries.items(), key=lambda one: -one[1][1])[:5]:
        table.add_row(f"  {name}", f"p50 {p50:.0f}, p99 {p99:.0f} ms", "")
    table.add_section()


def _ratelimit(table: Table, limited: ratelimit.RateLimited) -> None:
    load = f"{limited.rate:g} requests/s over {limited.connections} connections"
    table.add_row(f"[bold]rate limits, {load}[/]", "[dim]p50, p90, p99; CPU a 1,000 requests[/]", "")
    for name, row in limited.rows.items():
        python = ""
        if name in limited.node:
            python = f"; node agent {limited.node[name]:.0f} ms, control plane {limited.plane[name]:.0f} ms"
        table.add_row(name, f"{_figures(row)}{python}", "")
    for name, ratio in limited.ratios.items():
        table.add_row(f"{name} / none", _times(ratio), "p99 at most x1.05" if name in ("local", "shares") else "")
    table.add_section()


def _accuracy(table: Table, held: accuracy.Accuracy) -> None:
    table.add_row(
        f"[bold]{accuracy.LIMIT} requests/s of {accuracy.OFFERED}, three replicas[/]", f"[dim]over {accuracy.SECONDS} s[/]", ""
    )
    rows = (
        ("shares", f"{held.shares:.1f}/s", "within 5%"),
        ("exact", f"{held.exact:.1f}/s, {held.failed:.1f}/s not counted in time and refused", "within 1%"),
        ("shares, 3 s after the load moved", f"{held.moved:.1f}/s", "within 15%"),
        ("a small client of 20/s beside a large one, with keys", f"{held.small:.1f}/s", "20/s"),
        ("a burst of 50, the most in a second", f"{held.burst:.0f}", "at most 250"),
    )
    for row in rows:
        table.add_row(*row)
    table.add_section()


def _limits(table: Table, controlled: limits.Controlled) -> None:
    objects = f"{controlled.limits} RateLimits of {controlled.proxies} proxies"
    table.add_row(
        f"[bold]{objects}[/]", f"[dim]of a core, of the control plane; with {controlled.rollouts} roll-outs under way[/]", ""
    )
    for load, alone in controlled.alone.items():
        told = f"{controlled.told[load]:.0f} proxies told a second, {controlled.pace[load]:.0%} of the reports came"
        both = f"{alone:.0f}%; {controlled.together[load]:.0f}% ({told})"
        table.add_row(load, both, "below 30%")
    table.add_section()


def _figures(row: Taken) -> str:
    failed = f", {row.failed} failed" if row.failed else ""
    return f"{row.p50:.2f}, {row.p90:.2f}, {row.p99:.2f} ms; {row.cpu:.0f} ms{failed}"


def _times(ratios: dict[str, float]) -> str:
    latencies = ", ".join(f"x{ratios[key]:.2f}" for key in ("p50", "p90", "p99"))
    return f"{latencies}; x{ratios['cpu']:.3f}"


def _against(table: Table, compared: against.Compared) -> None:
    table.add_row(f"[bold]against {compared.revision}[/]", "[dim]p50, p90, p99; CPU a 1,000 requests[/]", "")
    for way, rows in compared.rows.items():
        for name in ("old", "new"):
            table.add_row(f"{way}, {name}", _figures(rows[name]), "")
        table.add_row(f"{way}, new / old", _times(compared.ratios[way]), "p50, p99 and CPU at most x1.03")
    table.add_section()


def _scale(table: Table, grown: scale.Scale) -> None:
    table.add_row(f"[bold]{grown.proxies} proxies, {grown.services} services[/]", "", "")
    rows = (
        ("changed route, to the last ACK", f"{grown.route_seconds:.3f} s (worst {grown.route_worst:.3f})", "< 0.5 s"),
        ("changed endpoint, to the last ACK", f"{grown.endpoint_seconds:.3f} s (worst {grown.endpoint_worst:.3f})", "< 0.25 s"),
        ("control plane, memory", f"{grown.control_plane_rss_mb:.0f} MB", "< 250 MB"),
        ("control plane, CPU per route change", f"{grown.control_plane_cpu_seconds_per_route_change:.3f} s", ""),
        ("control plane, CPU per endpoint change", f"{grown.control_plane_cpu_seconds_per_endpoint_change:.3f} s", ""),
        ("all proxies connected and configured", f"{grown.connect_seconds:.1f} s", ""),
    )
    for row in rows:
        table.add_row(*row)
    table.add_section()


def _routes(table: Table, compiled: routes.Routes) -> None:
    table.add_row(f"[bold]{compiled.routes} HTTPRoutes, objects to bytes[/]", "[dim]CPU seconds[/]", "")
    for place, cold, one in (
        ("at a gateway", compiled.gateway_cold, compiled.gateway_change),
        ("in the mesh", compiled.mesh_cold, compiled.mesh_change),
    ):
        table.add_row(f"{place}, from cold", f"{cold:.2f} s ({cold / compiled.routes * 1000:.2f} ms a route)", "< 1 s")
        table.add_row(f"{place}, one changed", f"{one * 1000:.1f} ms (x{one / cold:.4f} of all)", "< 20 ms")
    table.add_section()


def _policies(table: Table, judged: policies.Policies) -> None:
    table.add_row(f"[bold]{judged.policies} AuthorizationPolicies, objects to bytes[/]", "[dim]CPU seconds[/]", "")
    for place, cold, one in (
        ("each for a workload of its own", judged.apart_cold, judged.apart_change),
        ("all for one workload", judged.together_cold, judged.together_change),
    ):
        table.add_row(f"{place}, from cold", f"{cold:.2f} s", "< 1 s")
        table.add_row(f"{place}, one changed", f"{one * 1000:.1f} ms", "< 20 ms")
    table.add_section()


def _policed(table: Table, kept: policed.Policed) -> None:
    table.add_row(f"[bold]A request under {kept.policies} AuthorizationPolicies[/]", "[dim]ratio to one policy[/]", "")
    table.add_row("one policy, p50 and p99", f"{kept.one_p50:.2f} ms, {kept.one_p99:.2f} ms", "")
    table.add_row("each for a workload of its own", f"p50 {kept.apart_p50:.2f}, p99 {kept.apart_p99:.2f}", "p99 < 1.05")
    table.add_row("all for the one that is called", f"p50 {kept.together_p50:.2f}, p99 {kept.together_p99:.2f}", "p99 < 1.05")
    table.add_section()


def _api(table: Table, served: api.Api) -> None:
    table.add_row(f"[bold]API server, {served.objects} objects[/]", "", "")
    rows = (
        ("get", f"{served.get_rate:.0f}/s (p99 {served.get_p99 * 1000:.0f} ms)", "> 1,000/s"),
        ("create", f"{served.create_rate:.0f}/s (p99 {served.create_p99 * 1000:.0f} ms)", "> 1,000/s"),
        ("server-side apply of a change", f"{served.apply_rate:.0f}/s", ""),
        ("list of a namespace (50 objects)", f"{served.list_namespace * 1000:.1f} ms", "< 100 ms"),
        ("list of a kind in all namespaces", f"{served.list_all * 1000:.0f} ms", ""),
        (
            f"event to {api.WATCHERS} watchers",
            f"p50 {served.watch_p50 * 1000:.1f} ms, p99 {served.watch_p99 * 1000:.1f} ms",
            "p99 < 50 ms",
        ),
        ("start to ready", f"{served.start_seconds:.1f} s", "< 5 s"),
        ("memory", f"{served.rss_mb:.0f} MB", ""),
        (f"decode the corpora ({served.corpora_documents} documents)", f"{served.corpora_cpu_seconds:.2f} s of CPU", "< 2 s"),
    )
    for row in rows:
        table.add_row(*row)


def _ca(table: Table, signed: ca.Ca) -> None:
    rate = f"{signed.rate:.0f}/s (worst round {signed.worst_rate:.0f}/s, p99 {signed.p99 * 1000:.0f} ms)"
    table.add_row("[bold]Certificate authority[/]", "", "")
    table.add_row("signing requests", rate, "> 500/s")
    table.add_row(f"{signed.proxies} proxies start at once", f"{signed.start_seconds:.1f} s", "< 10 s")


if __name__ == "__main__":
    main()
