"""The page in a real browser, of a real mesh: what it shows against what the mesh was made to do. Pictures are in build/page."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
import pytest

from tests.support.mesh import ROOT, TULLE, Mesh, fetch
from tests.support.serving import program
from tulle.core.model.calls import Count
from tulle.core.model.recorded import Example, Record, RecordedReport, Shape
from tulle.core.model.spans import Span, SpanReport

if TYPE_CHECKING:
    from playwright.sync_api import Browser, CDPSession, ConsoleMessage, Page, Route

pytestmark = pytest.mark.timeout(900)  # a browser beside a whole mesh, on whatever machine

PICTURES = ROOT / "build" / "page"
VIEWS = ("overview", "graph", "services", "workloads", "config", "traces", "limits", "proxies", "certificates", "mesh")
SCRIPT = '<img src=x onerror="window.harmed=1"><script>window.harmed=1</script>\'"`${1}{{1}}'
DETAILS = "service/default/reviews", "workload/default/reviews-v1", "object/WorkloadEntry/default/reviews-v1"

SPLIT = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
    - route:
        - {destination: {host: reviews, subset: v1}, weight: 70}
        - {destination: {host: reviews, subset: v3}, weight: 30}
"""
BROKEN = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings, namespace: default}
spec:
  hosts: [ratings]
  http: [{fault: {abort: {httpStatus: 503, percentage: {value: 100}}}, route: [{destination: {host: ratings}}]}]
"""
LOGS = """
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: page-logs, namespace: default}
spec:
  selector: {matchLabels: {app: reviews}}
  accessLogging: [{providers: [{name: envoy}]}]
"""
SUBSETS = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}, {name: v3, labels: {version: v3}}]
"""
# Its candidate has no instance: it waits for one.
ROLLED = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: details, namespace: default}
spec: {host: details, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: details, namespace: default}
spec:
  hosts: [details]
  http:
    - route:
        - {destination: {host: details, subset: v1}, weight: 100}
        - {destination: {host: details, subset: v2}, weight: 0}
---
apiVersion: tulle.dev/v1alpha1
kind: Rollout
metadata: {name: details, namespace: default}
spec:
  targetRef: {name: details}
  stable: {version: v1}
  candidate: {version: v2}
  routeRef: {group: networking.istio.io, kind: VirtualService, name: details}
  analysis: {stepWeights: [10, 50], mirror: true}
"""


@pytest.fixture(scope="module")
def address(mesh: Mesh) -> Iterator[str]:
    """What `tulle dashboard` opens."""
    with subprocess.Popen([*TULLE, "dashboard", "--no-open"], env=mesh.env, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        yield child.stdout.readline().strip()
        child.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    driver = pytest.importorskip("playwright.sync_api")
    path = program("chromium-headless-shell")
    with driver.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page as `tulle dashboard` opens it; nothing may go wrong in its console, and nothing that was slipped in may run."""
    yield from opened(browser, address)


def opened(browser: Browser, address: str, **options: Any) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 720}, **options)
    found = context.new_page()
    found.set_default_timeout(60_000)
    wrong: list[str] = []

    def said(message: ConsoleMessage) -> None:
        # What the test itself provokes (401, 403, 409, 422) the browser reports as failed loads.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            wrong.append(message.text)

    found.on("console", said)
    found.on("pageerror", lambda error: wrong.append(str(error)))
    for attempt in range(5):
        try:
            found.goto(address)
            break
        except Exception as error:  # workloads come and go, and with them networks of this host
            if "ERR_NETWORK_CHANGED" not in str(error) or attempt == 4:
                raise
    yield found
    assert found.evaluate("window.harmed") is None
    assert found.locator("main img[src=x], main script").count() == 0
    assert wrong == []
    context.close()


def goto(page: Page, path: str) -> None:
    """Another view, once it has loaded."""
    page.evaluate("path => { location.hash = `#/${path}` }", path)
    page.locator("main h1").first.wait_for()
    page.wait_for_function("() => !document.querySelector('.waiting')")


