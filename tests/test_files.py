import threading
import time
from pathlib import Path

import pytest

from lateen.files import atomic_path, folder_lock, hub_snapshot


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".model.bin.4711.tmp").write_bytes(b"gigabytes")
    with atomic_path(tmp_path / "model.bin") as temporary:
        temporary.write_bytes(b"whole")
    assert [p.name for p in tmp_path.iterdir()] == ["model.bin"]


def test_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("")
        temporary.chmod(0o600)
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_waiting_for_a_lock(tmp_path: Path) -> None:
    order = []

    def hold() -> None:
        with folder_lock(tmp_path):
            order.append("held")
            time.sleep(0.1)
            order.append("let go")

    thread = threading.Thread(target=hold)
    thread.start()
    while not order:
        time.sleep(0.005)
    with folder_lock(tmp_path, wait=True):
        order.append("mine")
    thread.join()
    assert order == ["held", "let go", "mine"]


def test_a_snapshot_of_the_hub_says_why_it_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def download(repository: str, **options: object) -> str:
        asked.append({"repository": repository, **options})
        if options["local_files_only"]:
            raise KeyError
        return "/cache/whole"

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert hub_snapshot("a/b", dataset=True, files=["*.txt"]) == Path("/cache/whole")
    assert asked[0] == {
        "repository": "a/b", "repo_type": "dataset", "revision": None, "allow_patterns": ["*.txt"],
        "ignore_patterns": None, "local_files_only": False,
    }  # fmt: skip
    with pytest.raises(FileNotFoundError, match="KeyError"):
        hub_snapshot("a/b", cached=True)
