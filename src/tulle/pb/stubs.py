"""`python -m tulle.pb.stubs`: writes type stubs for Envoy's messages beside this file, for mypy and editors.

Uses protoc (grpcio-tools, a development dependency) on the descriptors; the stubs are not committed.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from tulle.pb import descriptors

_ROOTS = ("envoy", "google", "xds", "udpa", "validate")


def main() -> int:
    """Generate; exit status 0 where protoc was content."""
    from grpc_tools import protoc

    here = Path(__file__).parent
    files = [FileDescriptorProto.FromString(file) for file in descriptors.load()]
    wanted = [file.name for file in files if file.name.startswith(("envoy/", "google/protobuf", "google/rpc", "xds/"))]
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch) / "descriptors.binpb"
        bundle.write_bytes(FileDescriptorSet(file=files).SerializeToString())
        arguments = ["protoc", f"--descriptor_set_in={bundle}", f"--pyi_out={scratch}", *wanted]
        if status := protoc.main(arguments):
            return int(status)
        for root in _ROOTS:
            shutil.rmtree(here / root, ignore_errors=True)
        for stub in Path(scratch).rglob("*.pyi"):
            text = re.sub(r"^(from|import) ((?:%s)[\w.]*)" % "|".join(_ROOTS), r"\1 tulle.pb.\2", stub.read_text(), flags=re.M)
            for kept in ("internal", "descriptor ", "message "):
                text = text.replace(f"from tulle.pb.google.protobuf.{kept}", f"from google.protobuf.{kept}")
            text = re.sub(r"from tulle\.pb\.google\.protobuf import (?!\w+_pb2)", "from google.protobuf import ", text)
            target = here / stub.relative_to(scratch)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            for package in target.relative_to(here).parents:
                if package != Path():
                    (here / package / "__init__.pyi").touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
