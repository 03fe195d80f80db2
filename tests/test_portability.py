"""Nothing that only POSIX has is needed to import lateen, to lock a folder or to read a store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lateen.features.shard import read_shard, write_shard

# Only lateen's own imports are refused: what other packages do on a system is their own matter.
IMPORT_ALL = """
import builtins, importlib, pkgutil
import lateen

real, absent = builtins.__import__, {"fcntl", "resource", "termios", "grp", "pwd", "posix"}

def without_posix(name, globals=None, *args, **named):
    importer = str((globals or {}).get("__name__"))
    if name.partition(".")[0] in absent and importer.startswith("lateen"):
        raise ModuleNotFoundError(name)
    return real(name, globals, *args, **named)

builtins.__import__ = without_posix
names = [module.name for module in pkgutil.walk_packages(lateen.__path__, "lateen.")]
for name in names:
    # Only lmms-eval imports the last, which takes its classes from there.
    if not name.endswith(("__main__", "lmms_eval_model")):
        importlib.import_module(name)
print(len(names))
"""


def test_every_module_can_be_imported_without_what_only_posix_has() -> None:
    command = [sys.executable, "-W", "ignore", "-c", IMPORT_ALL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


def test_rows_are_read_the_same_without_preadv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).half()
    write_shard(tmp_path / "shard", features, [str(i) for i in range(50)], [], (0, 50), {})
    shard, rows = read_shard(tmp_path / "shard").features, np.array([7, 3, 49, 3])
    expected = shard.read(rows)
    monkeypatch.delattr(os, "preadv")
    assert np.array_equal(shard.read(rows), expected)
    assert np.array_equal(shard.read(np.arange(50)), features.numpy())
