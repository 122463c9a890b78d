"""`gprochat batch --ray` on a cluster."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer

from support.batch_site import BatchSite, batch_site_in_thread

PROMPTS = 400
BOUND = 120.0


@contextmanager
def command(
    cluster: str, site: BatchSite, source: Path, out: Path, *more: str
) -> Iterator[subprocess.Popen[bytes]]:
    paths = (str(source), "--out", str(out))
    arguments = ("batch", *paths, "--ray", cluster, "--url", site.url, *more)
    with subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-m", "gprochat_anyio", *arguments], stderr=subprocess.PIPE
    ) as process:
        guard = Timer(BOUND, process.kill)
        guard.start()
        try:
            yield process
        finally:
            process.kill()
            guard.cancel()


def wait_for(site: BatchSite, process: subprocess.Popen[bytes]) -> None:
    """Wait for an eighth of the requests. A cluster may take a while to start."""
    while len(site.asked) < PROMPTS // 8 and process.poll() is None:
        with suppress(AssertionError):
            site.wait_for(PROMPTS // 8)


def test_ctrl_c_and_resume(cluster: str, tmp_path: Path) -> None:
    source, out = tmp_path / "prompts.jsonl", tmp_path / "out"
    source.write_text("\n".join(json.dumps({"prompt": f"p{n}"}) for n in range(PROMPTS)))
    with batch_site_in_thread() as site:
        with command(cluster, site, source, out, "--shards=2", "--max-per-second=50") as process:
            wait_for(site, process)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=BOUND)
            assert process.returncode == 130, said.decode()
        assert b"stopping: open replies have 10 s" in said
        assert b"Run the same command again to continue." in said
        asked = len(site.asked)
        assert asked < PROMPTS
        with command(cluster, site, source, out) as process:
            _, said = process.communicate(timeout=BOUND)
            assert process.returncode == 0, said.decode()
        assert len(site.asked) == PROMPTS, "no prompt was sent twice"
    assert b"answered before" in said
