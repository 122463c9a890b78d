"""Records of a batch: the prompts of lines, their keys, and the lines of the output."""

from __future__ import annotations

import hashlib
import json
import string
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.batch_outputs import SITE, ours

from gprochat_anyio import Message
from gprochat_anyio._request.reply import Reply, Timing
from gprochat_anyio.batch._keys import KeyCounts, key_of_bad_item, key_of_messages
from gprochat_anyio.batch._line_json import decode_fields, encode_fields
from gprochat_anyio.batch._lines import LongLine
from gprochat_anyio.batch._records import (
    Record,
    line_of_error,
    line_of_reply,
    record_of_item,
    record_of_line,
)
from gprochat_anyio.batch._recovery import state_of


def record(line: bytes, **options: Any) -> Record:
    given = {"format": "jsonl", "site": SITE, "index": 0, "number": 7, **options}
    return record_of_line(line, **given)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
names = st.sampled_from(["id", "index", "text", "error", "key", "input_text", "tag", "a\x85\ud800"])


class TestRecords:
    @given(st.binary(max_size=40) | st.text().map(str.encode), st.sampled_from(["jsonl", "text"]))
    @example(b"[" * 100_000, "jsonl")
    @example(b'{"prompt": 1e999, "n": NaN}', "jsonl")
    @example(b'{"prompt": "a", "n": ' + b"1" * 5000 + b"}", "jsonl")
    @example(b'{"prompt": "\\ud800"}', "jsonl")
    @example(b'{"prompt": "x", "deep": 1e400}', "jsonl")
    def test_any_line_is_a_prompt_or_invalid(self, line: bytes, format: str) -> None:
        made = record(line, format=format)
        assert (made.prompt is None) != (made.error is None)
        assert (made.key, made.head) == (record(line, format=format).key, made.head)
        assert len(made.key) == 64
        if made.error is not None:
            assert str(made.error).startswith("line 7: ")
            state, key = state_of(line_of_error(made, made.error))
            assert (state, key) == ("failed", made.key)

    @given(st.dictionaries(names, values, max_size=5))
    def test_fields_are_copied_to_the_output(self, fields: dict[str, Any]) -> None:
        made = record_of_item({"prompt": "Hi", **fields}, site=SITE, index=3)
        line = line_of_reply(made, Reply("tëxt\u2028\x9b", Timing(0, 0, 0, 1, 4, 1)))
        assert len(line.decode().splitlines()) == 1
        written = json.loads(line)
        assert written["id"] == fields.get("id")
        assert (written["index"], written["text"]) == (3, "tëxt\u2028\x9b")
        for name, value in fields.items():
            assert value in [v for k, v in written.items() if k.endswith(name)]
        assert len(written) == len(fields.keys() - {"id"}) + 8
        assert "prompt" not in written

    def test_the_key_is_as_documented(self) -> None:
        made = record(b'{"messages": [{"role": "user", "content": "H\\u00e9"}]}')
        assert made.key == key_of_messages(SITE, [Message("user", "Hé")])
        as_written = b'["http://site.test",[["user","H\\u00e9"]]]'
        assert made.key == hashlib.sha256(as_written).hexdigest()
        assert made.key == record("Hé".encode(), format="text").key
        assert made.key != record("Hé".encode(), format="text", site="another").key

    @given(st.lists(st.text().filter(str.strip), min_size=1, max_size=3), st.text())
    @example(['\x7f \x1b \u2028 \xe9 \t " \\ /'], "s")
    def test_the_key_is_as_documented_for_any_text(self, texts: list[str], site: str) -> None:
        turns = [["user" if n % 2 else "model", text] for n, text in enumerate(texts)]
        written = json.dumps([site, turns], separators=(",", ":"))
        key = key_of_messages(site, [Message(role, text) for role, text in turns])
        assert key == hashlib.sha256(written.encode()).hexdigest()

    @given(st.dictionaries(st.text(), values | st.floats(allow_nan=False, allow_infinity=False)))
    @example({"a": 2**70, "b": "\ud800", "c": 1e16})
    def test_lines_are_read_and_written_as_json_does(self, fields: dict[str, Any]) -> None:
        line = json.dumps(fields).encode()
        assert decode_fields(line) == fields
        for known in (True, False):
            assert json.loads(encode_fields(fields, known=known)) == fields

    def test_a_byte_order_mark_and_carriage_returns_are_skipped(self) -> None:
        line = b'\xef\xbb\xbf{"prompt": "Hi"}\r'
        assert record(line, number=1).prompt == "Hi"
        assert record(line, number=2).error is not None
        assert record(b" Hi \r", format="text").prompt == " Hi "

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            (b"[1]", "not a JSON object"),
            (b'["\\ud800"]', "not a JSON object"),
            (b'{"prompt": "secret', "invalid JSON: Unterminated string starting at, at column 12"),
            (b'{"prompt": "secret", "messages": []}', '"prompt" or "messages", not both'),
            (b'{"id": "secret"}', 'give "prompt" or "messages"'),
            (b'{"custom_id": "secret", "body": {}}', 'give the format "openai"'),
            (b'{"messages": "secret"}', '"messages" must be a list'),
            (b'{"prompt": ""}', "blank"),
            (b"caf\xe9", "not UTF-8: invalid byte at offset 3"),
        ],
    )
    def test_errors_of_invalid_lines_do_not_show_the_prompt(self, line: bytes, said: str) -> None:
        made = record(line)
        assert said in str(made.error)
        assert "secret" not in str(made.error)

    def test_an_invalid_line_keeps_its_id(self) -> None:
        made = record(b'{"id": 5, "tag": "x"}')
        assert json.loads(line_of_error(made, OSError("why")))["id"] == 5

    def test_a_long_line_is_invalid(self) -> None:
        long = LongLine()
        made = record_of_line(long, format="text", site=SITE, index=0, number=2)
        assert "line 2: longer than 16 MiB" in str(made.error)

    @pytest.mark.parametrize("value", [{1, 2}, float("nan"), {"deep": object()}])
    @pytest.mark.parametrize("prompt", ["Hi", ""])
    def test_fields_that_are_not_json_values_are_invalid(self, value: object, prompt: str) -> None:
        made = record_of_item({"prompt": prompt, "field": value}, site=SITE, index=0)
        assert made.error is not None
        assert state_of(line_of_error(made, made.error))[0] == "failed"

    def test_the_key_of_an_invalid_item_is_stable(self) -> None:
        assert key_of_bad_item(SITE, {"a": object()}) == key_of_bad_item(SITE, {"a": object()})
        circle: list[Any] = []
        circle.append(circle)
        assert record_of_item(circle, site=SITE, index=0).error is not None
        assert key_of_bad_item(SITE, circle) == key_of_bad_item(SITE, circle)

    def test_a_failure_keeps_its_partial_text(self) -> None:
        from gprochat_anyio import ReplyInterruptedError  # noqa: PLC0415

        made = record_of_item("Hi", site=SITE, index=0)
        line = json.loads(line_of_error(made, ReplyInterruptedError("m", partial_text="half")))
        assert line["error"] == {
            "type": "ReplyInterruptedError", "message": "m", "partial_text": "half",
        }  # fmt: skip
        assert line["timing"] is None


class TestKeyCounts:
    @given(st.lists(st.tuples(st.booleans(), st.sampled_from(["00", "01", "ab", "ba"]))))
    def test_counts_like_a_list_of_keys(self, steps: list[tuple[bool, str]]) -> None:
        counts, model = KeyCounts(), list[str]()
        for add, digits in steps:
            key = digits * 32
            if add:
                counts.add(key)
                model.append(key)
            else:
                assert counts.take(key) == (key in model)
                if key in model:
                    model.remove(key)
            assert len(counts) == len(model)

    def test_a_match_across_two_keys_does_not_count(self) -> None:
        counts = KeyCounts()
        first, second, rest = "00000" + "1" * 27, "00000" + "2" * 27, "f" * 32
        counts.add(first + rest)
        counts.add(second + rest)
        crossing = (first + second)[2:34]
        assert not counts.take(crossing + rest)
        counts.add(crossing + rest)
        assert counts.take(crossing + rest)
        assert counts.take(second + rest)
        assert counts.take(first + rest)
        assert not counts


def test_names_are_plain() -> None:
    assert set(ours().decode()) <= set(string.printable)
