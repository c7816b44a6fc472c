"""Prefect variables: what differs between one server and another, say staging and production.

``prefect.yaml`` refers to them, and ``prefect deploy`` puts their values in: it is the same file everywhere,
and holds no place of any machine.
"""

from typing import NamedTuple

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import VariableCreate, VariableUpdate

from deployments.changes import Change, kept


class Variable(NamedTuple):
    """A variable with the value that it is made with.

    Attributes:
        name: In ``prefect.yaml``: ``{{ prefect.variables.NAME }}``.
        default: What it is made with.
        meaning: For people.
    """

    name: str
    default: str | int | bool | None
    meaning: str


VARIABLES = (
    Variable("can_retrain_timezone", "UTC", "Time zone of every schedule."),
    Variable("can_retrain_nightly_cron", "0 2 * * *", "When `retrain/nightly` is due."),
    Variable("can_retrain_schedules_active", True, "Whether anything starts by schedule at all."),
    Variable(
        "can_retrain_start_jitter_s", 900, "Most seconds that a scheduled run waits, so that a fleet spreads."
    ),
    Variable(
        "can_retrain_environment",
        None,
        "What settings are fitted to, such as `ci` on a staging server; null leaves it to each worker.",
    ),
    Variable(
        "can_retrain_chain_deployment",
        None,
        "Deployment of which each dataset's chain becomes a run, such as `dataset-chain/any`; null leaves it "
        "to each worker, whose default is one chain after another.",
    ),
)


def ensure_variables(client: SyncPrefectClient, reset: bool) -> list[Change]:
    """Make the variables that are missing; values that someone set are theirs.

    Args:
        client: Of the Prefect API.
        reset: Give every variable its default again.

    Returns:
        What became of each.
    """
    return [_ensure(client, variable, reset) for variable in VARIABLES]


def _ensure(client: SyncPrefectClient, variable: Variable, reset: bool) -> Change:
    thing = f"variable {variable.name}"
    found = client.read_variable_by_name(variable.name)
    if found is None:
        client.create_variable(VariableCreate(name=variable.name, value=variable.default))
        return Change(thing, "made", repr(variable.default))
    if found.value == variable.default:
        return Change(thing, "unchanged")
    if not reset:
        return kept(thing, found.value, variable.default)
    client.update_variable(VariableUpdate(name=variable.name, value=variable.default))
    return Change(thing, "changed", f"{found.value!r} -> {variable.default!r}")