def picture(page: Page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")


@pytest.fixture(scope="module")
def traffic(mesh: Mesh) -> Iterator[None]:
    """Requests from outside, as long as the tests run."""
    done = threading.Event()

    def call() -> None:
        while not done.wait(0.2):
            fetch(f"{mesh.base}/productpage", 4, parallel=2)

    thread = threading.Thread(target=call)
    thread.start()
    yield
    done.set()
    thread.join()


@pytest.fixture(scope="module")
def made(mesh: Mesh, traffic: None) -> Iterator[None]:
    """`ratings` is broken, `reviews` is split 70 to 30."""
    for text in (SUBSETS, SPLIT, BROKEN, ROLLED):
        mesh.tulle("apply", "-f", "-", stdin=text)
    mesh.synced()
    yield
    for text in (ROLLED, SPLIT, BROKEN, SUBSETS):
        mesh.tulle("delete", "-f", "-", stdin=text)
    mesh.synced()


def until(page: Page, look: Callable[[], bool], what: str) -> None:
    """Wait until the page shows something that depends on figures: they come with the nodes' reports."""
    for _ in range(240):
        if look():
            return
        page.wait_for_timeout(250)
    raise AssertionError(f"the page never showed {what}:\n{page.locator('main').inner_text()[:3000]}")


def test_a_broken_service_is_red(page: Page, made: None) -> None:
    """Broken: somebody in an incident would look at a page that says that all is well."""
    goto(page, "overview?t=30")
    row = page.get_by_role("region", name="Services", exact=True).locator("tbody tr").first
    until(page, lambda: "default/ratings" in row.inner_text() and "failing" in row.inner_text(), "ratings as failing, first")
    assert "default/reviews" in page.get_by_role("region", name="Services", exact=True).inner_text()
    assert "VirtualService default/ratings" in page.locator(".changes").inner_text()
    picture(page, "overview")
    goto(page, "graph?t=30")
    page.locator('[data-node="default/ratings"].failing').wait_for()
    page.locator('[data-node="default/productpage"].healthy').wait_for()
    picture(page, "graph")
    goto(page, "service/default/ratings?t=60")
    page.get_by_role("button", name="Why GET").first.click()
    page.locator(".caution", has_text="VirtualService default/ratings").wait_for()
    picture(page, "why")


def test_a_split_is_seen(page: Page, mesh: Mesh, made: None) -> None:
    """Broken: who shifts traffic could not see what part of it really goes where."""
    goto(page, "graph?t=20&level=version&label=share")
    to = '[data-link="default/productpage@v1 default/reviews@{}"]'

    def share(version: str) -> float:
        label = page.locator(to.format(version)).locator("text")
        return float((label.text_content() or "0").strip("%")) if label.count() else 0.0

    until(page, lambda: 50 <= share("v1") <= 88 and 12 <= share("v3") <= 50, "70% to v1 and 30% to v3")
    picture(page, "graph-split")
    page.locator('[data-node="default/reviews@v1"]').click()
    assert "default/productpage@v1" in page.get_by_role("complementary", name="Details").inner_text()
    picture(page, "graph-side")
    goto(page, "service/default/reviews?t=20")
    text = page.locator("main").inner_text()
    assert "VirtualService default/reviews" in text
    assert "reviews-v1" in text
    picture(page, "service")
    # The commands that stand below the views say the same.
    assert "default/reviews.http[0]" in mesh.tulle("routes", "reviews", "-t", "1m").out
    assert "default/reviews v3" in mesh.tulle("graph", "--level", "version", "-t", "1m").out
    found = json.loads(mesh.tulle("graph", "--level", "version", "-o", "json").out)
    assert {"default/reviews@v1", "default/reviews@v3"} <= {node["id"] for node in found["nodes"]}
    assert mesh.tulle("graph", "-o", "dot").out.startswith("digraph mesh {")
    assert mesh.tulle("graph", "-o", "mermaid").out.startswith("flowchart LR")
    assert "default/reviews-v1" in mesh.tulle("top", "--by", "workload").out


def test_a_trace_and_the_past(page: Page, made: None) -> None:
    """Broken: nobody could see where the time of a request went, or how the mesh was before it failed."""
    goto(page, "traces?t=600")
    whole = page.locator("tbody tr", has_text="productpage")
    until(
        page,
        lambda: any(int(one.locator("td").nth(3).inner_text()) >= 7 for one in whole.all()[:20]),
        "a trace with the call that fails",
    )
    row = next(one for one in whole.all() if int(one.locator("td").nth(3).inner_text()) >= 7)
    row.get_by_role("link").first.click()
    steps = page.locator(".waterfall .step")
    steps.nth(6).wait_for()
    steps.nth(1).click()
    page.get_by_text("Began after").wait_for()
    picture(page, "waterfall")
    goto(page, "graph?t=60")
    page.locator('[data-link^="default/productpage "]').first.dispatch_event("click")
    page.get_by_role("complementary", name="Details").get_by_role("img", name="Requests a second").wait_for()
    page.get_by_role("img", name="Latency").wait_for()
    picture(page, "graph-link")
    page.get_by_role("button", name="Close").click()
    # The same without the drawing.
    page.get_by_role("button", name="Details of the calls from default/reviews to default/ratings").press("Enter")
    page.get_by_role("heading", name="default/reviews → default/ratings").wait_for()
    page.get_by_role("button", name="Play").click()
    moved = page.locator(".replay [role=status]")
    until(page, lambda: "until" in moved.inner_text(), "the graph of then")
    # What nobody knows is not played, and of what is known the end is now.
    until(page, lambda: moved.inner_text() == "now", "the graph of now, once it has caught up")
    before = datetime.now() - timedelta(hours=2)  # as the browser has it
    page.get_by_label("as it was at").fill(before.strftime("%Y-%m-%dT%H:%M"))
    page.get_by_text("Nothing is known of this time").wait_for()
    picture(page, "replay")
    page.get_by_role("button", name="Back to now").click()
    until(page, lambda: moved.inner_text() == "now", "the graph of now")


def test_what_a_proxy_runs_with_takes_and_writes(page: Page, mesh: Mesh, made: None) -> None:
    """Broken: who looks for a fault on the page would have to log in to the node for what the proxy has and writes."""
    goto(page, "proxies")
    row = page.locator("tbody tr", has_text="default/reviews-v1")
    until(page, lambda: " MB" in row.inner_text() and "%" in row.inner_text(), "memory and CPU of a proxy")
    picture(page, "proxies")
    mesh.tulle("apply", "-f", "-", stdin=LOGS)
    try:
        mesh.synced()
        goto(page, "workload/default/reviews-v1?t=60")
        until(page, lambda: "Envoy 1." in page.locator("main").inner_text(), "what its proxy is and takes")
        assert page.get_by_role("link", name="Traces in which reviews took part").count() == 1
        page.get_by_role("button", name="Show what it runs with").click()
        page.get_by_role("tab", name="Clusters").click()
        page.get_by_label("Filter by name").fill("ratings")
        cluster = page.locator(".resources details", has_text="outbound|9080||ratings.default.svc.cluster.local").first
        cluster.locator("summary").click()
        assert '"type": "EDS"' in cluster.locator("pre").inner_text()
        picture(page, "envoy")
        # The same in a terminal, of a machine that does not run it.
        afar = mesh.tulle("proxy", "config", "cluster", "reviews-v1", "--name", "ratings", "--socket", str(mesh.home / "none"))
        assert "ratings.default.svc.cluster.local" in afar.out
        # The log comes to be with its first line.
        page.get_by_role("button", name="Show the last lines").click()

        def lines() -> bool:
            if "GET /reviews" in page.locator("main").inner_text():
                return True
            page.get_by_role("button", name="Ask again").last.click()
            page.wait_for_timeout(500)
            return False

        until(page, lines, "lines of the access log")
        picture(page, "logs")
        assert "tulle logs default/reviews-v1" in page.locator("main").inner_text()
    finally:
        mesh.tulle("delete", "-f", "-", stdin=LOGS)
        mesh.synced()


def test_every_view_for_everybody(browser: Browser, address: str, made: None) -> None:
    """Broken: somebody who uses a screen reader, a phone or the dark could not use the page."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for scheme, size in (("light", (1280, 720)), ("dark", (390, 844))):
        for page in opened(browser, address, color_scheme=scheme):
            page.set_viewport_size({"width": size[0], "height": size[1]})
            goto(page, "traces?t=600")
            trace = str(page.locator("main tbody a").first.get_attribute("href")).removeprefix("#/").partition("?")[0]
            for view in (*VIEWS, *DETAILS, "rollouts", "rollout/default/details", "object/new/-/-", trace):
                goto(page, f"{view}?t=300")
                serious = [one for one in axe.run(page).response["violations"] if one["impact"] in ("serious", "critical")]
                assert serious == [], f"{view}: {json.dumps(serious, indent=1)[:3000]}"
                assert page.evaluate("document.documentElement.scrollWidth") <= size[0], f"{view} is too wide"
                picture(page, f"{scheme}-{view.replace('/', '-') if view != trace else 'trace'}")


# Time in the browser goes a hundred times as fast, so that some hundred reports of nodes, 15 seconds apart, are over within one.
HURRY = "const usual = setTimeout; window.setTimeout = (act, after, ...more) => usual(act, (after ?? 0) / 100, ...more);"


@pytest.mark.parametrize("view", ["overview", "graph"])
def test_open_for_a_day(browser: Browser, address: str, made: None, view: str) -> None:
    """Broken: a page that hangs on a wall would take more memory with every report, until the browser ends it."""
    reports = itertools.count(1)
    came = 0

    def live(route: Route) -> None:
        nonlocal came
        came = next(reports)
        state = {"revision": 1, "reported": came, "proxies": 1, "synced": 1}
        route.fulfill(content_type="text/event-stream", body=f"data: {json.dumps(state)}\n\n")

    def held(page: Page, session: CDPSession, after: int) -> tuple[float, float]:
        until(page, lambda: came >= after, f"{after} reports")
        session.send("HeapProfiler.collectGarbage")
        told = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        return told["JSHeapUsedSize"], told["Nodes"]

    for page in opened(browser, address):
        page.add_init_script(HURRY)
        page.route("**/tulle/v1/telemetry/live*", live)
        goto(page, f"{view}?t=60")
        page.reload()
        page.locator("main h1").first.wait_for()
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")
        (heap, nodes), (later, more) = held(page, session, 60), held(page, session, 360)
        assert later < heap + (1 << 20), f"{heap / 1e6:.1f} MB grew to {later / 1e6:.1f} in 300 reports"
        assert more < 1.2 * nodes + 200, f"{nodes:.0f} nodes grew to {more:.0f}"


def test_keys_alone(page: Page, made: None) -> None:
    """Broken: without a mouse nobody could get anywhere."""
    goto(page, "graph?t=300")
    page.locator('[data-node="default/ratings"]').focus()
    page.keyboard.press("Enter")
    page.get_by_role("complementary", name="Details").wait_for()
    page.get_by_role("button", name="Close").focus()
    page.keyboard.press("Enter")
    page.get_by_role("complementary", name="Details").wait_for(state="detached")
    page.get_by_role("link", name="Proxies").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Proxies", level=1).wait_for()


def test_change_an_object(page: Page, mesh: Mesh, made: None) -> None:
    """Broken: what is typed would be written unjudged, or over what another has written; or there would be no way back."""
    goto(page, "object/VirtualService/default/reviews")
    page.get_by_role("tab", name="Edit").click()
    area = page.get_by_label("YAML", exact=True)
    before = area.input_value()
    area.fill(before.replace("weight: 70", "weight: seventy"))
    page.get_by_role("alert").wait_for()
    assert "weight" in page.get_by_role("alert").inner_text()
    picture(page, "edit-wrong")
    assert page.get_by_role("button", name="See what changes").is_disabled()
    area.fill(before.replace("weight: 70", "weight: 60").replace("weight: 30", "weight: 40"))
    page.get_by_text("It would be taken.").wait_for()
    page.get_by_role("button", name="See what changes").click()
    assert page.locator(".diff .added").all_inner_texts() == ["+       weight: 60", "+       weight: 40"]
    picture(page, "edit-difference")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("tab", name="YAML", selected=True).wait_for()
    weights = "jsonpath={.spec.http[0].route[*].weight}"
    assert mesh.kubectl("get", "virtualservice", "reviews", "-o", weights).out == "60 40"
    page.get_by_role("tab", name="History").click()
    page.locator("main details summary").first.click()
    page.get_by_role("button", name="Back to before this change…").first.click()
    page.get_by_role("button", name="Roll back").click()
    page.get_by_text("It is as it was before this change.").wait_for()
    picture(page, "history")
    assert mesh.kubectl("get", "virtualservice", "reviews", "-o", weights).out == "70 30"


def test_a_rollout_is_shown_and_stopped(page: Page, mesh: Mesh, made: None) -> None:
    """Broken: whoever watches a release could not see why it stays where it is, nor stop it from the page."""
    goto(page, "rollouts")
    assert "waits for an instance of the candidate" in page.locator("main").inner_text()
    page.get_by_role("link", name="default/details").first.click()
    page.get_by_role("heading", name="Waiting").wait_for()
    assert page.get_by_label("Steps").first.locator("li").all_inner_texts() == ["copies", "10%", "50%", "100%"]
    page.get_by_text("Started").wait_for()
    page.get_by_role("button", name="pause…").click()
    assert "tulle rollout pause details -n default" in page.locator("main").inner_text()
    picture(page, "rollout")
    page.get_by_role("button", name="Yes, pause").click()
    page.get_by_text("it is suspended").first.wait_for()
    assert mesh.kubectl("get", "rollout", "details", "-o", "jsonpath={.status.phase}").out == "Paused"
    mesh.tulle("rollout", "resume", "details")
    page.get_by_text("waits for an instance of the candidate").first.wait_for()


def test_with_a_token_and_few_rights(browser: Browser, mesh: Mesh) -> None:
    """Broken: somebody without a kubeconfig could not log in; or who may only look would see more than that."""
    token = mesh.tulle("apitoken", "create", "--user", "vera", "--group", "tulle:viewers").out.split()[0]
    for page in opened(browser, f"https://127.0.0.1:{mesh.api_port}/ui/", ignore_https_errors=True):
        page.get_by_label("Token").fill(SCRIPT)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("alert").wait_for()
        picture(page, "login")
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("heading", name="Overview", level=1).wait_for()
        page.get_by_text("You may not see the history.").wait_for()
        page.get_by_text("● live").wait_for()
        page.get_by_role("button", name="Log out").click()
        page.get_by_label("Token").wait_for()


def test_names_are_not_taken_for_html(page: Page, mesh: Mesh) -> None:
    """Broken: a header, a path, a label or a caller's address could run in the browser of an administrator."""
    where = {"name": "harm", "namespace": "default", "annotations": {"note": SCRIPT}}
    match = [{"uri": {"prefix": f"/{SCRIPT}"}, "headers": {"x-harm": {"exact": SCRIPT}}}]
    route = {"match": match, "route": [{"destination": {"host": "ratings"}}], "name": SCRIPT}
    harm = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": where}
    mesh.tulle("apply", "-f", "-", stdin=json.dumps({**harm, "spec": {"hosts": ["ratings"], "http": [route]}}), check=False)
    edge = [
        "source",
        f"default/{SCRIPT}",
        SCRIPT,
        SCRIPT,
        "default/harmed",
        "harmed",
        SCRIPT,
        f"{SCRIPT}.default.svc.cluster.local",
    ]
    report = {"node": "x", "rows": [[[*edge, "http", "200", "", "", "", False, "", SCRIPT], [5, 5.0, [0, 5]]]]}
    now, trace = time.time(), "ab" * 16
    shape = Shape("destination", f"default/{SCRIPT}", "default/ratings-v1", "ratings.default.svc.cluster.local", 9080)
    shape = msgspec.structs.replace(
        shape, method="GET", path=f"/{SCRIPT}", code="503", flags=SCRIPT, policy=SCRIPT, origin=SCRIPT
    )
    example = Example("harm", now, 3.0, "default/ratings-v1", SCRIPT, f"/{SCRIPT}", {"user-agent": SCRIPT}, details=SCRIPT)
    span = Span(trace, "cd" * 8, "", "default/ratings-v1", f"default/{SCRIPT}", SCRIPT, "server", SCRIPT, int(now * 1e6), 9)
    for path, body in (
        ("report", report),
        ("recorded", RecordedReport("x", ((shape, Record(Count(1, 3.0), 1.0, now, now, (example,))),), ((shape, example),))),
        ("spans", SpanReport("x", now, (msgspec.structs.replace(span, tags={SCRIPT: SCRIPT, "user_agent": SCRIPT}),))),
    ):
        taken = page.evaluate(
            """([path, body]) => fetch(`/tulle/v1/telemetry/${path}`, {method: "POST", body: JSON.stringify(body), headers: {
                Authorization: `Bearer ${sessionStorage.getItem("tulle.token")}`, "Content-Type": "application/json"}})
                .then((answer) => answer.status)""",
            [path, msgspec.to_builtins(body)],
        )
        assert taken == 200, path
    try:
        for view in ("overview", "graph?level=workload", "graph?level=service", "service/default/ratings", "config"):
            goto(page, view)
        goto(page, "graph?level=workload&label=p99")
        until(page, lambda: "<img src=x" in page.locator("main").inner_text(), "the name as text")
        goto(page, "service/default/ratings")
        until(page, lambda: f"/{SCRIPT}"[:12] in page.locator("main").inner_text(), "the path as text")
        page.get_by_role("button", name="Why GET").first.click()
        page.locator(".caution, .trouble").first.wait_for()
        goto(page, f"workload/default/{quote(SCRIPT, safe='')}")
        goto(page, "traces?t=600")
        goto(page, f"trace/{trace}")
        page.locator(".waterfall .step").first.click()
        page.get_by_text("Began after").wait_for()
        assert "<img src=x" in page.locator("main").inner_text()
        goto(page, f"service/{SCRIPT.replace('/', '%2F').replace('?', '%3F')}")
        goto(page, "object/VirtualService/default/harm")
        assert "<img src=x" in page.locator("pre").inner_text()
        page.get_by_role("tab", name="History").click()
        page.locator("main details summary").first.click()
    finally:
        mesh.kubectl("delete", "virtualservice", "harm", "--ignore-not-found")
