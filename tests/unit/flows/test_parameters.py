"""What a person types into a form, as flows get it."""

from pathlib import Path
from typing import Any

import pytest
from prefect.exceptions import ParameterTypeError
from prefect.utilities.callables import parameter_schema

from flows.analyze import analyze
from flows.dataset_chain import dataset_chain
from flows.maintain import maintain
from flows.retrain import retrain
from flows.watch_captures import watch_captures
from flows.watch_drift import watch_drift

FLOWS = (retrain, dataset_chain, analyze, maintain, watch_captures, watch_drift)


def test_a_line_break_after_a_path_is_no_part_of_it() -> None:
    given = retrain.validate_parameters({"config": "/etc/my settings.yaml\n"})
    assert given["config"] == Path("/etc/my settings.yaml")


@pytest.mark.parametrize(
    "typed", [{"output_dir": " "}, {"resume": "../x"}, {"datasets": ["my car"]}, {"datasets": ["../x"]}]
)
def test_what_names_no_place_is_refused(typed: dict[str, Any]) -> None:
    with pytest.raises(ParameterTypeError, match=next(iter(typed))):
        retrain.validate_parameters(typed)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_a_form_can_tell_the_ways_to_give_a_value_from_each_other_by_their_type(flow: Any) -> None:
    for name, shown in parameter_schema(flow).model_dump_for_openapi()["properties"].items():
        kinds = [way["type"] for way in shown.get("anyOf", ())]
        assert len(kinds) == len(set(kinds)), name
