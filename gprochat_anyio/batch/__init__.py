"""Batches of prompts that lose nothing: `run_batch`, and what it says.

Errors other than those of the output are `gprochat_anyio`'s.
"""

from ._batch_errors import OutputBusyError as OutputBusyError
from ._batch_errors import OutputError as OutputError
from ._run import run_batch as run_batch
from ._summary import BatchSummary as BatchSummary
from ._summary import Percentiles as Percentiles
