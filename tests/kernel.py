"""Cells of a notebook, run in a kernel of Jupyter's as Jupyter would run them.

Run as a script, it runs the cells that stdin has, and prints what became of each as JSON: a process
of its own, since what drives a kernel leaves sockets and an event loop to the garbage collector.
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
"""Seconds that a cell may take, and the end of the kernel; both take a fraction of one."""


@dataclass(frozen=True)
class Cell:
    """:param interrupt_at: what it prints when it is to be interrupted; nothing: never"""

    code: str
    interrupt_at: str = ""


@dataclass(frozen=True)
class Ran:
    """What became of a cell.

    :param output: what it printed, and then the value of its last expression
    :param errors: what came on stderr
    :param raised: the name of the exception
    """

    output: str
    errors: str = ""
    raised: str | None = None


def run_cells(cells: Sequence[Cell], env: Mapping[str, str], folder: Path) -> list[Ran]:
    """What became of each, one after the other in one kernel, which then ended when it was told to.

    :param folder: for the kernel's own files
    """
    own = {name: str(folder) for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    done = subprocess.run(  # noqa: S603 - our own
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
        # Here, for a process that only starts this one has no use for it.
        from jupyter_client.manager import start_new_kernel  # noqa: PLC0415

        self._manager, self._client = start_new_kernel(kernel_name="python3")

    def run(self, cell: Cell) -> Ran:
        # Otherwise it drops what it is sent just after an exception.
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
        """Ask it to end, and kill it if it does not.

        :raises TimeoutError: if it did not
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
