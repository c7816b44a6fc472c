"""The dry check: is ``prefect.yaml``, with all that it refers to, right? Nothing is asked of a server."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from prefect.cli.deploy._models import ConcurrencyLimitSpec, DeploymentConfig, PrefectYamlModel
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.client.schemas.schedules import CronSchedule
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import validate
from pydantic import ValidationError

from deployments.automations import check_automations, rules
from deployments.job_templates import check_template
from deployments.variables import VARIABLES
from deployments.work_pools import QUEUES, WORK_POOLS

ROOT = Path(__file__).resolve().parents[1]
_VARIABLE = re.compile(r"\{\{\s*prefect\.variables\.([\w-]+)\s*\}\}")
_PLACEHOLDER = re.compile(r"\{\{.*?\}\}")
_MACHINE_PATH = re.compile(r"(^|[\s=:,])(~|/[A-Za-z][\w.-]*/|[A-Za-z]:\\|file:)")
_SECRET_NAME = re.compile(r"passw|secret|token|credential|auth_string|api_key|access_key", re.IGNORECASE)
_URL_WITH_PASSWORD = re.compile(r"://[^/\s:@]*:[^/\s@]+@")


def check_deployments(file: Path = ROOT / "prefect.yaml") -> tuple[list[str], list[str]]:
    """Check a deployment file, the work pools' job templates, and that they refer to each other properly.

    Args:
        file: The deployment file; ``pyproject.toml`` beside it has the version.

    Returns:
        What was checked, in words, and what is wrong, a sentence each.
    """
    text = file.read_text(encoding="utf-8")
    try:
        raw = yaml.safe_load(text)
        model = PrefectYamlModel.model_validate(raw)
    except (yaml.YAMLError, ValidationError) as error:
        return [], [f"{file.name}: {error}"]
    version = tomllib.loads((file.parent / "pyproject.toml").read_text())["project"]["version"]
    problems = [f"{file.name}: {problem}" for problem in _file_problems(raw)]
    names: set[str] = set()
    for given, config in zip(raw["deployments"], model.deployments, strict=True):
        flow, wrong = _flow(config)
        name = f"{flow.name if flow else config.entrypoint}/{config.name}"
        wrong += ["there are two of that name"] if name in names else []
        names.add(name)
        wrong += [*_unknown_keys(given), *_deployment_problems(config, flow, version)]
        problems += [f"{file.name}: {name}: {problem}" for problem in wrong]
    for pool in WORK_POOLS:
        problems += [f"work pool {pool.name}: {problem}" for problem in check_template(pool)]
    problems += [f"automation {problem}" for problem in check_automations()]
    made = {"deployments": names, "work pools": WORK_POOLS, "variables": VARIABLES, "automations": rules()}
    return [f"{len(things)} {kind}" for kind, things in made.items()], problems


def _file_problems(raw: Mapping[str, Any]) -> Iterator[str]:
    """What must not be anywhere in the file."""
    used = set()
    for where, value in _strings(raw, ""):
        used |= set(_VARIABLE.findall(value))
        said = _PLACEHOLDER.sub("", value)
        if "{{ $" in value or "{{$" in value:
            yield f"{where}: {value!r} is taken from the environment of whoever deploys: use a variable"
        if _MACHINE_PATH.search(said) and not where.endswith(".description"):
            yield f"{where}: {value!r} is a place on one machine; name it in the environment of its worker"
        if _URL_WITH_PASSWORD.search(said) or (
            _SECRET_NAME.search(where.rpartition(".")[2]) and said.strip()
        ):
            yield f"{where}: a secret in a file that everybody reads; refer to a block or a worker's variable"
    known = {variable.name for variable in VARIABLES}
    yield from (f"variable {name} is made by nobody (deployments/variables.py)" for name in used - known)
    yield from (f"variable {name} is used nowhere" for name in known - used)


def _strings(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Every string below a value, keys aside, with its place."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _strings(part, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            name = part.get("name", index) if isinstance(part, Mapping) else index
            yield from _strings(part, f"{where}[{name}]")
    elif isinstance(value, str):
        yield where, value


def _flow(config: DeploymentConfig) -> tuple[Flow[Any, Any] | None, list[str]]:
    entrypoint = config.entrypoint or ""
    if ":" in entrypoint or "." not in entrypoint:
        return None, [f"entrypoint {entrypoint!r} is no module.flow of the installed package"]
    try:
        return load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False), []
    except Exception as error:  # noqa: BLE001 - whatever the module raises while it is imported
        return None, [f"entrypoint {entrypoint!r} cannot be loaded: {error}"]


def _unknown_keys(given: Mapping[str, Any]) -> list[str]:
    """Keys that Prefect would silently ignore."""
    limit = given.get("concurrency_limit")
    unknown = set(given) - set(DeploymentConfig.model_fields)
    unknown |= set(limit) - set(ConcurrencyLimitSpec.model_fields) if isinstance(limit, Mapping) else set()
    unknown |= set(given.get("work_pool", {})) - {"name", "work_queue_name", "job_variables"}
    return [f"Prefect knows no {name!r} here, and would ignore it" for name in sorted(unknown)]


def _deployment_problems(
    config: DeploymentConfig, flow: Flow[Any, Any] | None, version: str
) -> Iterator[str]:
    given = _resolved(config.model_dump(mode="json", exclude_unset=True))
    if given.get("version") != version:
        yield f"version {given.get('version')} is not that of pyproject.toml, {version}"
    yield from (f"no {name}" for name in ("description", "tags") if not given.get(name))
    yield from _pool_problems(given)
    if isinstance(limit := given.get("concurrency_limit"), dict):
        try:
            ConcurrencyLimitConfig.model_validate(limit)
        except ValidationError as error:
            yield f"concurrency_limit: {error}"
    if "schedules" not in given:
        yield "without `schedules`, even an empty list, `prefect deploy` asks for them at a terminal"
    schedules = given.get("schedules") or []
    for schedule in schedules:
        if not schedule.get("slug"):
            yield "a schedule without a slug is made anew by every `prefect deploy`"
        yield from _cron_problems(schedule)
    if flow:
        schema = parameter_schema(flow).model_dump_for_openapi()
        yield from (
            f"parameter {name} has no description"
            for name, shown in schema["properties"].items()
            if not shown.get("description")
        )
        for schedule in schedules or [{}]:
            parameters = {**given.get("parameters", {}), **schedule.get("parameters", {})}
            yield from _parameter_problems(parameters, schema, is_scheduled=bool(schedule))


def _pool_problems(given: Mapping[str, Any]) -> Iterator[str]:
    asked = given.get("work_pool") or {}
    pool = next((pool for pool in WORK_POOLS if pool.name == asked.get("name")), None)
    if pool is None:
        yield f"work pool {asked.get('name')!r} is made by nobody (deployments/work_pools.py)"
        return
    if asked.get("work_queue_name") not in QUEUES:
        yield f"work queue {asked.get('work_queue_name')!r} is made by nobody (deployments/work_pools.py)"
    variables = pool.base_job_template()["variables"]
    job = asked.get("job_variables", {})
    for name in set(job) - set(variables["properties"]):
        yield f"job variable {name!r} is none of work pool {pool.name}"
    for error in validate(job, variables, ignore_required=True):
        yield f"job variables: {error.message}"


def _cron_problems(schedule: Mapping[str, Any]) -> Iterator[str]:
    try:
        CronSchedule(cron=schedule.get("cron") or "", timezone=schedule.get("timezone"))
    except ValidationError as error:
        yield from (f"schedule {schedule.get('slug')}: {problem['msg']}" for problem in error.errors())
    if not schedule.get("timezone"):
        yield f"schedule {schedule.get('slug')} has no time zone"


def _parameter_problems(
    parameters: Mapping[str, Any], schema: dict[str, Any], is_scheduled: bool
) -> Iterator[str]:
    for name in parameters.keys() - schema["properties"].keys():
        yield f"parameter {name!r} is none of the flow"
    # Who starts a run by hand fills in what is required; a schedule cannot.
    for error in validate(dict(parameters), schema, ignore_required=not is_scheduled):
        yield f"parameters: {error.message}"


def _resolved(value: Any) -> Any:
    """With the value of each variable that it is made with, as ``prefect deploy`` puts them in."""
    if isinstance(value, dict):
        return {key: _resolved(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_resolved(part) for part in value]
    if isinstance(value, str):
        defaults = {variable.name: variable.default for variable in VARIABLES}
        if whole := _VARIABLE.fullmatch(value):
            return defaults.get(whole[1], "")
        return _VARIABLE.sub(lambda found: str(defaults.get(found[1], "")), value)
    return value
