"""The dry check of deployments: what is there is right, and what is wrong is named."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.can.registry import DEMO, PUBLISHED
from deployments.check import check_deployments
from flows.retrain import retrain
from tests.commands import ROOT, environment

Edit = Callable[[dict[str, Any], dict[str, dict[str, Any]]], None]


def test_the_deployments_of_this_repository_are_right() -> None:
    checked, problems = check_deployments()
    assert not problems
    assert checked


@pytest.mark.slow
def test_the_command_checks_without_a_server(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "deployments.apply", "--check"],
        cwd=ROOT,
        env=environment(PREFECT_API_URL="http://127.0.0.1:9/api", PREFECT_HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.startswith("all right: ")


def test_every_built_in_dataset_has_a_deployment_of_its_chain_and_is_named_by_the_form() -> None:
    file = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    chains = {
        deployment["name"]: deployment.get("parameters", {}).get("dataset")
        for deployment in file["deployments"]
        if deployment["entrypoint"] == "flows.dataset_chain.dataset_chain"
    }
    built_in = {*PUBLISHED, DEMO}
    assert chains == {"any": None, **{name: name for name in built_in}}
    for name in built_in - {"set_02", "set_03"}:  # between its first and its last
        assert f"`{name}`" in (retrain.__doc__ or "")


def _nightly(**changed: Any) -> Edit:
    return lambda _, deployments: deployments["nightly"].update(changed)


def _schedule(**changed: Any) -> Edit:
    return lambda _, deployments: deployments["nightly"]["schedules"][0].update(changed)


def _step(directory: str) -> Edit:
    step = {"prefect.deployments.steps.set_working_directory": {"directory": directory}}
    return lambda file, _: file.update(pull=[step])


def _environment(**variables: str) -> Edit:
    return lambda _, deployments: deployments["analytics"]["work_pool"].update(
        job_variables={"env": variables}
    )


WRONG: dict[str, tuple[Edit, str]] = {
    "cron": (_schedule(cron="0 25 * * *"), "nightly.*schedule nightly.*cron"),
    "time zone": (_schedule(timezone="Europe/Nowhere"), "nightly.*schedule nightly.*timezone"),
    "no time zone": (_schedule(timezone=None), "nightly.*no time zone"),
    "no schedules": (
        lambda _, deployments: deployments["analytics"].pop("schedules"),
        "analytics.*asks for them",
    ),
    "no slug": (_schedule(slug=None), "nightly.*without a slug"),
    "version": (_nightly(version="0.0.1"), "nightly.*0.0.1 is not that of pyproject.toml"),
    "no description": (_nightly(description=""), "nightly.*no description"),
    "no tags": (_nightly(tags=[]), "nightly.*no tags"),
    "misspelled key": (_nightly(concurency_limit=1), "nightly.*no 'concurency_limit'"),
    "misspelled limit": (_nightly(concurrency_limit={"limits": 1}), "nightly.*no 'limits'"),
    "unknown strategy": (
        _nightly(concurrency_limit={"limit": 1, "collision_strategy": "FIGHT"}),
        "nightly.*concurrency_limit",
    ),
    "unknown pool": (_nightly(work_pool={"name": "gpus"}), "nightly.*work pool 'gpus' is made by nobody"),
    "unknown queue": (
        _nightly(work_pool={"name": "gpu", "work_queue_name": "soon"}),
        "nightly.*work queue 'soon' is made by nobody",
    ),
    "unknown job variable": (
        _nightly(work_pool={"name": "gpu", "work_queue_name": "default", "job_variables": {"image": "a"}}),
        "nightly.*job variable 'image' is none of work pool gpu",
    ),
    "wrong job variable": (
        _nightly(
            work_pool={"name": "gpu", "work_queue_name": "default", "job_variables": {"stream_output": "no"}}
        ),
        "nightly.*job variables.*'no' is not of type 'boolean'",
    ),
    "unknown parameter": (
        _nightly(parameters={"dataset": "demo"}),
        "parameter 'dataset' is none of the flow",
    ),
    "wrong parameter": (_nightly(parameters={"environment": "tpu"}), "nightly.*'tpu' is not"),
    "dataset that leaves its folder": (
        _nightly(parameters={"datasets": ["../demo"]}),
        r"nightly.*'\.\./demo' does not match",
    ),
    "missing parameter of a schedule": (
        lambda _, deployments: deployments["any"].update(
            schedules=deployments["nightly"]["schedules"], parameters={"dataset": "demo"}
        ),
        "any.*'plan_id' is a required property",
    ),
    "file instead of a module": (_nightly(entrypoint="flows/retrain.py:retrain"), "is no module.flow"),
    "unknown module": (_nightly(entrypoint="flows.retrian.retrain"), "cannot be loaded.*retrian"),
    "no flow": (_nightly(entrypoint="flows.retrain.failures"), "cannot be loaded.*not a flow"),
    "two of a name": (_nightly(name="on-demand"), "retrain/on-demand.*two of that name"),
    "place on a machine": (_step("/home/somebody/can-ids"), "/home/somebody/can-ids.*place on one machine"),
    "place of whoever deploys": (_step("{{ $PWD }}"), "environment of whoever deploys"),
    "home": (_environment(CAN_RETRAIN__OUTPUT_DIR="~/outputs"), "analytics.*place on one machine"),
    "password": (
        _environment(CAN_RETRAIN__TRACKING__MLFLOW_URI="https://me:pw@mlflow/"),
        "a secret in a file",
    ),
    "token": (_environment(PREFECT_API_AUTH_STRING="me:pw"), "a secret in a file"),
    "unknown variable": (
        _schedule(timezone="{{ prefect.variables.zone }}"),
        "variable zone is made by nobody",
    ),
    "no YAML": (lambda file, _: file.update(deployments="all"), "deployments"),
}


_FEW = {"nightly", "on-demand", "any", "analytics"}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named(what: str, tmp_path: Path) -> None:
    edit, expected = WRONG[what]
    # Without aliases: each deployment is a thing of its own.
    file = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    file = yaml.safe_load(yaml.dump(file, Dumper=_Plain))
    file["deployments"] = [deployment for deployment in file["deployments"] if deployment["name"] in _FEW]
    edit(file, {deployment["name"]: deployment for deployment in file["deployments"]})
    (tmp_path / "prefect.yaml").write_text(yaml.dump(file))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    _, problems = check_deployments(tmp_path / "prefect.yaml")
    said = "\n".join(problems)
    assert re.search(expected, said), said


def test_a_file_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "prefect.yaml").write_text("deployments: [")
    _, (problem,) = check_deployments(tmp_path / "prefect.yaml")
    assert problem.startswith("prefect.yaml: ")


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True
