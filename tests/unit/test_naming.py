"""Keys, tags and addresses by which things are found in the Prefect UI."""

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tasks.naming import artifact_key
from tasks.publish import dashboard_address


def test_plain_names_give_plain_keys() -> None:
    assert artifact_key("metrics", "hcrl_ch") == "metrics-hcrl-ch"
    assert artifact_key("progress", "set_01") == "progress-set-01"


def test_names_that_look_alike_share_no_key() -> None:
    names = ["hcrl_ch", "hcrl-ch", "HCRL_CH", "hcrl ch", "hcrl__ch", "_hcrl_ch", "ü", "", "汽车"]
    assert len({artifact_key("metrics", name) for name in names}) == len(names)


@given(st.lists(st.text(max_size=30), unique=True, max_size=20))
def test_any_names_give_keys_that_prefect_takes_and_no_two_share_one(names: list[str]) -> None:
    keys = [artifact_key("metrics", name) for name in names]
    assert all(re.fullmatch("[a-z0-9-]+", key) for key in keys)
    assert len(set(keys)) == len(names)


def test_a_dashboard_is_linked_where_it_is_served_or_where_it_lies(tmp_path: Path) -> None:
    page = tmp_path / "20261103 #1_dashboard.html"
    assert dashboard_address(page, "") == page.as_uri()
    assert dashboard_address(page, "http://gpu-1:8000/out/") == (
        "http://gpu-1:8000/out/20261103%20%231_dashboard.html"
    )
