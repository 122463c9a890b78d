"""The endpoints on Trio, under Hypercorn: `python serve_on_trio.py`, in this folder."""

import sys

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette_app import app

config = Config()
config.bind = sys.argv[1:] or ["127.0.0.1:8000"]

trio.run(serve, app, config)  # type: ignore[arg-type] # Hypercorn has types of its own for ASGI
