"""The histogram of a batch's durations."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gprochat_anyio.batch._summary import Histogram


class TestHistogram:
    @given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=50))
    def test_is_within_two_percent(self, seconds: list[float]) -> None:
        histogram = Histogram()
        for value in seconds:
            histogram.add(value)
        found = histogram.percentiles()
        assert found is not None
        assert found.most == max(seconds)
        for share, got in ((0.5, found.p50), (0.9, found.p90), (0.99, found.p99)):
            exact = sorted(seconds)[-(-len(seconds) * int(share * 100) // 100) - 1]
            assert abs(got - exact) <= 0.0201 * exact

    def test_of_nothing(self) -> None:
        assert Histogram().percentiles() is None
