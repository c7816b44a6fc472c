"""What the doctor makes of answers."""

import time
from email.utils import formatdate

import httpx
import pytest

from flows.doctor_probes import Clocks


@pytest.mark.parametrize(
    ("waited_s", "there_s", "found"),
    [(0.0, 0.0, 0.0), (0.0, -20.0, -20.0), (20.0, -19.0, 0.0), (20.0, 0.0, 0.0), (20.0, 3600.0, 3610.0)],
)
def test_a_server_that_takes_its_time_to_answer_is_not_taken_for_one_whose_clock_is_wrong(
    waited_s: float, there_s: float, found: float
) -> None:
    clocks, now = Clocks(), time.time()
    clocks.note("it", now - waited_s, httpx.Response(200, headers={"date": formatdate(now + there_s)}))
    assert clocks["it"] == pytest.approx(found, abs=1.5)
