"""Cells of a notebook, run in a Jupyter kernel.

As a script, it runs the cells on stdin, and prints their results as JSON. It needs a process of its
own, because a kernel's client leaves sockets and an event loop to the garbage collector.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BOUND = 20.0
"""Timeout of a cell and of the kernel's shutdown, in seconds. Both take a fraction of one."""


@dataclass(frozen=True)
class Cell:
    """A cell of a notebook.

    :param interrupt_at: Output upon which the cell is interrupted. Empty for never.
    """

    code: str
    interrupt_at: str = ""


@dataclass(frozen=True)
class Ran:
    """The result of a cell.

    :param output: The printed text, followed by the value of the last expression.
    :param errors: The text on stderr.
    :param raised: The name of the exception.
    """

    output: str
    errors: str = ""
    raised: str | None = None


def run_cells(cells: Sequence[Cell], env: Mapping[str, str], folder: Path) -> list[Ran]:
    """Run the cells in one kernel, in order, and shut it down. Return their results.

    :param folder: A folder for the kernel's own files.
    """
    own = {name: str(folder) for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, __file__],
        check=False,
        input=json.dumps([asdict(cell) for cell in cells]),
        capture_output=True,
        encoding="utf-8",
        env={**env, **own},
        timeout=3 * BOUND,
    )
    assert done.returncode == 0, done.stderr
    return [Ran(**ran) for ran in json.loads(done.stdout)]


class _Kernel:
    def __init__(self) -> None:
        # Imported here, because a process that only starts this script does not need it.
        from jupyter_client.manager import KernelManager  # noqa: PLC0415

        # Another process may take a port between its choice and the kernel's start.
        transport = "tcp" if sys.platform == "win32" else "ipc"
        self._manager = KernelManager(kernel_name="python3", transport=transport)
        self._manager.start_kernel()
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=BOUND)

    def run(self, cell: Cell) -> Ran:
        # By default, a kernel drops requests that follow an exception.
        request = self._client.execute(cell.code, stop_on_error=False)
        output, errors, raised, interrupt_at = "", "", None, cell.interrupt_at
        while True:
            message = self._client.get_iopub_msg(timeout=BOUND)
            if message["parent_header"].get("msg_id") != request:
                continue
            content: dict[str, Any] = message["content"]
            match message["msg_type"]:
                case "stream" if content["name"] == "stderr":
                    errors += content["text"]
                case "stream":
                    output += content["text"]
                case "execute_result":
                    output += content["data"]["text/plain"]
                case "error":
                    raised = content["ename"]
                case "status" if content["execution_state"] == "idle":
                    return Ran(output, errors, raised)
            if interrupt_at and interrupt_at in output:
                interrupt_at = ""
                self._manager.interrupt_kernel()

    def end(self) -> None:
        """Shut the kernel down, and kill it if it does not exit.

        :raises TimeoutError: If it had to be killed.
        """
        self._client.shutdown()
        limit = time.monotonic() + BOUND
        while self._manager.is_alive() and time.monotonic() < limit:
            time.sleep(0.01)
        ended = not self._manager.is_alive()
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        if not ended:
            raise TimeoutError("the kernel did not end")


def _main() -> None:
    cells = [Cell(**cell) for cell in json.load(sys.stdin)]
    kernel = _Kernel()
    try:
        ran = [kernel.run(cell) for cell in cells]
    finally:
        kernel.end()
    json.dump([asdict(each) for each in ran], sys.stdout)


if __name__ == "__main__":
    _main()
