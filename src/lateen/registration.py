"""Tells transformers of lateen's own classes when they are needed, so that ``import lateen`` does.

A saved multimodal model is transformers' Llava with a tower that transformers does not know, and
what ``lateen export --to transformers`` writes is of a type of its own. To load one is to import
certain modules of transformers; what follows those imports registers the classes. Until then
nothing is loaded.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


def register_with_transformers() -> None:
    """Have the classes registered: now, if transformers' modules are loaded, else when they are."""
    waiting = {}
    for trigger, register in AFTER.items():
        if trigger in sys.modules:
            register()
        else:
            waiting[trigger] = register
    if waiting and not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport(waiting))


def _towers() -> None:
    # Registers towers when it is imported, and imports the others.
    importlib.import_module("lateen.mllm.fused")


def _hub_configs() -> None:
    from transformers.models.auto.configuration_auto import AutoConfig

    from lateen.integrations._hub_code.configuration_lateen import CONFIGS

    for config in CONFIGS:
        AutoConfig.register(config.model_type, config, exist_ok=True)


def _hub_models() -> None:
    from transformers.models.auto import modeling_auto as auto

    from lateen.integrations._hub_code.modeling_lateen import MODELS

    for model in MODELS:
        for kind in (auto.AutoModel, auto.AutoModelForZeroShotImageClassification):
            kind.register(model.config_class, model, exist_ok=True)


# Nothing here but what the first needs may import more of lateen: these modules of transformers are
# loaded while parts of lateen are being loaded.
AFTER: dict[str, Callable[[], None]] = {
    "transformers.models.llava.configuration_llava": _towers,
    "transformers.models.auto.configuration_auto": _hub_configs,
    "transformers.models.auto.modeling_auto": _hub_models,
}
"""By modules of transformers, what is done after each is loaded."""


class _AfterImport(MetaPathFinder):
    """Finds some modules as others do, and has something done after each is loaded.

    Args:
        waiting: what, by module.
    """

    def __init__(self, waiting: dict[str, Callable[[], None]]) -> None:
        self._waiting = waiting

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own spec, with a loader that does one thing more; ``None`` for others."""
        register = self._waiting.pop(fullname, None)
        if register is None:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            load(module)
            register()

        spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec
