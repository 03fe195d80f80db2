"""What ``lateen doctor`` finds: doors, what does not work, and where networks would run."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import torch
from commands import call
from packaging.requirements import Requirement

from lateen import installation
from lateen.device import bfloat16_support, resolve_precision
from lateen.errors import LateenError
from lateen.installation import examine
from lateen.machine import memory

Capture = pytest.CaptureFixture[str]
PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]


def put(folder: Path, name: str, version: str, *needs: str, code: str = "") -> None:
    """A package that is installed in a folder."""
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {each}" for each in needs]
    (about / "METADATA").write_text("\n".join(lines) + "\n")
    (about / "top_level.txt").write_text(f"{name}\n")
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that packages are found in; lateen needs torch alone, and nothing else is here."""
    monkeypatch.setenv("LATEEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(installation, "_requirements", lambda: ([Requirement("torch>=2")], {}))
    return tmp_path / "site"


def test_doors_and_needs_are_those_of_the_project() -> None:
    needed, extras = installation._requirements()
    assert {each.name.lower() for each in needed} <= {
        Requirement(line).name.lower() for line in PROJECT["dependencies"]
    }
    optional = PROJECT["optional-dependencies"]
    assert set(extras) == set(optional) - {"all", "dev"}  # which gather the others
    for name, group in extras.items():
        assert {each.name for each in group} == {Requirement(line).name for line in optional[name]}


def test_what_works_here_is_told(capsys: Capture, place: Path, tmp_path: Path) -> None:
    (tmp_path / "cache" / "in").mkdir(parents=True)
    (tmp_path / "cache" / "in" / "file").write_bytes(b"12345")
    code, out, err = call(capsys, "doctor", "--json", "--device", "cpu")
    assert (code, err) == (0, "")
    shown = json.loads(out)
    assert shown["packages"][0]["version"] == torch.__version__
    assert shown["folders"]["cache_bytes"] == 5
    assert shown["machine"]["device"] == "cpu"
    assert shown["machine"]["precision"] == resolve_precision("auto", torch.device("cpu"))
    code, out, _ = call(capsys, "doctor", "--device", "cpu")
    assert code == 0 and torch.__version__ in out and "works" in out


def test_what_is_built_for_another_torch_is_named(capsys: Capture, place: Path) -> None:
    put(place, "vision_toy", "1.0", "torch (>=99.0)", "numpy")
    put(place, "loose_toy", "1.0", "torch", 'torch==1.0.0; extra == "old"')
    code, out, err = call(capsys, "doctor")
    assert code == 1 and "vision_toy" in out and "loose_toy" not in err
    assert f"vision_toy: it is built for torch >=99.0, and {torch.__version__} is" in err


def test_what_cannot_be_imported_is_named(
    capsys: Capture, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(place, "fits_toy", "1.0", f"torch=={torch.__version__}", code="raise OSError('no symbol')")
    put(place, "old_toy", "1.0")
    put(place, "door_toy", "1.0", code="import nosuchmodule")
    needed = [Requirement(name) for name in ("torch", "absent_toy", "old_toy>=2")]
    doors = {"door": [Requirement("door_toy"), Requirement("gone_toy")]}
    monkeypatch.setattr(installation, "_requirements", lambda: (needed, doors))
    code, out, err = call(capsys, "doctor", "--json")
    faults = {each["name"]: each["fault"] for each in json.loads(out)["broken"]}
    assert code == 1 and faults == {
        "absent_toy": "it is not installed",
        "old_toy": "lateen needs >=2",
        "door_toy": "import door_toy fails: No module named 'nosuchmodule'",
        "fits_toy": "import fits_toy fails: no symbol",
    }
    assert err.startswith("error: not everything works: ")
    (door, *_) = json.loads(out)["extras"]
    assert door == {
        "name": "door", "missing": ["gone_toy"], "install": "pip install 'lateen[door]'",
    }  # fmt: skip


def test_a_limit_of_an_extra_counts_where_the_extra_is_installed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doors = {"door": [Requirement("door_toy"), Requirement("torch<1")]}
    needed = [Requirement("torch>=2")]
    monkeypatch.setattr(installation, "_requirements", lambda: (needed, doors))
    assert not examine().broken
    put(place, "door_toy", "1.0")
    assert [(each.name, each.fault) for each in examine().broken] == [("torch", "lateen needs <1")]


def test_packages_by_themselves_are_doors(place: Path) -> None:
    put(place, "single_toy", "1.0")
    found = {each.name: each for each in examine(["single_toy", "none_toy"]).extras}
    assert found["single_toy"].missing == ()
    assert found["none_toy"].install == "pip install none_toy"


def test_a_source_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_SELF", "nosuchlateen")
    with pytest.raises(LateenError, match="not installed as a package"):
        examine()


def test_bfloat16_is_said_with_what_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for features, words in [({"avx512_bf16": True, "amx_bf16": False}, "avx512_bf16"), ({}, "")]:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=features: found)
        assert bfloat16_support(cpu) == words
        assert resolve_precision("auto", cpu) == ("bfloat16" if words else "float32")


def test_memory_is_at_most_what_there_is() -> None:
    found = memory()
    assert found["total"] is None or 0 < (found["free"] or 1) <= found["total"]
