"""The flow of one dataset's chain, where a person begins it."""

from pathlib import Path

from core.events.catalogue import ChainFinished, ChainStarted, PlanCreated, PlanFinished, to_event
from core.events.open import open_log
from flows.dataset_chain import dataset_chain
from settings.app import load_settings
from settings.layout import Layout


def test_a_chain_that_is_over_is_not_begun_again(tmp_path: Path) -> None:
    log = open_log(Layout(tmp_path))
    facts = (
        PlanCreated(
            steps=[
                {"dataset": "car", "phase": "graphs", "action": "skip", "reason": "r", "settings_digest": "d"}
            ],
            settings=load_settings().model_dump(mode="json", exclude={"tracking"}),
            machine={},
            force=False,
            previous=[],
        ),
        ChainStarted(dataset="car", holder="other:1:a"),
        ChainFinished(dataset="car", status="completed", duration_s=28.0),
        PlanFinished(status="completed", duration_s=30.0),
    )
    log.append([to_event("plan", fact) for fact in facts])
    before = list(log.read("plan"))
    dataset_chain.fn("plan", "car", tmp_path)
    assert list(log.read("plan")) == before
