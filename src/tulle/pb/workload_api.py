"""The messages of the SPIFFE Workload API (and Envoy knows none of them): a table of field numbers, made into descriptors at first use.

The numbers are those of the standard's `workloadapi.proto`. The WIT-SVID profile is not served, and so has no messages here.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.message import Message

SERVICE = "SpiffeWorkloadAPI"
HEADER = "workload.spiffe.io"  # has to be "true" in every call's metadata: no browser can be made to send it

# Message → its fields in the order of their numbers, from 1: `name kind`, where `*` is a list and `%` a map by texts.
_MESSAGES = {
    "X509SVIDRequest": (),
    "X509SVIDResponse": ("svids *X509SVID", "crl *bytes", "federated_bundles %bytes"),
    "X509SVID": ("spiffe_id string", "x509_svid bytes", "x509_svid_key bytes", "bundle bytes", "hint string"),
    "X509BundlesRequest": (),
    "X509BundlesResponse": ("crl *bytes", "bundles %bytes"),
    "JWTSVIDRequest": ("audience *string", "spiffe_id string"),
    "JWTSVIDResponse": ("svids *JWTSVID",),
    "JWTSVID": ("spiffe_id string", "svid string", "hint string"),
    "JWTBundlesRequest": (),
    "JWTBundlesResponse": ("bundles %bytes",),
    "ValidateJWTSVIDRequest": ("audience string", "svid string"),
    "ValidateJWTSVIDResponse": ("spiffe_id string", "claims google.protobuf.Struct"),
}


def message(name: str) -> Any:
    """The class of a message: `message("X509SVIDResponse")(svids=[...])`; KeyError where the API has none of that name."""
    return _classes()[name]


@cache
def _classes() -> dict[str, type[Message]]:
    from google.protobuf import struct_pb2
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass

    scalars = {"string": FieldDescriptorProto.TYPE_STRING, "bytes": FieldDescriptorProto.TYPE_BYTES}
    struct = struct_pb2.DESCRIPTOR
    file = FileDescriptorProto(name="tulle/spiffe_workload_api.proto", syntax="proto3", dependency=[struct.name])

    def typed(field: FieldDescriptorProto, kind: str) -> None:
        if kind in scalars:
            field.type = scalars[kind]
        else:
            field.type = FieldDescriptorProto.TYPE_MESSAGE
            field.type_name = f".{kind}"

    for name, fields in _MESSAGES.items():
        made = file.message_type.add(name=name)
        for number, (label, _, kind) in enumerate((one.partition(" ") for one in fields), start=1):
            field = made.field.add(name=label, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
            if kind[0] in "*%":
                field.label = FieldDescriptorProto.LABEL_REPEATED
            if kind[0] != "%":
                typed(field, kind.removeprefix("*"))
                continue
            entry = made.nested_type.add(name=f"{label.title().replace('_', '')}Entry")
            entry.options.map_entry = True
            for place, (part, of) in enumerate((("key", "string"), ("value", kind[1:])), start=1):
                typed(entry.field.add(name=part, number=place, label=FieldDescriptorProto.LABEL_OPTIONAL), of)
            typed(field, f"{name}.{entry.name}")
    pool = DescriptorPool()
    pool.AddSerializedFile(struct.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return {name: GetMessageClass(pool.FindMessageTypeByName(name)) for name in _MESSAGES}
