"""The access loggers of a proxy, as a real Envoy takes them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.envoy import validate
from tulle.api import log_format
from tulle.api.log_format import why_not_format
from tulle.core import type_urls
from tulle.core.encoded import encode
from tulle.core.envoy import access_log, http
from tulle.core.envoy.source import socket
from tulle.core.envoy.tcp_routes import tcp
from tulle.core.model.destination import DestinationKey
from tulle.core.model.edge import Limits
from tulle.core.model.telemetry import AccessLog, Telemetry
from tulle.pb import message_class
from tulle.pb.envoy.config.listener.v3 import listener_components_pb2, listener_pb2

_ARGUMENTS = {
    "COMMON_DURATION": "DS_RX_BEG:DS_TX_END:us",
    "DYNAMIC_METADATA": "a.b:c",
    "CLUSTER_METADATA": "a.b:c",
    "UPSTREAM_METADATA": "a.b:c",
    "FILTER_STATE": "a.b:PLAIN",
}


def why_not(logs: Iterable[AccessLog], scratch: Path) -> str:
    """What a real Envoy has against logs, at a listener of requests and at one of connections."""
    telemetry = Telemetry(logs=tuple(logs))
    filters = (http.inbound("in", "inbound|80||", Limits(), telemetry=telemetry), tcp("inbound|81||", telemetry=telemetry))
    made = [
        listener_pb2.Listener(
            name=f"l{port}", address=socket("127.0.0.1", port), filter_chains=[listener_components_pb2.FilterChain(filters=[one])]
        )
        for port, one in enumerate(filters, 80)
    ]
    return validate([[encode(type_urls.LISTENER, one.name, one.SerializeToString(), ()) for one in made]], scratch)


def test_a_real_envoy_takes_every_command(tmp_path: Path) -> None:
    """Broken: what is let through as a format would be refused by proxies, with all that is sent beside it."""
    commands = [f"%{name}%" for name in sorted(log_format.PLAIN)]
    commands += [f"%{name}({_ARGUMENTS.get(name, 'X-A?Y-B')})%" for name in sorted(log_format.ARGUED)]
    commands += [f"%{name}(%Y)%" for name in sorted(log_format.TIMES)]
    assert all(why_not_format(command) == "" for command in commands)
    assert why_not([AccessLog("a", path="a.log", text=command) for command in commands], tmp_path) == ""


@pytest.mark.parametrize(
    "log",
    [
        AccessLog("a", path="/dev/stdout"),
        AccessLog("a", path="/dev/stdout", json=True),
        AccessLog("a", path="other.log", fields=(("who", "%DOWNSTREAM_PEER_URI_SAN%"), ("code", "%RESPONSE_CODE%"))),
        AccessLog("a", path="/dev/stdout", filter="response.code >= 400 && request.headers['x-a'] == 'b'"),
        AccessLog("a", collector=DestinationKey("otel.default.svc.cluster.local", 4317), name="calls"),
        AccessLog("a", collector=DestinationKey("otel", 4317), fields=(("code", "%RESPONSE_CODE%"),), filter="connection.mtls"),
    ],
)
def test_a_real_envoy_takes_each_kind(log: AccessLog, tmp_path: Path) -> None:
    """Broken: turning on a log would stop every later change from reaching the proxies."""
    assert why_not([log], tmp_path) == ""


def test_no_secret_is_in_the_usual_lines() -> None:
    """Broken: tokens in queries and headers would lie on disks and in collectors, for whoever reads logs."""
    for text in (access_log.TEXT, *(value for _name, value in access_log.JSON)):
        assert why_not_format(text) == ""
        assert "%REQ(:PATH)%" not in text.replace("X-ENVOY-ORIGINAL-PATH?:PATH", ":PATH").replace("REQ_WITHOUT_QUERY", "PATH")


def test_it_is_a_file_of_the_workload() -> None:
    """Broken: lines would go to a file that nobody rotates, or that all workloads share."""
    (logger,) = access_log.of_requests([AccessLog("a", path="/dev/stdout")])
    file = message_class("envoy.extensions.access_loggers.file.v3.FileAccessLog").FromString(logger.typed_config.value)
    assert file.path == "access.log"  # type: ignore[attr-defined]
