import threading
import time
from pathlib import Path

import pytest

from lateen.errors import LateenError
from lateen.files import atomic_folder, atomic_path, folder_lock


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


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / ".model.tmp").mkdir()
    (tmp_path / ".model.tmp" / "half").write_text("of a killed process")
    for content in ("first", "second"):
        with atomic_folder(tmp_path / "model") as made:
            assert not any(made.iterdir())
            (made / "deep").mkdir()
            (made / "deep" / content).write_text(content)
        assert [p.name for p in (tmp_path / "model" / "deep").iterdir()] == [content]
    with pytest.raises(ValueError, match="broken off"), atomic_folder(tmp_path / "model") as made:
        (made / "third").write_text("half")
        raise ValueError("broken off")
    assert [p.name for p in tmp_path.rglob("*")] == ["model", "deep", "second"]


def test_a_killed_process_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / ".model.old").mkdir()  # what was there, with nothing in its place
    (tmp_path / ".model.old" / "weights").write_text("the only ones")
    with pytest.raises(ValueError, match="again"), atomic_folder(tmp_path / "model"):
        raise ValueError("again")
    assert (tmp_path / ".model.old" / "weights").read_text() == "the only ones"
    with atomic_folder(tmp_path / "model") as made:
        (made / "weights").write_text("new")
    assert [p.name for p in tmp_path.rglob("*")] == ["model", "weights"]


def test_no_file_and_no_link_gives_way_to_a_folder(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(LateenError, match="is a file"), atomic_folder(tmp_path / "notes"):
        pass
    assert (tmp_path / "notes").read_text() == "mine"
    (tmp_path / "disk" / "model").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "model")
    with atomic_folder(tmp_path / "link") as made:
        (made / "weights").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "model" / "weights").read_text() == "new"


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
