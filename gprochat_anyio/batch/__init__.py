"""Batches of prompts whose outcomes survive a crash: `run_batch`, `run_shard`, `merge_shards`.

Errors of requests are those of `gprochat_anyio`.
"""

from ._batch_errors import OutputBusyError as OutputBusyError
from ._batch_errors import OutputError as OutputError
from ._batch_errors import ShardLostError as ShardLostError
from ._merge import MergeSummary as MergeSummary
from ._merge import merge_shards as merge_shards
from ._run import run_batch as run_batch
from ._run_shard import run_shard as run_shard
from ._summary import BatchSummary as BatchSummary
from ._summary import Percentiles as Percentiles
