"""Registered models in MLflow: their names, versions, descriptions and aliases are what the log's fold says.

A registered model belongs to one event log, whose mark it carries, so several logs may share a server; it is
found by that mark even after someone renamed it. A version is found by the sha256 of its model file: one
that a server made twice is deleted, one that someone deleted is made again. MLflow counts versions itself and
never gives a number twice, so after such an accident its numbers are higher than the log's, which a tag
tells. A registered model that was deleted as a whole is made anew with the log's numbers.

Everything may be killed at any moment: each call compares all that is there and does what is missing.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion as Registered
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

from core.analytics.versions import (
    DECIDING_MODEL,
    ModelVersion,
    Role,
    VersionKey,
    Versions,
    fold_versions,
    parent_version,
)
from core.events.open import open_log
from settings.layout import Layout
from tasks.mlflow_content import allowed_name
from tasks.mlflow_notes import model_note, version_note, with_own_words
from tasks.mlflow_writer import EXPORTED, PlanWriter

LOG = "can_retrain.log"
NUMBER = "can_retrain.number"
SHA256 = "can_retrain.sha256"
_DATASET, _PHASE = "can_retrain.dataset", "can_retrain.phase"
_ALIASES: tuple[Role, ...] = ("champion", "challenger")
_PAGE = 1000


def register_models(client: MlflowClient, experiment_id: str, layout: Layout) -> None:
    """Bring the registered models of an output directory up to date.

    Args:
        client: Of MLflow, which nobody else tells about this output directory at the same time.
        experiment_id: Where its plans' runs are; those that a version comes from and are missing are made.
        layout: The output directory.

    Raises:
        *STORE_ERRORS: MLflow cannot be reached or refuses.
        EventLogError: Some plan cannot be read: what its versions are cannot be told without it.
    """
    log = open_log(layout)
    streams = {name: log.read(name) for name in log.streams()}
    if versions := fold_versions(streams.values()):

        @cache
        def runs_of(plan_id: str) -> dict[str, Run]:
            return PlanWriter(client, experiment_id, layout, plan_id).complete_runs()

        mark = hashlib.sha256(min(streams).encode()).hexdigest()[:16]
        _Registry(client, mark, runs_of).update(versions)


class _Registry:
    """The registered models of one event log.

    Args:
        client: Of MLflow.
        mark: Of the log.
        runs_of: Gives a plan's runs by key.
    """

    def __init__(self, client: MlflowClient, mark: str, runs_of: Callable[[str], Mapping[str, Run]]) -> None:
        self._client, self._mark, self._runs_of = client, mark, runs_of
        ours = f"tags.`{LOG}` = '{mark}'"
        self._models = {
            (model.tags[_DATASET], model.tags[_PHASE]): model
            for model in _all_pages(client.search_registered_models, ours)
        }
        self._registered: dict[str, list[Registered]] = {}
        for version in _all_pages(client.search_model_versions, ours):
            self._registered.setdefault(version.name, []).append(version)
        self._names: dict[tuple[VersionKey, str], tuple[str, str]] = {}
        """Name and MLflow's number of each version, by key and sha256."""

    def update(self, versions: Versions) -> None:
        """Make, change and delete what differs, parents first."""
        for phase in DECIDING_MODEL:
            for key, line in versions.items():
                if key[1] == phase:
                    self._update_model(self._models.get(key) or self._create(key), key, line, versions)

    def _update_model(
        self,
        model: RegisteredModel,
        key: VersionKey,
        line: Sequence[ModelVersion],
        versions: Versions,
    ) -> None:
        there = self._without_twins(self._registered.get(model.name, []))
        numbers = []
        for version in line:
            parent = parent_version(versions, version)
            origin = self._names.get(((parent.dataset, parent.phase), parent.sha256)) if parent else None
            number = self._update_version(model.name, version, there.get(version.sha256), origin)
            self._names[key, version.sha256] = (model.name, number)
            numbers.append(number)
        wanted = {version.role: number for version, number in zip(line, numbers, strict=True)}
        for alias in _ALIASES:
            if alias not in wanted and alias in model.aliases:
                self._client.delete_registered_model_alias(model.name, alias)
            elif alias in wanted and str(model.aliases.get(alias)) != wanted[alias]:
                self._client.set_registered_model_alias(model.name, alias, wanted[alias])
        note = model_note(model.name, list(zip(numbers, line, strict=True)))
        if (text := with_own_words(note, model.description or "")) != model.description:
            self._client.update_registered_model(model.name, text)

    def _update_version(
        self, name: str, version: ModelVersion, there: Registered | None, origin: tuple[str, str] | None
    ) -> str:
        """Make a version, or bring it up to date; returns the number that MLflow gave it."""
        tags = self._tags(version) | ({"can_retrain.parent": "/".join(origin)} if origin else {})
        note = version_note(version, " version ".join(origin) if origin else "")
        if there is None:
            run = self._runs_of(version.plan_id)[f"{version.plan_id}/{version.dataset}/{version.phase}"]
            made = self._client.create_model_version(
                name,
                source=f"{run.info.artifact_uri}/model",
                run_id=run.info.run_id,
                tags=tags | {EXPORTED: run.data.tags.get(EXPORTED, "")},
                description=with_own_words(note, ""),
                await_creation_for=0,
            )
            return str(made.version)
        number = str(there.version)
        for tag, value in tags.items():
            if there.tags.get(tag) != value:
                self._client.set_model_version_tag(name, number, tag, value)
        for tag in ("can_retrain.role", "can_retrain.parent"):
            if tag in there.tags and tag not in tags:
                self._client.delete_model_version_tag(name, number, tag)
        if (text := with_own_words(note, there.description or "")) != there.description:
            self._client.update_model_version(name, number, text)
        return number

    def _tags(self, version: ModelVersion) -> dict[str, str]:
        known = {
            LOG: self._mark,
            NUMBER: version.number,
            SHA256: version.sha256,
            "can_retrain.plan": version.plan_id,
            "can_retrain.role": version.role,
            "can_retrain.val_mcc": version.score,
            "can_retrain.data_digest": version.data_digest,
            "can_retrain.settings_digest": version.settings_digest,
            "can_retrain.parent_sha256": version.parent_sha256,
            "can_retrain.code_version": version.code_version,
            "can_retrain.code_commit": version.code_commit,
        }
        return {name: str(value) for name, value in known.items() if value not in ("", None)}

    def _create(self, key: VersionKey) -> RegisteredModel:
        """Make a registered model, under a longer name where another log or a person took the short one."""
        tags = {LOG: self._mark, _DATASET: key[0], _PHASE: key[1]}
        short = f"can-ids-{allowed_name(key[0])}-{key[1]}"
        for name in (short, f"{short}-{self._mark}"):
            try:
                return self._client.create_registered_model(name, tags)
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                    raise
                taken = self._client.get_registered_model(name)
                if tags.items() <= taken.tags.items():
                    return taken  # made just now by a server whose answer was lost
                refused = error
        raise refused

    def _without_twins(self, registered: Sequence[Registered]) -> dict[str, Registered]:
        """Versions by sha256; of two with the same, the later one is deleted."""
        first: dict[str, Registered] = {}
        for version in sorted(registered, key=lambda version: int(version.version)):
            if first.setdefault(version.tags[SHA256], version) is not version:
                self._client.delete_model_version(version.name, str(version.version))
        return first


def _all_pages(search: Callable[..., Any], condition: str) -> Iterator[Any]:
    token = None
    while True:
        page = search(condition, max_results=_PAGE, page_token=token)
        yield from page
        if not (token := page.token):
            return
