"""One folder, one feature: `in.yaml` (objects) → `model.yaml`, `xds.yaml`, `status.yaml`; a real Envoy takes it.

`status.yaml` has the status of each object that has one, as it would be written once every proxy has acknowledged, without times
and generations; and the problems.

A case is added by adding a folder with an `in.yaml`; `TULLE_GOLDEN=rewrite pytest tests/golden` (`make golden`) writes the rest,
and people review what changed. A first line `# layers: a b` limits what `model.yaml` and `xds.yaml` show to those layers; without
it they show all but the layers of single workloads and `unguarded`, which is always the same. Envoy always gets everything. With
a line `# counting` they show how calls are counted, with `# recording` how single ones are recorded, too, which elsewhere is the
same everywhere.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from google.protobuf import json_format

from tests.support.certificates import Roots
from tests.support.envoy import validate
from tests.support.statuses import written
from tulle.api.decode import decode
from tulle.api.documents import read_documents
from tulle.api.registry import kind_for
from tulle.core import type_urls
from tulle.core.compile.layers import UNGUARDED, layer_names
from tulle.core.encoded import Encoded
from tulle.core.envoy import calls, tap, telemetry
from tulle.core.pipeline import Pipeline
from tulle.kit.problem import Problem
from tulle.pb import message_class, pool
from tulle.pb.envoy.extensions.transport_sockets.tls.v3 import secret_pb2

HERE = Path(__file__).parent
CASES = sorted(path.parent.name for path in HERE.glob("*/in.yaml"))
REWRITE = os.environ.get("TULLE_GOLDEN") == "rewrite"
_LAYERS = "# layers:"
_COUNTING, _RECORDING = "\n# counting\n", "\n# recording\n"


@cache
def source(case: str) -> str:
    """A case's objects. `CERTIFICATE(name)`, `KEY(name)` and `ROOTS` in it are made here: no key is ever committed."""
    roots = Roots()
    made = cache(lambda name: roots.server(name))

    def fill(found: re.Match[str]) -> str:
        pem = roots.pem if found[0] == "ROOTS" else made(found[2])[0 if found[1] == "CERTIFICATE" else 1]
        return json.dumps(pem.decode())

    return re.sub(r"\b(CERTIFICATE|KEY)\((\S+)\)|\bROOTS\b", fill, (HERE / case / "in.yaml").read_text())


class Compiled:
    """A case after all of the core has run."""

    def __init__(self, case: str) -> None:
        text = source(case)
        self.counting, self.recording = _COUNTING in text, _RECORDING in text
        documents, self.problems = read_documents(text, "in.yaml")
        changes = {}
        for document in documents:
            decoded, found = decode(document.raw, document.locate)
            self.problems += found
            if decoded is not None:
                kind = kind_for(decoded.ref.group, decoded.kind)
                assert kind is not None
                changes[kind.resource, decoded.metadata.namespace, decoded.metadata.name] = decoded
        self.pipeline = Pipeline()
        self.pipeline.commit(changes)
        self.problems += self.pipeline.problems()
        self.layers: tuple[str, ...] = self.pipeline.flow.get(layer_names, None) or ()
        first = text.partition("\n")[0]
        chosen = first.removeprefix(_LAYERS).split() if first.startswith(_LAYERS) else None
        usual = [layer for layer in self.layers if layer != UNGUARDED and not layer.startswith("workload/")]
        self.shown = usual if chosen is None else [layer for layer in self.layers if layer in chosen]
        assert chosen is None or set(chosen) == set(self.shown), f"layers are {self.layers}"

    def proxies(self) -> list[str]:
        return [layer.removeprefix("workload/") for layer in self.layers if layer.startswith("workload/")]

    def seen_by(self, proxy: str) -> list[Encoded]:
        """Everything that a proxy would be sent."""
        tables = [self.pipeline.table(layer, url) for layer in self.pipeline.layers(proxy) for url in type_urls.ORDER]
        # Of one name in several layers the last counts.
        seen = {(one.type_url, one.name): one for table in tables for one in table.values()}
        return list(seen.values())

    def model(self) -> str:
        rows = {layer: self.pipeline.model(layer) for layer in self.shown}
        return _yaml(_without_fingerprints(json.loads(msgspec.json.encode(rows))))

    def xds(self) -> str:
        shown: dict[str, Any] = {}
        for layer in self.shown:
            for url in type_urls.ORDER:
                for name, resource in sorted(self.pipeline.table(layer, url).items()):
                    shown.setdefault(layer, {}).setdefault(type_urls.SHORT[url], {})[name] = self._shown(resource)
        return _yaml(shown)

    def _shown(self, resource: Encoded) -> Any:
        value = readable(resource)
        value = _without_logger(value, tap.NAME)  # the same everywhere
        value = value if self.recording else _without_logger(value, calls.LOGGER)
        return value if self.counting else _without_counting(_without_logger(value, telemetry.LOGGER))

    def status(self) -> str:
        rows = {f"{row[0]} {'/'.join(filter(None, row[1]))}": row for row in self.pipeline.statuses.all()}
        shown = {name: timeless(written(self.pipeline, row)) for name, row in rows.items()}
        problems = [_problem(problem) for problem in sorted(self.problems, key=str)]
        return _yaml({"objects": {name: status for name, status in shown.items() if status}, "problems": problems})


