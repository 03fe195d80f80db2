"""Photographs that a tiny CLIP is tuned on."""

from __future__ import annotations

from pathlib import Path

import pytest
import tuner_toys


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two classes, each in a folder of its own."""
    return tuner_toys.photographs(tmp_path_factory.mktemp("photographs"))
