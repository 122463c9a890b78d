"""Endpoints on Trio with Hypercorn: run `python serve_on_trio.py` in this folder."""

import sys

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette_app import app

config = Config()
config.bind = sys.argv[1:] or ["127.0.0.1:8000"]

# Hypercorn has its own ASGI types
trio.run(serve, app, config)  # type: ignore[arg-type]
