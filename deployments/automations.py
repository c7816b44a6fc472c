"""Automations as code: what Prefect does when something happens to plans, captures, models or machines.

Two things keep them from going round for ever. A crash is resumed as ``resume: latest``, which refuses a
plan that did not get any further the last times; and captures and drift are told once
(``flows.watch_captures``, ``flows.watch_drift``), so nothing is retrained twice for the same reason. Prefect
acts at least once, several times on a busy server: runs know the event they were begun for (``cause``), and
notifications carry its id. What an event says is put into parameters and messages as JSON only: it is never
a template itself.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, CallWebhook, ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.server.events.schemas.automations import AutomationCreate
from prefect.types import SecretDict
from pydantic import SecretStr

from core.planning.interrupted import LATEST
from deployments.changes import Change
from settings.errors import SettingsError
from tasks.domain_events import (
    CAPTURES_CHANGED,
    DATASET,
    DISK_LOW,
    DRIFT_FOUND,
    HOST,
    METRIC_REGRESSED,
    OUT_OF_MEMORY,
)

RETRAIN = "retrain/on-demand"
WEBHOOK = "can-retrain-notifications"
"""Name of the block that keeps the webhook's address."""
HEARTBEAT_S = 30
"""How often flow runs say that they live: ``PREFECT_FLOWS_HEARTBEAT_FREQUENCY`` in the jobs of work pools."""

_FLOWS = [
    "retrain",
    "dataset-chain",
    "sample-resources",
    "analyze",
    "maintain",
    "watch-captures",
    "watch-drift",
]
_ID = "prefect.resource.id"
_RETRAIN_FLOW = {"prefect.resource.role": "flow", "prefect.resource.name": "retrain"}
_DATASET = f'event.resource["{DATASET}"]'


class _Known(NamedTuple):
    """What actions refer to, as far as the server has it: the deployment, and the block of the webhook."""

    deployment: UUID | None
    webhook: UUID | None


_Action = Callable[[_Known], ActionTypes | str]
"""Makes an action, or says what it waits for."""


class Rule(NamedTuple):
    """An automation to be."""

    name: str
    description: str
    trigger: EventTrigger
    action: _Action


def ensure_automations(client: SyncPrefectClient, webhook_url: str | None = None) -> list[Change]:
    """Make the automations that are missing, and change those that differ; one that was paused stays paused.

    Args:
        client: Of the Prefect API.
        webhook_url: Where notifications are sent, kept as a secret of the server; None leaves it as it is.

    Returns:
        What became of the webhook and of each automation; those that need a deployment wait for it.

    Raises:
        SettingsError: The webhook's address is none.
    """
    webhook, changes = _ensure_webhook(client, webhook_url)
    known = _Known(_deployment_id(client), webhook)
    there = {automation.name: automation for automation in client.read_automations()}
    return changes + [_ensure(client, rule, known, there.get(rule.name)) for rule in rules()]


def check_automations() -> Iterator[str]:
    """Check every automation as the server does, templates included.

    Yields:
        What is wrong, a sentence each.
    """
    for rule in rules():
        action = rule.action(_Known(uuid4(), uuid4()))
        try:
            AutomationCreate.model_validate(_core(rule, action).model_dump(mode="json"))
        except ValueError as error:
            yield f"{rule.name}: {error}"


def rules(lost_after_s: float = 3 * HEARTBEAT_S) -> list[Rule]:
    """Every automation.

    Args:
        lost_after_s: Without a heartbeat for this long a flow run counts as crashed, seconds.
    """
    return [
        Rule(
            "can-retrain: captures changed",
            "Retrain a dataset whose captures are others than its models were trained on.",
            _each(CAPTURES_CHANGED),
            _retrain(datasets=[f"{{{{ {_DATASET} }}}}"]),
        ),
        Rule(
            "can-retrain: drift found",
            "Retrain a dataset whose recent traffic scores otherwise than its validation windows did.",
            _each(DRIFT_FOUND),
            _retrain(datasets=[f"{{{{ {_DATASET} }}}}"], force_retrain=True),
        ),
        Rule(
            "can-retrain: resume after a crash",
            "Take up the interrupted plan of a deployment's run that crashed, unless it gets no further.",
            EventTrigger(
                expect={"prefect.flow-run.Crashed"},
                match={_ID: "prefect.flow-run.*"},
                match_related=[_RETRAIN_FLOW, {"prefect.resource.role": "deployment"}],
                for_each={_ID},
                posture=Posture.Reactive,
            ),
            _retrain(
                # Who crashed before any plan was begun has nothing to go on with: then there is no run.
                resume=f'{{{{ ("{LATEST}" if "plan:" in flow_run.tags|join else no_plan_was_begun()) }}}}',
                config="{{ flow_run.parameters.get('config') }}",
                output_dir="{{ flow_run.parameters.get('output_dir') }}",
            ),
        ),
        Rule(
            "can-retrain: heartbeat lost",
            "Mark a flow run as crashed that has not said for a while that it lives.",
            EventTrigger(
                after={"prefect.flow-run.heartbeat"},
                expect={"prefect.flow-run.*"},
                match={_ID: "prefect.flow-run.*"},
                match_related={"prefect.resource.role": "flow", "prefect.resource.name": _FLOWS},
                for_each={_ID},
                posture=Posture.Proactive,
                threshold=1,
                within=timedelta(seconds=lost_after_s),
            ),
            _mark_crashed,
        ),
        Rule(
            "can-retrain: out of memory again and again",
            "Notify when a dataset ran out of memory three times within an hour; at most once an hour.",
            _each(OUT_OF_MEMORY, times=3, within_s=3600),
            _notify(f'{_DATASET} ~ " ran out of memory three times within an hour"'),
        ),
        Rule(
            "can-retrain: disk nearly full",
            "Notify when the disk of an output directory is nearly full; at most once in six hours.",
            _each(DISK_LOW, within_s=6 * 3600),
            _notify(f'"the disk of " ~ event.resource["{HOST}"] ~ " is nearly full"'),
        ),
        Rule(
            "can-retrain: metric regressed",
            "Notify when a new version of a model is clearly worse than the one before it.",
            _each(METRIC_REGRESSED),
            _notify(f'"new models of " ~ {_DATASET} ~ " are clearly worse than those before them"'),
        ),
        Rule(
            "can-retrain: plan failed",
            "Notify when a retraining failed: a phase failed for good, or no plan could be made or taken up.",
            EventTrigger(
                expect={"prefect.flow-run.Failed"},
                match={_ID: "prefect.flow-run.*"},
                match_related=_RETRAIN_FLOW,
                for_each={_ID},
                posture=Posture.Reactive,
            ),
            _notify('event.resource["prefect.resource.name"] ~ " failed"'),
        ),
    ]


