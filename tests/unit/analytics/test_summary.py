"""Results on the terminal, in the 80 columns of a plain one."""

import io

from rich.console import Console

from core.analytics.results import DatasetResult, PhaseResult, RetrainingResults, fold_results
from core.analytics.summary import print_results
from tests.sample_log import FOLDERS, MODELS, PLAN_ID, sample_events


def printed(results: RetrainingResults) -> str:
    console = Console(file=io.StringIO(), width=80)
    print_results(results, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_names_of_folders_and_models_and_all_numbers_stay_whole_on_80_columns() -> None:
    lines = [line.rstrip() for line in printed(fold_results(sample_events(folders=FOLDERS))).splitlines()]
    assert f"Plan {PLAN_ID}: failed" in lines
    assert [line for line in lines if line.startswith("test_")] == list(FOLDERS)
    rows = [line.split() for line in lines if line.startswith(MODELS)]
    assert [len(row) for row in rows] == [6] * len(MODELS) * len(FOLDERS)
    assert all(line == line.strip() for line in lines if line.startswith("hcrl_sa"))


def test_a_folder_that_one_model_lacks_has_no_row_for_it_and_markup_in_names_is_text() -> None:
    dataset = DatasetResult(
        metrics={"fusion": {"[red]a": {"f1": 0.5}, "b": {"f1": 123.4}}, "[b]m": {"b": {"f1": None}}},
        phases={"teacher": PhaseResult(status="failed", error="no [bold] way")},
    )
    text = printed(RetrainingResults(plan_id="p", datasets={"[i]car": dataset}))
    for name in ("[i]car", "[red]a", "[b]m", "no [bold] way"):
        assert name in text
    assert text.count("fusion") == 2
    assert text.count("[b]m") == 1
    assert "123" in text
