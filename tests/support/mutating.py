"""Run a fuzz target: with atheris, which follows the coverage, or else by plain mutation.

`python tests/fuzz/decoder.py --seconds 60`; `nox -s fuzz` runs all of them with atheris.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"

_ODD = [
    *[b"\r\n", b"\n", b"0\r\n\r\n", b"\r\n\r\n", b":", b";", b",", b"{", b"}", b'"', b"[", b"]"],
    *[b"null", b"true", b"1e999", b"-1", b"\\ud800", b"\xff", b"\xf0\x9f\x98\x80", b"\xed\xa0\x80"],
    *[
        b"Internal server error",
        b"Internal",
        b"chunked",
        b"Content-Length: 5\r\n",
        b"\x00",
        b"9" * 99,
    ],
    *[b"data: ", b"\ndata:", b"\n\n", b"\r", b"event: error\n", b"error: {}", b"[DONE]", b": \n"],
    *[b"Transfer-Encoding", b"HTTP/1.1 100 Continue\r\n\r\n", b"NaN", b"\xef\xbb\xbf", b"[429 "],
]


def fuzz(test_one_input: Callable[[bytes], None], seeds: Sequence[bytes]) -> None:
    """Try inputs until the time is over. Print and raise the first failure.

    :param test_one_input: Raises for an input that reveals a defect.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=time.time_ns())
    options = parser.parse_args()
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        _mutate(test_one_input, seeds, options.seconds, options.seed)
        return
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds):
            Path(corpus, str(number)).write_bytes(seed)
        atheris.instrument_all()
        limit = f"-max_total_time={options.seconds:.0f}"
        atheris.Setup([sys.argv[0], limit, f"-seed={options.seed % 2**31}", corpus], test_one_input)
        atheris.Fuzz()


def _mutate(
    test_one_input: Callable[[bytes], None], seeds: Sequence[bytes], seconds: float, seed: int
) -> None:
    chance = random.Random(seed)
    corpus = [b"", *seeds]
    tried = 0
    until = time.monotonic() + seconds
    while tried < len(corpus) or time.monotonic() < until:
        data = corpus[tried] if tried < len(corpus) else _mutated(chance, corpus)
        tried += 1
        try:
            test_one_input(data)
        except BaseException:
            sys.stderr.write(f"seed {seed}, input {tried}: {data!r}\n")
            raise
    sys.stdout.write(f"{Path(sys.argv[0]).stem}: {tried} inputs, none failed (seed {seed})\n")


def _mutated(chance: random.Random, corpus: Sequence[bytes]) -> bytes:
    data = bytearray(chance.choice(corpus))
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at = chance.randrange(len(data) + 1)
        to = min(len(data), at + chance.choice((1, 2, 8, 64)))
        kind = chance.randrange(6)
        if kind == 0:
            data[at:at] = chance.choice(_ODD)
        elif kind == 1:
            data[at:to] = b""
        elif kind == 2:
            data[at:to] = chance.randbytes(to - at)
        elif kind == 3:
            data[at:at] = data[at:to]
        elif kind == 4:
            data[at:to] = chance.choice(_ODD)
        else:
            other = chance.choice(corpus)
            start = chance.randrange(len(other) + 1)
            data[at:to] = other[start : start + 64]
    return bytes(data)
