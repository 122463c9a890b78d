"""The tests that docs/guarantees.md names exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/.:]+)`", GUARANTEES)))


def test_each_guarantee_names_its_tests() -> None:
    _, *paragraphs = re.split(r"^## ", GUARANTEES, flags=re.MULTILINE)
    assert len(paragraphs) == 12
    for number, paragraph in enumerate(paragraphs, 1):
        assert paragraph.startswith(f"{number}. ")
        assert re.search(r"^Tests?: `tests/", paragraph, re.MULTILINE)


@pytest.mark.parametrize("named", NAMED)
def test_is_there(named: str) -> None:
    path, *names = named.split("::")
    body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    for name in names:
        (found,) = (
            node
            for node in body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name == name
        )
        body = found.body
