"""An index of drawn photographs, made once, and servers of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from commands import saved_model
from serving_toys import ADDRESS, Serve, draw_photographs, opened

from lateen.indexing import index

pytest.importorskip("fastapi")
pytest.importorskip("httpx2")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``photos/``, ``model/`` and ``index/``, made once."""
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATEEN_CACHE", str(folder / "cache"))
        draw_photographs(folder / "photos")
        index(folder / "photos", saved_model(folder / "model"), folder / "index")
    return folder


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    for name in ("photos", "model"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def serve(made: Path) -> Iterator[Serve]:
    """A client of a server with some settings: ``serve(rate=0)``."""
    with ExitStack() as stack:
        from starlette.testclient import TestClient

        from lateen.serving import ServeSettings, create_app

        def started(
            folder: Path = made, *, calibrated: bool = False, base_url: str = ADDRESS,
            **settings: Any,
        ) -> Any:  # fmt: skip
            app = create_app(opened(folder, calibrated=calibrated), ServeSettings(**settings))
            client = TestClient(app, base_url=base_url, raise_server_exceptions=False)
            return stack.enter_context(client)

        yield started


@pytest.fixture
def client(serve: Serve) -> Any:
    return serve(rate=0)
