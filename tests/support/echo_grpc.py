"""The gRPC side of the echo: `gateway_api_conformance.echo_basic.grpcecho.GrpcEcho`, its messages, and its answers."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from tests.support.echo import Pod, Request, Response

SERVICE = "gateway_api_conformance.echo_basic.grpcecho.GrpcEcho"
METHODS = ("Echo", "EchoTwo")
UNIMPLEMENTED = 12
_PACKAGE = SERVICE.rpartition(".")[0]
_TEXT, _MESSAGE = descriptor_pb2.FieldDescriptorProto.TYPE_STRING, descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
_FIELDS: dict[str, tuple[str, ...]] = {
    "Header": ("key", "value"),
    "Context": ("namespace", "ingress", "service_name", "pod"),
    "TLSAssertions": ("version", "*peer_certificates", "server_name", "negotiated_protocol", "cipher_suite"),
    "EchoAssertions": (
        "fully_qualified_method",
        "*headers:Header",
        "authority",
        "context:Context",
        "tls_assertions:TLSAssertions",
    ),
    "EchoRequest": (),
    "EchoResponse": ("assertions:EchoAssertions",),
}


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="tests/grpcecho.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _FIELDS.items():
        made = file.message_type.add(name=name)
        for number, words in enumerate(fields, 1):
            word, _, kind = words.lstrip("*").partition(":")
            one = made.field.add(name=word, number=number, type=_MESSAGE if kind else _TEXT)
            many = words.startswith("*")
            one.label = one.LABEL_REPEATED if many else one.LABEL_OPTIONAL
            if kind:
                one.type_name = f".{_PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _FIELDS}


MESSAGES = _messages()


def answer(pod: Pod, request: Request) -> Response:
    """The answer of a unary call, framed, with its trailers."""
    from tests.support.echo import Response

    common = (("content-type", "application/grpc"),)
    service, _, method = request.path.lstrip("/").partition("/")
    if service != SERVICE or method not in METHODS:
        return Response(200, b"", common, (("grpc-status", str(UNIMPLEMENTED)), ("grpc-message", "unknown method")))
    said = MESSAGES["EchoResponse"]()
    assertions = said.assertions
    assertions.fully_qualified_method, assertions.authority = request.path, request.host
    for name, values in request.headers.items():
        for value in values:
            assertions.headers.add(key=name.lower(), value=value)
    assertions.context.namespace, assertions.context.pod, assertions.context.service_name = pod.namespace, pod.name, pod.service
    if request.tls:
        tls = assertions.tls_assertions
        tls.version, tls.server_name, tls.cipher_suite = (request.tls[one] for one in ("version", "serverName", "cipherSuite"))
        tls.negotiated_protocol = request.tls.get("negotiatedProtocol", "")
        tls.peer_certificates.extend(request.tls.get("peerCertificates", ()))
    body = said.SerializeToString()
    return Response(200, struct.pack("!BI", 0, len(body)) + body, common, (("grpc-status", "0"),))