def _without_fingerprints(value: Any) -> Any:
    """The model without what differs each time: certificates are made anew."""
    if isinstance(value, dict):
        return {key: len(one) if key == "fingerprints" else _without_fingerprints(one) for key, one in value.items()}
    return [_without_fingerprints(item) for item in value] if isinstance(value, list) else value


def readable(resource: Encoded) -> Any:
    """A resource as JSON with Envoy's field names, everything in it unpacked; of a secret only which kind it is."""
    if resource.type_url == type_urls.SECRET:
        secret = secret_pb2.Secret.FromString(resource.value)
        return {"name": secret.name, "is": str(secret.WhichOneof("type"))}
    if resource.type_url == type_urls.NAME:
        return json.loads(resource.value)
    message = message_class(resource.type_url.rpartition("/")[2]).FromString(resource.value)
    return json_format.MessageToDict(message, preserving_proto_field_name=True, descriptor_pool=pool())


def _without_logger(value: Any, name: str) -> Any:
    """A message without the access loggers of a name."""
    if isinstance(value, dict):
        logs = [one for one in value.get("access_log", ()) if one["name"] != name]
        value = {key: one for key, one in value.items() if key != "access_log"} | ({"access_log": logs} if logs else {})
        return {key: _without_logger(one, name) for key, one in value.items()}
    return [_without_logger(one, name) for one in value] if isinstance(value, list) else value


def _without_counting(value: Any) -> Any:
    """A message without the filter that counts messages."""
    if isinstance(value, dict):
        value = dict(value)
        for key in {"http_filters", "filters"} & value.keys():
            value[key] = [one for one in value[key] if not (isinstance(one, dict) and one.get("name") == telemetry.GRPC_STATS)]
        return {key: _without_counting(one) for key, one in value.items()}
    return [_without_counting(one) for one in value] if isinstance(value, list) else value


def timeless(status: Any) -> Any:
    """A status without what says only when it was written."""
    if isinstance(status, dict):
        when = ("lastTransitionTime", "observedGeneration")
        return {key: timeless(value) for key, value in status.items() if key not in when}
    return [timeless(item) for item in status] if isinstance(status, list) else status


def _problem(problem: Problem) -> dict[str, str]:
    shown = {"severity": str(problem.severity), "reason": problem.reason, "object": str(problem.ref), "path": problem.path}
    return {**shown, "message": problem.message}


def _yaml(value: Any) -> str:
    plain = json.loads(json.dumps(value))  # protobuf's ordered dictionaries, and objects that occur twice
    return str(yaml.safe_dump(plain, sort_keys=True, width=120, allow_unicode=True))


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_golden(case: str) -> None:
    """Broken: this feature's objects would mean something else than people agreed on in review."""
    compiled = Compiled(case)
    for file, text in (("model.yaml", compiled.model()), ("xds.yaml", compiled.xds()), ("status.yaml", compiled.status())):
        golden = HERE / case / file
        if REWRITE:
            golden.write_text(text)
        assert golden.exists(), f"write {case}/{file} with TULLE_GOLDEN=rewrite"
        assert text == golden.read_text(), f"{case}/{file}; TULLE_GOLDEN=rewrite accepts the change"


def test_envoy_takes_it(case: str, tmp_path: Path) -> None:
    """Broken: a proxy would refuse what this feature makes of correct objects."""
    compiled = Compiled(case)
    groups: Iterable[Iterable[Encoded]] = [compiled.seen_by(proxy) for proxy in compiled.proxies()]
    assert groups, "a case needs a workload with a proxy"
    assert validate(groups, tmp_path) == ""


def test_order_does_not_matter(case: str) -> None:
    """Broken: the same objects would make other bytes after a restart, and every proxy would be sent everything again."""
    compiled, again = Compiled(case), Pipeline()
    documents, _ = read_documents(source(case), "in.yaml")
    for document in reversed(documents):
        decoded, _ = decode(document.raw, document.locate)
        if decoded is not None:
            kind = kind_for(decoded.ref.group, decoded.kind)
            assert kind is not None
            again.commit({(kind.resource, decoded.metadata.namespace, decoded.metadata.name): decoded})
    for layer in compiled.layers:
        for url in type_urls.ORDER:
            assert compiled.pipeline.table(layer, url) == again.table(layer, url)
