"""Encoding in another Python environment against encoding here: same encoder, data and precision,
in turns; how far features are apart, and what starting the other Python takes."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from lateen.encoders import load_encoder
from lateen.features import encode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="of the other environment")
    parser.add_argument("--data", required=True, help="captions, or a folder of photographs")
    parser.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--pooling")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    begin = time.perf_counter()
    how = {"pooling": options.pooling, "precision": options.precision}
    here = load_encoder(options.encoder, **how)
    loaded = time.perf_counter()
    there = load_encoder(options.encoder, **how, python=options.python)
    started = time.perf_counter()
    assert here.info.key == there.info.key
    texts = here.info.modality == "text"
    seconds: dict[str, list[float]] = {"here": [], "there": []}
    stores = {}
    for round_ in range(options.rounds + 1):
        for name, encoder in (("here", here), ("there", there)):
            with tempfile.TemporaryDirectory() as folder:
                begin_encoding = time.perf_counter()
                out = Path(folder) / "store"
                store = encode(options.data, encoder, out, texts_only=texts, dtype="float32")
                if round_:  # the first round warms up
                    seconds[name].append(time.perf_counter() - begin_encoding)
                stores[name] = store[:]
    apart = (stores["here"] - stores["there"]).abs()
    cosine = torch.cosine_similarity(stores["here"], stores["there"])
    print(f"loading: {loaded - begin:.1f} s here, {started - loaded:.1f} s there, {there.versions}")
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(f"{name:6s} {middle:6.2f} s  ({min(values):.2f} to {max(values):.2f})  "
              f"{len(stores[name]) / middle:.0f} a second")  # fmt: skip
    ratio = statistics.median(seconds["here"]) / statistics.median(seconds["there"])
    print(f"{ratio:.2f} of the rate here; features differ by {apart.max():.2e} at most, mean "
          f"{apart.mean():.2e}, of {stores['here'].abs().max():.2f}; lowest cosine "
          f"{cosine.min():.7f}")  # fmt: skip


if __name__ == "__main__":
    main()
