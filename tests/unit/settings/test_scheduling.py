"""Where chains are carried out: what names a deployment, and that no model is retrained for it."""

import pytest

from core.planning.phases import PHASES, settings_digest
from settings.app import load_settings
from settings.errors import SettingsError


@pytest.mark.parametrize("name", ["", "dataset-chain/any", "dataset-chain/{dataset}", "a b/c-{dataset}-d"])
def test_a_deployment_is_named_with_its_flow(name: str) -> None:
    assert load_settings(scheduling={"chain_deployment": name}).scheduling.chain_deployment == name


@pytest.mark.parametrize("name", ["dataset-chain", "a/b/c", "dataset-chain/{phase}", "{dataset}/any", "/any"])
def test_anything_else_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=r"scheduling\.chain_deployment"):
        load_settings(scheduling={"chain_deployment": name})


def test_no_model_is_stale_because_it_is_trained_elsewhere() -> None:
    here = load_settings()
    there = load_settings(
        scheduling={"chain_deployment": "dataset-chain/any", "patience_s": 1.0, "cuda_context_mib": 1}
    )
    for phase in PHASES:
        assert settings_digest(here, "demo", phase) == settings_digest(there, "demo", phase)
