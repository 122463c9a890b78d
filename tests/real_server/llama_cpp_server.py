"""Serve the counting model with llama.cpp's own server, and print its address. It ends with
stdin."""

# Type checkers run with and without the packages of `nox -s real_server`.
# mypy: disable-error-code="import-not-found, import-untyped"
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import xllamacpp
from counting_model import CONTEXT, write_counting_model


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "counting.gguf")
        write_counting_model(model)
        settings = xllamacpp.CommonParams()
        settings.model.path = str(model)
        settings.hostnames = ["127.0.0.1"]
        settings.port = 0
        settings.api_keys = [sys.argv[1]]
        settings.n_ctx = CONTEXT
        settings.n_parallel = 1  # a request waits until the previous one has ended
        settings.cpuparams.n_threads = 1
        settings.sampling.temp = 0
        server = xllamacpp.Server(settings)
        sys.stdout.write(f"{server.listening_address}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