def _each(event: str, times: int = 1, within_s: float = 0.0) -> EventTrigger:
    """For each resource, so many events of a name within some time; then again only after that time."""
    return EventTrigger(
        expect={event},
        for_each={_ID},
        posture=Posture.Reactive,
        threshold=times,
        within=timedelta(seconds=within_s),
    )


def _retrain(**parameters: Any) -> _Action:
    parameters["cause"] = "{{ event.id|string }}"

    def action(known: _Known) -> ActionTypes | str:
        if known.deployment is None:
            return f"there is no deployment {RETRAIN} yet: `prefect deploy --all` makes both"
        return RunDeployment(source="selected", deployment_id=known.deployment, parameters=parameters)

    return action


def _notify(said: str) -> _Action:
    """Call the webhook with a JSON object; ``text`` is what chat services show.

    Args:
        said: A template's expression.
    """
    fields = {
        "text": f'"can-retrain: " ~ {said}',
        "id": "event.id|string",
        "event": "event.event",
        "occurred": "event.occurred.isoformat()",
        "resource": f'event.resource["{_ID}"]',
        "url": "event|ui_url",
        "payload": "event.payload",
    }
    payload = ", ".join(f'"{name}": {{{{ ({value}) | tojson }}}}' for name, value in fields.items())

    def action(known: _Known) -> ActionTypes | str:
        if known.webhook is None:
            return "no webhook is known (optional): name one in CAN_RETRAIN_WEBHOOK_URL and do this again"
        return CallWebhook(block_document_id=known.webhook, payload=f"{{{payload}}}")

    return action


def _mark_crashed(known: _Known) -> ActionTypes | str:
    del known
    return ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message="No heartbeat for too long.")


def _ensure(client: SyncPrefectClient, rule: Rule, known: _Known, there: Automation | None) -> Change:
    thing = f"automation {rule.name}"
    action = rule.action(known)
    if isinstance(action, str):
        return Change(thing, "waiting", action)
    wanted = _core(rule, action, there is None or there.enabled)
    if there is None:
        client.create_automation(wanted)
        return Change(thing, "made")
    if there.model_dump(exclude={"id"}) == wanted.model_dump():
        return Change(thing, "unchanged")
    # What is not set explicitly would not be sent, even a trigger's type; an owner cannot be sent at all.
    sent = AutomationCore.model_validate(wanted.model_dump(exclude={"owner_resource"}))
    client.update_automation(there.id, sent)
    return Change(thing, "changed")


def _core(rule: Rule, action: ActionTypes | str, enabled: bool = True) -> AutomationCore:
    return AutomationCore(
        name=rule.name,
        description=rule.description,
        enabled=enabled,
        tags=["can-ids"],
        trigger=rule.trigger,
        actions=[action],
    )


def _ensure_webhook(client: SyncPrefectClient, url: str | None) -> tuple[UUID | None, list[Change]]:
    """The webhook's block; its address is never shown."""
    thing = f"block webhook/{WEBHOOK}"
    try:
        there = client.read_block_document_by_name(WEBHOOK, Webhook.get_block_type_slug())
    except ObjectNotFound:
        there = None
    if url is None:
        return (there.id, [Change(thing, "unchanged")]) if there else (None, [])
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise SettingsError("CAN_RETRAIN_WEBHOOK_URL is no http:// or https:// address")
    if there and there.data.get("url") == url:
        return there.id, [Change(thing, "unchanged")]
    headers = SecretDict({"Content-Type": "application/json"})
    block = Webhook(url=SecretStr(url), headers=headers)
    saved = cast(UUID, block.save(WEBHOOK, overwrite=True))  # it would be a coroutine within one
    return saved, [Change(thing, "changed" if there else "made")]


def _deployment_id(client: SyncPrefectClient) -> UUID | None:
    try:
        return client.read_deployment_by_name(RETRAIN).id
    except ObjectNotFound:
        return None
