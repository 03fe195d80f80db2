"""Text encoding: lateen's whole pass against sentence-transformers' ``encode``, same texts, theirs
in float32, as it comes, and in bfloat16, like ours by default.

The texts are generated: half short captions of 5 to 20 words, half long ones of 40 to 160 words, in
random order, as a merge of raw and MLLM-written captions has them.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from lateen.data import Sample, Skip
from lateen.encoders import load_encoder
from lateen.encoders.resolve import resolve
from lateen.encoders.weights import quiet_transformers
from lateen.features import encode

# fmt: off
WORDS = [
    "a", "an", "the", "two", "three", "young", "old", "man", "woman", "child", "dog", "cat", "bird",
    "horse", "car", "bicycle", "boat", "tree", "river", "beach", "mountain", "street", "market",
    "window", "table", "chair", "red", "blue", "green", "yellow", "white", "small", "large", "runs",
    "sits", "stands", "jumps", "plays", "holds", "walks", "near", "behind", "under", "over", "with",
]
# fmt: on


def texts(count: int, seed: int) -> list[str]:
    """Captions of mixed length."""
    chance = random.Random(seed)
    lengths = [chance.choice(((5, 20), (40, 160))) for _ in range(count)]
    return [" ".join(chance.choices(WORDS, k=chance.randint(*span))) for span in lengths]


class Captions:
    """Texts as a dataset."""

    name, columns, fingerprint = "generated captions", ("caption",), "generated"

    def __init__(self, captions: list[str]) -> None:
        self.captions = captions

    def __len__(self) -> int:
        return len(self.captions)

    def __iter__(self) -> Iterator[Sample | Skip]:
        for index, caption in enumerate(self.captions):
            yield Sample(str(index), captions={"caption": (caption,)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--count", type=int, default=1500, help="texts per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    options = parser.parse_args()
    clock = {"wall": time.perf_counter, "cpu": time.process_time}[options.clock]
    place = str(resolve(options.encoder).folder)
    low = {"model_kwargs": {"dtype": torch.bfloat16}}
    with quiet_transformers():
        theirs_by = {
            "float32": SentenceTransformer(place, device="cpu"),
            "bfloat16": SentenceTransformer(place, device="cpu", **low),
        }
    ours = {p: load_encoder(options.encoder, "text", precision=p) for p in ("auto", "float32")}
    names = [*(f"library {name}" for name in theirs_by), *ours]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    cosine = {}
    for round_ in range(options.rounds + 1):
        captions = texts(options.count, seed=round_)
        times = {}
        encoded = {}
        for name, library in theirs_by.items():
            begin = clock()
            encoded[name] = library.encode(captions, convert_to_tensor=True)
            times[f"library {name}"] = clock() - begin
        theirs = encoded["float32"]
        for name, encoder in ours.items():
            with tempfile.TemporaryDirectory() as folder:
                begin = clock()
                store = encode(Captions(captions), encoder, Path(folder) / "s")
                times[name] = clock() - begin
                cosine[name] = torch.cosine_similarity(store[:], theirs).min().item()
        if round_:  # the first round warms up
            for name, value in times.items():
                seconds[name].append(value)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        rate = options.count / median
        print(
            f"{name:16s} {median:6.2f} s  {rate:7.0f} texts/s  "
            f"{medians['library float32'] / median:.2f}x of theirs in float32, "
            f"{medians['library bfloat16'] / median:.2f}x in bfloat16",
            end="",
        )
        print(
            f"  lowest cosine {cosine[name]:.6f}" if name in cosine else "  sentence-transformers"
        )


if __name__ == "__main__":
    main()
