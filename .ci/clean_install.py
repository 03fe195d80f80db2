"""The wheel, installed with all extras in clean environments: make packaging, before a release.

Once with the versions of constraints.txt, once with the lowest that pyproject.toml names. Each is
checked by ``pip check``, by loading every public name and by ``lateen demo --quick``.
"""

from __future__ import annotations

import argparse
import email
import os
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PINNED = ROOT / "constraints.txt"
# Older wheels of torch bring CUDA's libraries, some gigabytes: its lowest version is not tried.
ALWAYS_PINNED = ("torch",)
LOAD_ALL = "import lateen; print(lateen.__version__, *(getattr(lateen, n) for n in lateen.__all__))"


def build_wheel(folder: Path) -> Path:
    """The project's wheel, built into a folder."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(ROOT)], check=True)
    [wheel] = folder.glob("lateen-*.whl")
    return wheel


def requirements(wheel: Path, group: str) -> Iterator[Requirement]:
    """What a wheel needs with an extra, the extras that this one names among it.

    Args:
        wheel: the file.
        group: name of the extra.
    """
    with zipfile.ZipFile(wheel) as archive:
        [name] = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
    groups, every = [group], list(map(Requirement, metadata.get_all("Requires-Dist", [])))
    for asked in groups:
        for one in every:
            of_extra = one.marker is not None and not one.marker.evaluate({"extra": ""})
            if of_extra and not (one.marker and one.marker.evaluate({"extra": asked})):
                continue
            if one.name == metadata["Name"]:
                groups += sorted(one.extras - set(groups))
            else:
                yield one


def lowest(wheel: Path) -> list[str]:
    """The lowest version that each requirement allows, as constraints."""
    pins = PINNED.read_text(encoding="utf-8").splitlines()
    found = [pin for pin in pins if pin.partition("==")[0] in ALWAYS_PINNED]
    for one in requirements(wheel, "all"):
        if one.name not in ALWAYS_PINNED:
            found += [
                f"{one.name}=={s.version}" for s in one.specifier if s.operator in (">=", "==")
            ]
    return sorted(set(found))


def check(wheel: Path, constraints: Path, folder: Path) -> Iterator[tuple[str, float]]:
    """Install a wheel into an environment of its own and use it; yields steps and their seconds.

    Args:
        wheel: the file.
        constraints: the versions to install.
        folder: gets the environment and the demo.
    """
    python = folder / "venv" / "bin" / "python"
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    env["HF_HUB_OFFLINE"] = "1"

    def run(*words: object) -> Callable[[], object]:
        line = [str(python), *map(str, words)]
        return lambda: subprocess.run(line, check=True, cwd=folder, env=env)

    steps: dict[str, Callable[[], object]] = {
        "environment": lambda: venv.create(folder / "venv", with_pip=True),
        "install": run("-m", "pip", "install", "-qq", "-c", constraints, f"{wheel}[all]"),
        "pip check": run("-m", "pip", "check"),
        "public names": run("-c", LOAD_ALL),
        "demo": run("-m", "lateen", "demo", "--quick"),
    }
    for name, step in steps.items():
        begin = time.perf_counter()
        step()
        yield name, time.perf_counter() - begin


def main() -> None:
    """Build, install and check; the first failure ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("versions", nargs="*", help="pinned, lowest; both if not given")
    parser.add_argument("--keep", type=Path, help="an empty folder that keeps the environments")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        base = (given.keep or Path(passing)).resolve()
        wheel = build_wheel(base)
        for versions in given.versions or ["pinned", "lowest"]:
            folder = base / versions
            folder.mkdir()
            constraints = folder / "constraints.txt"
            lines = {
                "pinned": PINNED.read_text(encoding="utf-8").splitlines,
                "lowest": lambda: lowest(wheel),
            }
            constraints.write_text("\n".join(lines[versions]()) + "\n", encoding="utf-8")
            for step, seconds in check(wheel, constraints, folder):
                print(f"{versions}: {step}, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
