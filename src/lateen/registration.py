"""Tells transformers of lateen's own classes when they are needed, so that ``import lateen`` does.

A saved multimodal model is transformers' Llava with a tower that transformers does not know. To
load one is to import transformers' module of Llava's configuration; what follows that import
registers the towers. Until then nothing is loaded.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

TRIGGER = "transformers.models.llava.configuration_llava"
_HOME = "lateen.mllm.fused"  # registers towers when it is imported, and imports the others


def register_with_transformers() -> None:
    """Have the towers registered: now, if transformers' Llava is loaded, else when it is."""
    if TRIGGER in sys.modules:
        importlib.import_module(_HOME)
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


class _AfterImport(MetaPathFinder):
    """Finds one module as others do, and has the towers registered after it is loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own spec, with a loader that does one thing more; ``None`` for others."""
        if fullname != TRIGGER:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            load(module)
            importlib.import_module(_HOME)

        spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec
