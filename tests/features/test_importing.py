import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lateen.errors import DataError, StoreError, UsageError
from lateen.features import import_features

VALUES = np.arange(12, dtype=np.float32).reshape(4, 3)
IDS = ["a", "b", "c", "d"]


def test_npy_with_an_id_file(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", VALUES)
    (tmp_path / "ids.txt").write_text("a\nb\nc\nd\n")
    store = import_features(
        tmp_path / "f.npy", tmp_path / "s", ids=tmp_path / "ids.txt", modality="image", encoder="e"
    )
    assert store.ids == IDS
    np.testing.assert_array_equal(store[:].numpy(), VALUES)


def test_torch_file_with_features_and_ids(tmp_path: Path) -> None:
    torch.save({"features": torch.from_numpy(VALUES), "ids": IDS}, tmp_path / "f.pt")
    store = import_features(tmp_path / "f.pt", tmp_path / "s", modality="text", encoder="e")
    assert store.name == "caption"
    np.testing.assert_array_equal(store[:].numpy(), VALUES)


def test_parquet(tmp_path: Path) -> None:
    table = pa.table({"id": IDS, "embedding": VALUES.tolist()})
    pq.write_table(table, tmp_path / "f.parquet")
    store = import_features(tmp_path / "f.parquet", tmp_path / "s", modality="image", encoder="e")
    assert store.ids == IDS
    np.testing.assert_array_equal(store[:].numpy(), VALUES)


def test_parquet_as_polars_writes_it(tmp_path: Path) -> None:
    column = pa.array(VALUES.tolist(), pa.large_list(pa.float32()))
    pq.write_table(pa.table({"id": IDS, "embedding": column}), tmp_path / "f.parquet")
    store = import_features(tmp_path / "f.parquet", tmp_path / "s", modality="image", encoder="e")
    np.testing.assert_array_equal(store[:].numpy(), VALUES)
    ragged = pa.table({"id": IDS, "embedding": [[1.0], [1.0, 2.0], None, [1.0]]})
    pq.write_table(ragged, tmp_path / "r.parquet")
    with pytest.raises(StoreError, match="different lengths"):
        import_features(tmp_path / "r.parquet", tmp_path / "t", modality="image", encoder="e")


def test_rows_with_nan_are_left_out_and_recorded(tmp_path: Path) -> None:
    bad = VALUES.copy()
    bad[1, 2] = np.nan
    bad[3, 0] = np.inf
    np.save(tmp_path / "f.npy", bad)
    store = import_features(
        tmp_path / "f.npy", tmp_path / "s", ids=IDS, modality="image", encoder="e"
    )
    assert store.ids == ["a", "c"]
    assert [(s["id"], s["source"]) for s in store.skipped] == [("b", "row 1"), ("d", "row 3")]


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("/tmp/lateen-was-here"),))  # type: ignore[return-value]


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    with (tmp_path / "f.pt").open("wb") as file:
        pickle.dump(Evil(), file)
    with pytest.raises(StoreError, match="never unpickles"):
        import_features(tmp_path / "f.pt", tmp_path / "s", ids=IDS, modality="image", encoder="e")
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(StoreError, match="not a plain NumPy array"):
        import_features(tmp_path / "o.npy", tmp_path / "s", ids=IDS, modality="image", encoder="e")


def test_ids_are_checked(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", VALUES)
    (tmp_path / "latin.txt").write_bytes("a\nb\ncaf\xe9\nd".encode("latin-1"))
    cases = [
        (["a", "b", "a", "c"], "'a' stands twice, in rows 0 and 2"),
        (["a", " ", "b", "c"], "row 1 is empty"),
        (tmp_path / "latin.txt", r"line 3 of .*latin\.txt is not UTF-8"),
    ]
    for ids, message in cases:
        with pytest.raises((StoreError, DataError), match=message):
            import_features(
                tmp_path / "f.npy", tmp_path / "s", ids=ids, modality="image", encoder="e"
            )


def test_wrong_input_says_what_and_what_to_do(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", VALUES)
    np.save(tmp_path / "flat.npy", VALUES[0])
    np.save(tmp_path / "ints.npy", VALUES.astype(int))
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    cases = [
        ("f.npy", None, UsageError, "Give --ids"),
        ("f.npy", IDS[:2], StoreError, "4 rows but there are 2 ids"),
        ("flat.npy", IDS, StoreError, r"\[rows, dim\]"),
        ("ints.npy", IDS, StoreError, "floats"),
        ("broken.npy", IDS, StoreError, "not a plain NumPy array"),
        ("absent.npy", IDS, StoreError, "no file"),
        ("f.csv", IDS, UsageError, "unknown suffix"),
    ]
    for name, ids, kind, message in cases:
        with pytest.raises(kind, match=message):
            import_features(
                tmp_path / name, tmp_path / "s", ids=ids, modality="image", encoder="e"
            )  # fmt: skip


@pytest.mark.parametrize(
    "ids",
    [
        torch.arange(100, 104),
        list(torch.arange(100, 104)),
        np.arange(100, 104),
        [100.0, 101.0, 102.0, 103.0],
        ["100", "./101", "102 ", "103"],
    ],
)
def test_ids_have_one_normal_form(ids: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", VALUES)
    store = import_features(
        tmp_path / "f.npy", tmp_path / "s", ids=ids, modality="text", encoder="e"
    )
    assert store.ids == ["100", "101", "102", "103"]


@pytest.mark.parametrize("name", ["ids", "image_ids", "image_id"])
def test_a_tensor_of_ids_in_a_torch_file(name: str, tmp_path: Path) -> None:
    content = {"image_features": torch.from_numpy(VALUES), name: torch.arange(4)}
    torch.save(content, tmp_path / "f.pt")
    store = import_features(tmp_path / "f.pt", tmp_path / "s", modality="image", encoder="e")
    assert store.ids == ["0", "1", "2", "3"]


@pytest.mark.parametrize("wrong", [1.5, None, True, b"a"])
def test_an_id_that_is_neither_text_nor_a_whole_number(wrong: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", VALUES)
    with pytest.raises(StoreError, match=r"the id of row 2 .* neither text nor a whole number"):
        import_features(
            tmp_path / "f.npy", tmp_path / "s", ids=["a", "b", wrong, "d"], modality="image",
            encoder="e",
        )  # fmt: skip


def test_id_files_of_windows_json_and_numpy(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", VALUES)
    (tmp_path / "w.txt").write_bytes("\ufeff.\\a.jpg\r\nb.jpg\r\nc.jpg\r\nd.jpg\r\n".encode())
    (tmp_path / "j.json").write_text('["a.jpg", "b.jpg", "c.jpg", "d.jpg"]')
    np.save(tmp_path / "n.npy", np.array(["a.jpg", "./b.jpg", "c.jpg", "d.jpg"]))
    for name in ("w.txt", "j.json", "n.npy"):
        store = import_features(
            tmp_path / "f.npy", tmp_path / name[0], ids=tmp_path / name, modality="image",
            encoder="e",
        )  # fmt: skip
        assert store.ids == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
