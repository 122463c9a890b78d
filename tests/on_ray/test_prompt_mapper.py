"""PromptMapper: prompts of a dataset."""

from __future__ import annotations

from typing import Any

import pytest
from support.batch_site import batch_site_in_thread
from support.ray_clients import ClientOf

ray_data = pytest.importorskip("ray.data", reason="Ray is not installed: nox -s on_ray")

from gprochat_anyio.batch.on_ray import PromptMapper  # noqa: E402
from gprochat_anyio.testing import Refuse, Request, Say, Script  # noqa: E402

ROWS = 60


def answer(request: Request) -> Script:
    return Refuse(400, "no") if request.prompt == "p7" else Say(f"re: {request.prompt}")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # Ray Data warns of its own settings
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("cluster")
def test_rows_get_replies_and_errors() -> None:
    rows: list[dict[str, Any]] = [{"prompt": f"p{n}", "n": n} for n in range(ROWS)]
    with batch_site_in_thread(answer) as site:
        dataset = ray_data.from_items(rows, override_num_blocks=6).map_batches(
            PromptMapper,
            fn_constructor_kwargs={"make_client": ClientOf(site.url)},
            concurrency=1,
            batch_size=10,
        )
        found = {row["n"]: row for row in dataset.take_all()}
    assert [found[n]["reply"] for n in range(ROWS) if n != 7] == [
        f"re: p{n}" for n in range(ROWS) if n != 7
    ]
    assert found[7]["reply"] is None
    assert found[7]["error"].startswith("RequestRejectedError: ") or "400" in found[7]["error"]
    assert {found[n]["error"] for n in range(ROWS) if n != 7} == {None}
