"""Whether a work pool's base job template gives a job that its workers can start."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from prefect.server.schemas.actions import WorkPoolCreate
from prefect.utilities.schema_tools import validate
from prefect.utilities.templating import apply_values
from prefect.workers.base import BaseJobConfiguration

from deployments.work_pools import WorkPool

_JOB_CONFIGURATIONS = {
    "process": ("prefect.workers.process", "ProcessJobConfiguration"),
    "docker": ("prefect_docker.worker", "DockerWorkerJobConfiguration"),
    "kubernetes": ("prefect_kubernetes.worker", "KubernetesWorkerJobConfiguration"),
}


def check_template(pool: WorkPool) -> Iterator[str]:
    """Check a pool's template as the server does, and as its workers do where their package is installed.

    Args:
        pool: A work pool.

    Yields:
        What is wrong, a sentence each.
    """
    template = pool.base_job_template()
    variables = template["variables"]
    try:
        WorkPoolCreate(name=pool.name, type=pool.type, base_job_template=template)
    except ValueError as error:
        yield str(error)
        return
    for name, shown in variables["properties"].items():
        if not shown.get("title"):
            yield f"variable {name} has no title"
    for wrong in validate(defaults(template), variables):
        yield f"default of {wrong.json_path}: {wrong.message}"
    if configuration := job_configuration(pool.type):
        try:
            configuration(**filled_in(template))
        except ValueError as error:
            yield f"{configuration.__name__}: {error}"


def job_configuration(kind: str) -> type[BaseJobConfiguration] | None:
    """The class of which workers of a type make jobs; None where their package is not installed."""
    module, name = _JOB_CONFIGURATIONS[kind]
    try:
        found: type[BaseJobConfiguration] = getattr(import_module(module), name)
    except ModuleNotFoundError:
        return None
    return found


def defaults(template: dict[str, Any]) -> dict[str, Any]:
    """Values of a template's variables that nobody set."""
    return {
        name: variable["default"]
        for name, variable in template["variables"]["properties"].items()
        if "default" in variable
    }


def filled_in(template: dict[str, Any], **values: Any) -> dict[str, Any]:
    """A template's job configuration, as a worker fills it in.

    Args:
        template: Base job template.
        values: Job variables of a deployment.
    """
    filled: dict[str, Any] = apply_values(template["job_configuration"], {**defaults(template), **values})
    return filled
