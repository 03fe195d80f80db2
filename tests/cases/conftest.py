"""What every case needs: a model that a command can be given."""

from pathlib import Path

import pytest
from commands import saved_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved_model(tmp_path / "model")
