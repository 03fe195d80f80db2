"""Pythons of other environments: a real one that must do without lateen, and ones that fail."""

from __future__ import annotations

import sys
from pathlib import Path

WITHOUT_LATEEN = """
import runpy, sys

class NoLateen:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "lateen":
            raise ImportError(f"{name} was imported")

sys.meta_path.insert(0, NoLateen())
print("welcome to this environment")
import os
import torch
forward = torch.nn.Linear.forward
def chatty(*given):
    print("a library prints")
    os.write(1, b"so does one in C")
    return forward(*given)
torch.nn.Linear.forward = chatty
runpy.run_path(sys.argv[1], run_name="__main__")
"""

# A worker that needs no torch, and does as the test says where it is to encode.
STAGED = """
import json, os, signal, sys, time
given, made = sys.stdin.buffer, sys.stdout.buffer

def read():
    length = given.read(4)
    if not length:
        sys.exit()
    asked = json.loads(given.read(int.from_bytes(length, "little")))
    for shape in asked["arrays"]:
        size = 4
        for edge in shape:
            size *= edge
        given.read(size)
    return asked

def say(header, data=b"", shapes=()):
    text = json.dumps({**header, "arrays": list(shapes)}).encode()
    made.write(len(text).to_bytes(4, "little") + text + data)
    made.flush()

def floats(rows, dim, value="0000803f"):  # 1.0
    say({}, bytes.fromhex(value) * rows * dim, [[rows, dim]])

made.write(b"lateen-worker 1\\n")
made.flush()
answers = {
    "begin": {"device": "cpu", "bfloat16": None, "versions": {"torch": "1.9"}},
    "config": {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 2},
    "load": {"model_type": "bert", "positions": 32, "longest": 32, "keeps_case": False,
             "lacks_end": False, "tower_tokens": None},
    "view": {"dim": 4},
}
calls = 0
while True:
    asked = read()
    if asked["op"] in answers:
        STAGE
        say(answers[asked["op"]])
        continue
    rows = len(asked["texts"])
    calls += 1
    ENCODE
"""


def program(path: Path, code: str, *options: str) -> Path:
    """An executable that runs ``code`` in this Python, whatever it is asked to run."""
    source = path.with_suffix(".py")
    source.write_text(code)
    quoted = " ".join(f"'{each}'" for each in (sys.executable, *options, source))
    path.write_text(f'#!/bin/sh\nexec {quoted} "$@"\n')
    path.chmod(0o755)
    return path


def staged(path: Path, encode: str = "floats(rows, 4)", stage: str = "pass") -> Path:
    """A Python whose worker runs ``encode`` for every batch, and ``stage`` before other answers."""
    return program(path, STAGED.replace("ENCODE", encode).replace("STAGE", stage), "-I")
