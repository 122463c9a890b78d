"""A driver program: `ray_batch.py ADDRESS URL SOURCE FOLDER`."""

# pyright: reportMissingImports=false

from __future__ import annotations

import sys
from pathlib import Path

import ray
from support.ray_clients import ClientOf

from gprochat_anyio.batch.on_ray import run_on_ray

if __name__ == "__main__":
    address, url, source, folder = sys.argv[1:]
    ray.init(address=address, log_to_driver=False)
    run_on_ray(ClientOf(url), Path(source), folder, shards=4, sync_every=0.02)
