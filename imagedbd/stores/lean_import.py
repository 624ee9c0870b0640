"""Importing what stores are made of at a lower price.

LanceDB imports ``lance_namespace``, and that two hundred pydantic classes of a REST client, which are all
built at once: with lancedb 0.40, 0.6 to 0.9 s of CPU time at each start and 30 MB for good. They are the
requests and answers of catalogue servers; a folder, an object store and ``db://`` need none of them.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CLIENT: Final = "lance_namespace_urllib3_client"


def lean_arrow() -> None:
    """Have Arrow take its memory from libc, unless the user says otherwise or it is loaded already.

    Its own allocator keeps what was freed: 44 MB after a store of 10,000 pictures was opened, for good. With
    libc's, that goes back with the rest when :func:`imagedbd.processes.give_memory_back` is called, and
    nothing takes longer.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


@contextlib.contextmanager
def lean_lancedb() -> Iterator[None]:
    """While LanceDB is imported in here for the first time, that client's classes have stand-ins."""
    if {"lancedb", "lance_namespace", _CLIENT} & sys.modules.keys():
        yield
        return
    finder = _StandInFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        # Whoever imports these by themselves later gets the real ones.
        for name in [name for name, module in sys.modules.items() if isinstance(module, _StandInModule)]:
            del sys.modules[name]


class _StandInFinder(MetaPathFinder, Loader):
    """Finds every module of the client."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - as finders are called
        target: ModuleType | None = None,  # noqa: ARG002 - likewise
    ) -> ModuleSpec | None:
        is_its = fullname == _CLIENT or fullname.startswith(f"{_CLIENT}.")
        return ModuleSpec(fullname, self, is_package=True) if is_its else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandInModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing in it before it is asked for."""


class _StandInModule(ModuleType):
    """Has a class of every name but those with an underscore."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("_"):
            raise AttributeError(name)
        return type(name, (_StandIn,), {})


class _StandIn:
    """What is made of it is an instance of the real class."""

    def __new__(cls, *arguments: Any, **more: Any) -> Any:
        real = importlib.import_module(f"{_CLIENT}.models")
        return getattr(real, cls.__name__)(*arguments, **more)
