"""Envoy's protobuf types, taken from the very Envoy binary that this installation runs.

The binary embeds the descriptors of all its messages. They are read out once (0.3 s), kept in the user's cache, and loaded
into a private `DescriptorPool`; `from tulle.pb.envoy.config.cluster.v3 import cluster_pb2` then works through an import hook, for every
proto file that Envoy knows, with no generated code. Type stubs beside this file come from `make stubs`.

Well-known types must come from here too (`tulle.pb.google.protobuf.duration_pb2`): messages of two pools do not mix.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import Message

_pool: DescriptorPool | None = None


def pool() -> DescriptorPool:
    """The private pool with every descriptor of the pinned Envoy, loaded at first use."""
    global _pool
    if _pool is None:
        from google.protobuf.descriptor_pool import DescriptorPool

        from tulle.pb import descriptors

        loaded = DescriptorPool()
        for file in descriptors.load():
            loaded.AddSerializedFile(file)
        _pool = loaded
    return _pool


def message_class(full_name: str) -> type[Message]:
    """The class of a message by its protobuf name (`envoy.config.cluster.v3.Cluster`); KeyError where Envoy has none."""
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(pool().FindMessageTypeByName(full_name))


def pack(message: Message) -> Any:
    """A `google.protobuf.Any` of this pool with the message in it, deterministically serialised."""
    from tulle.pb.google.protobuf import any_pb2

    name = message.DESCRIPTOR.full_name
    return any_pb2.Any(type_url=f"type.googleapis.com/{name}", value=message.SerializeToString(deterministic=True))


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes `tulle.pb.a.b` a package and `tulle.pb.a.b.c_pb2` a module of classes, out of the pool."""

    _prefix = __name__ + "."

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(self._prefix):
            return None
        is_package = not fullname.endswith("_pb2")
        if not is_package:
            try:
                pool().FindFileByName(self._file(fullname))
            except KeyError:
                return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=is_package)

    def _file(self, fullname: str) -> str:
        return fullname.removeprefix(self._prefix).replace(".", "/").removesuffix("_pb2") + ".proto"

    def exec_module(self, module: ModuleType) -> None:
        if not module.__name__.endswith("_pb2"):
            return
        from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
        from google.protobuf.message_factory import GetMessageClass

        file = pool().FindFileByName(self._file(module.__name__))

        def find(name: str) -> Any:
            """Classes are made when they are asked for: of those that Envoy's files have, few are."""
            if (message := file.message_types_by_name.get(name)) is None:
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}", name=name, obj=module)
            made = module.__dict__[name] = GetMessageClass(message)
            return made

        module.__dict__["DESCRIPTOR"] = file
        module.__dict__["__getattr__"] = find
        for name, enum in file.enum_types_by_name.items():
            setattr(module, name, EnumTypeWrapper(enum))
            for value in enum.values:
                setattr(module, value.name, value.number)


# Last: what lies on disk (this package's own modules) is found first.
sys.meta_path.append(_Finder())
