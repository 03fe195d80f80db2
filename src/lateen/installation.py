"""What is installed, what of it works, and where networks would run: what ``lateen doctor`` tells.

Which packages there are to be comes from lateen's own metadata (``pyproject.toml``). Nothing is
changed, nothing is downloaded.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lateen.errors import LateenError, reason
from lateen.hardware import cache_folder

_SELF, _TORCH = "lateen", "torch"


@dataclass(frozen=True)
class Package:
    """A package that is wanted, and how it is here.

    Attributes:
        name: as ``pip install`` takes it.
        wants: which versions, such as ``>=2.6``; empty for any.
        version: the one that is installed; ``None`` if none is.
        fault: what is wrong with it, one sentence; empty if nothing is.
    """

    name: str
    wants: str
    version: str | None
    fault: str = ""


@dataclass(frozen=True)
class Extra:
    """A door that stands open where its packages are installed.

    Attributes:
        name: of the extra, or of a package that is installed by itself.
        missing: its packages that are not here.
        install: the line that brings them.
    """

    name: str
    missing: tuple[str, ...]
    install: str


@dataclass(frozen=True)
class Installation:
    """How lateen is installed here.

    Attributes:
        versions: of lateen and Python, and the system's name.
        machine: device, cores, memory, precision and threads; empty where torch does not load.
        folders: lateen's cache and the hub's, and whether the hub is asked.
        packages: what lateen needs, and what else is built on torch.
        extras: the doors, also what is installed by itself.
        broken: packages that are here, or should be, and do not work.
    """

    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    folders: Mapping[str, Any]
    packages: list[Package]
    extras: list[Extra]
    broken: list[Package]

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def examine(alone: Iterable[str] = ()) -> Installation:
    """Look at everything; packages are imported, which takes some seconds.

    Args:
        alone: packages that are used where they are installed, and are in no extra.

    Raises:
        LateenError: lateen has no metadata, as its source is used without being installed.
    """
    needed, extras = _requirements()
    modules = _modules()
    packages = [_looked_at(each, modules) for each in needed]
    optional = [
        _looked_at(each, modules)
        for group in extras.values()
        for each in group
        # A narrower limit on what lateen needs anyway holds where the extra is installed.
        if each.name not in {one.name for one in needed} or all(_version(o.name) for o in group)
    ]
    optional += [_looked_at(Requirement(name), modules) for name in alone]
    here = list({each.name: each for each in optional if each.version is not None}.values())
    built = [*_built_on_torch({each.name for each in (*packages, *here)}, modules)]
    works = not any(each.fault for each in packages if each.name == _TORCH)
    return Installation(
        versions={
            _SELF: importlib.metadata.version(_SELF), "Python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        machine=_machine() if works else {},
        folders=_folders(),
        packages=[*packages, *built],
        extras=[*_doors(extras), *_alone(alone)],
        broken=[each for each in (*packages, *built, *here) if each.fault],
    )  # fmt: skip


def _requirements() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """What lateen needs, and by its name what each extra brings. Extras that gather several others
    are left out.

    Raises:
        LateenError: it has no metadata.
    """
    try:
        about = importlib.metadata.metadata(_SELF)
    except importlib.metadata.PackageNotFoundError as error:
        raise LateenError(
            "lateen's source is used, and it is not installed as a package",
            "Install it: pip install -e . in its folder.",
        ) from error
    listed = [Requirement(line) for line in about.get_all("Requires-Dist") or []]
    listed = [each for each in listed if canonicalize_name(each.name) != _SELF]
    needed = [each for each in listed if _applies(each)]
    extras = {
        name: [each for each in listed if each not in needed and _applies(each, name)]
        for name in about.get_all("Provides-Extra") or []
    }
    sets = {name: {each.name for each in group} for name, group in extras.items()}
    return needed, {
        name: group for name, group in extras.items()
        if sum(other <= sets[name] for other in sets.values()) < 3  # itself and one more
    }  # fmt: skip


def _applies(requirement: Requirement, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _looked_at(requirement: Requirement, modules: Mapping[str, str]) -> Package:
    """A package as it is here: whether it is one of the wanted versions and can be imported."""
    name, version = requirement.name, _version(requirement.name)
    wants = str(requirement.specifier)
    if version is None:
        return Package(name, wants, None, "it is not installed")
    if not requirement.specifier.contains(version, prereleases=True):
        return Package(name, wants, version, f"lateen needs {wants}")
    return Package(name, wants, version, _import_fault(name, modules))


def _import_fault(name: str, modules: Mapping[str, str]) -> str:
    """Why a package cannot be imported; empty if it can."""
    module = modules.get(canonicalize_name(name))
    if module is None:
        return ""  # it has only commands or data
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - whatever it raises, it does not work
        return f"import {module} fails: {reason(error)}"
    return ""


def _modules() -> dict[str, str]:
    """The module to import of every installed package, by its normal name: the one that is called
    like it, else the first."""
    found: dict[str, list[str]] = defaultdict(list)
    for module, owners in importlib.metadata.packages_distributions().items():
        for owner in owners:
            if not module.startswith("_"):
                found[canonicalize_name(owner)].append(module)
    return {
        owner: min(modules, key=lambda each: (canonicalize_name(each) != owner, each))
        for owner, modules in found.items()
    }


def _built_on_torch(known: set[str], modules: Mapping[str, str]) -> Iterator[Package]:
    """What is installed beside lateen and needs torch, such as torchvision: transformers uses that
    where it is there, and fails where it does not fit."""
    torch = _version(_TORCH)
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name is None or name in known or torch is None:
            continue
        for line in distribution.requires or ():
            wanted = Requirement(line)
            if canonicalize_name(wanted.name) != _TORCH or not _applies(wanted):
                continue
            fits = wanted.specifier.contains(torch, prereleases=True)
            fault = f"it is built for torch {wanted.specifier}, and {torch} is installed"
            fault = _import_fault(name, modules) if fits else fault
            yield Package(name, "", distribution.version, fault)


def _doors(extras: Mapping[str, list[Requirement]]) -> list[Extra]:
    return [
        Extra(
            name, tuple(each.name for each in group if _version(each.name) is None),
            f"pip install '{_SELF}[{name}]'",
        )
        for name, group in extras.items()
    ]  # fmt: skip


def _alone(names: Iterable[str]) -> list[Extra]:
    return [
        Extra(name, () if importlib.util.find_spec(name) else (name,), f"pip install {name}")
        for name in names
    ]


def _machine() -> dict[str, Any]:
    import torch

    from lateen.device import (
        BFLOAT16_FEATURES,
        bfloat16_support,
        resolve_device,
        resolve_precision,
    )
    from lateen.machine import memory, this_machine

    device = resolve_device()
    support = bfloat16_support(device)
    because = f"computed by {support}" if support else "nothing here computes in bfloat16"
    if not support and device.type == "cpu":
        because = f"the CPU has none of {', '.join(BFLOAT16_FEATURES)}"
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return {
        **this_machine(), **gpu, "memory": memory(),
        "precision": resolve_precision("auto", device), "bfloat16": because,
        **{name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")},
    }  # fmt: skip


def _folders() -> dict[str, Any]:
    folder = cache_folder()
    found: dict[str, Any] = {"cache": str(folder), "cache_bytes": _bytes_in(folder)}
    try:
        from huggingface_hub import constants
    except ImportError:  # it is among what is broken, then
        return found
    offline = bool(constants.HF_HUB_OFFLINE)
    return {**found, "hub_cache": str(constants.HF_HUB_CACHE), "hub_offline": offline}


def _bytes_in(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 - speed
            except OSError:  # it was removed meanwhile
                continue
    return total
