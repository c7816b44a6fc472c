"""Automations as the server has them: right, and with whatever a name says put in as text only."""

import copy
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.events.actions import RunDeployment
from prefect.server.events.actions import RunDeployment as ServerRunDeployment
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.types._datetime import now
from prefect.utilities.schema_tools.hydration import HydrationContext, HydrationError, hydrate

from deployments.automations import Rule, check_automations, rules
from tasks.domain_events import captures_changed

CAUSE = str(UUID(int=1))
NAMES = (
    "hcrl_ch",
    """x'"}}{{ 7 * 7 }}{% raw %}<b>\\u0000""",
    "../../etc",
    "",
    "Ünï\n",
    '","force_retrain":true',
)


def _rule(name: str) -> Rule:
    (found,) = (rule for rule in rules() if rule.name == f"can-retrain: {name}")
    return found


def rendered(name: str, **context: Any) -> dict[str, Any]:
    """Parameters of the run that a rule starts, as the server makes them."""
    known = SimpleNamespace(deployment=uuid4(), webhook=uuid4())
    action = _rule(name).action(known)  # type: ignore[arg-type]
    assert isinstance(action, RunDeployment)
    parameters = copy.deepcopy(action.parameters) or {}
    ServerRunDeployment._upgrade_v1_templates(parameters)
    filled = HydrationContext(raise_on_error=True, render_jinja=True, jinja_context=context)
    return hydrate(parameters, filled)


def _received(dataset: str) -> ReceivedEvent:
    event = captures_changed(dataset, "digest", 3)
    return ReceivedEvent(
        occurred=now("UTC"), event=event.name, resource=event.resource, related=[], payload=event.payload,
        id=UUID(CAUSE), received=now("UTC"),
    )  # fmt: skip


def test_every_automation_is_as_the_server_wants_it() -> None:
    assert list(check_automations()) == []
    assert len({rule.name for rule in rules()}) == len(rules())


@pytest.mark.parametrize("name", NAMES)
def test_a_dataset_is_retrained_by_exactly_its_name(name: str) -> None:
    event = _received(name)
    assert rendered("captures changed", event=event) == {"datasets": [name], "cause": CAUSE}
    forced = {"datasets": [name], "force_retrain": True, "cause": CAUSE}
    assert rendered("drift found", event=event) == forced


def test_a_crashed_run_that_had_begun_a_plan_is_resumed_where_it_worked() -> None:
    run = SimpleNamespace(
        tags=["plan:p1", "device:cpu"], parameters={"output_dir": "/out", "datasets": ["a"]}
    )
    parameters = {"resume": "latest", "config": None, "output_dir": "/out", "cause": CAUSE}
    assert rendered("resume after a crash", event=_received("a"), flow_run=run) == parameters


@pytest.mark.parametrize("tags", [[], ["can-ids", "retrain"]])
def test_a_run_that_crashed_before_it_began_a_plan_starts_nothing(tags: list[str]) -> None:
    run = SimpleNamespace(tags=tags, parameters={"resume": "latest"})
    with pytest.raises(HydrationError, match="no_plan_was_begun"):
        rendered("resume after a crash", event=_received("a"), flow_run=run)


def test_without_a_deployment_or_a_webhook_actions_say_what_they_wait_for() -> None:
    nothing = SimpleNamespace(deployment=None, webhook=None)
    waiting = {rule.name: rule.action(nothing) for rule in rules()}  # type: ignore[arg-type]
    said = [reason for reason in waiting.values() if isinstance(reason, str)]
    assert len(said) == len(rules()) - 1
    assert {"prefect deploy" in reason or "CAN_RETRAIN_WEBHOOK_URL" in reason for reason in said} == {True}
