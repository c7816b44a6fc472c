"""Jobs that workers make of our work pools' templates: GPUs, shared memory, secrets by reference only."""

import asyncio
import tomllib
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.objects import FlowRun, WorkPool
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.schema_tools import is_valid_schema

from deployments.job_templates import check_template, filled_in, job_configuration
from deployments.work_pools import WORK_POOLS
from tests.commands import ROOT

POOLS = {pool.name: pool for pool in WORK_POOLS}
FLOW_RUN = FlowRun(id=uuid.UUID(int=1), flow_id=uuid.UUID(int=2), name="chain-demo", state=None)


def _prepared(pool: str, **variables: Any) -> Any:
    """The job of a flow run, as a worker of the pool makes it."""
    configuration = job_configuration(POOLS[pool].type)
    assert configuration, "the package of its workers is installed with the extra dev"
    job = configuration(**filled_in(POOLS[pool].base_job_template(), **variables))
    job.prepare_for_flow_run(FLOW_RUN, work_pool=WorkPool.model_validate({"name": pool, "type": "process"}))
    return job


@pytest.mark.parametrize("name", POOLS)
def test_a_template_is_one_for_server_and_workers(name: str) -> None:
    assert not list(check_template(POOLS[name]))
    is_valid_schema(POOLS[name].base_job_template()["variables"])


def test_a_template_with_an_undeclared_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    template = yaml.safe_load(yaml.dump(POOLS["gpu-docker"].base_job_template()))
    del template["variables"]["properties"]["shm_size"]
    monkeypatch.setattr("deployments.work_pools._template", lambda _: template)
    assert "shm_size" in "".join(check_template(POOLS["gpu-docker"]))


@pytest.mark.parametrize("pool", ["gpu", "cpu"])
def test_a_process_begins_where_its_worker_was_started_and_needs_no_console(pool: str) -> None:
    job = _prepared(pool)
    assert job.working_dir == Path()
    assert job.stream_output is False


def test_a_container_sees_all_gpus_and_has_shared_memory() -> None:
    docker = pytest.importorskip("docker")
    job = _prepared("gpu-docker", image="registry.example.org/can-ids-retrain:1")
    create = dict(job.container_create_kwargs)
    create.pop("working_dir")
    create.pop("stop_signal")
    host = docker.types.HostConfig(version="1.43", **create)
    (request,) = host["DeviceRequests"]
    assert (request["Driver"], request["Count"], request["Capabilities"]) == ("nvidia", -1, [["gpu"]])
    assert host["ShmSize"] == 8 << 30
    assert host["Init"] is True
    assert job.image == "registry.example.org/can-ids-retrain:1"


def test_a_container_takes_secrets_from_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    template = POOLS["gpu-docker"].base_job_template()
    assert "s3cret" not in yaml.dump(template)
    monkeypatch.setenv("CAN_RETRAIN__TRACKING__MLFLOW_URI", "https://me:s3cret@mlflow/")
    configuration = job_configuration("docker")
    assert configuration
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        made: Any = asyncio.run(configuration.from_template_and_values(template, {"env": {"MORE": "1"}}))
    assert made.env["CAN_RETRAIN__TRACKING__MLFLOW_URI"] == "https://me:s3cret@mlflow/"
    assert made.env["MORE"] == "1"


def test_a_pod_has_gpus_shared_memory_volumes_and_a_secret_by_reference() -> None:
    models = pytest.importorskip("kubernetes_asyncio.client.models")
    job = _prepared("gpu-kubernetes", num_gpus=2, env={"CAN_RETRAIN__STORAGE__URL": "s3://bucket/can-ids"})
    pod = job.job_manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert container["envFrom"] == [{"secretRef": {"name": "can-ids-retrain", "optional": True}}]
    assert {"name": "CAN_RETRAIN__STORAGE__URL", "value": "s3://bucket/can-ids"} in container["env"]
    assert container["args"] == ["prefect", "flow-run", "execute"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"data": "/srv/can/data", "outputs": "/srv/can/outputs", "shm": "/dev/shm"}  # noqa: S108 - in the pod
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts)
    assert pod["terminationGracePeriodSeconds"] > 8
    assert pod["restartPolicy"] == "Never"
    # Every key is one that Kubernetes knows: Prefect's class checks only a few.
    for known, given in (
        (models.V1JobSpec, job.job_manifest["spec"]),
        (models.V1Container, container),
        (models.V1ResourceRequirements, container["resources"]),
        (models.V1EmptyDirVolumeSource, pod["volumes"][2]["emptyDir"]),
    ):
        assert set(given) <= set(known.attribute_map.values()), known
    # Prefect asks for two keys of a job in its pod; the API server drops what it does not know.
    assert set(pod) - {"parallelism", "completions"} <= set(models.V1PodSpec.attribute_map.values())


def test_variables_that_nobody_set_leave_no_placeholder_behind() -> None:
    for pool in WORK_POOLS:
        assert "{{" not in str(filled_in(pool.base_job_template(), env={}))


def test_the_image_has_every_package_that_is_installed() -> None:
    lines = (ROOT / "deployments" / "Dockerfile").read_text().splitlines()
    copied = {word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]}
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= copied
