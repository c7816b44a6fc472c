"""Tasks that publish a finished plan: files, Prefect artifacts, MLflow.

Artifacts have the same keys for every plan, so that the UI shows their history: ``results``,
``metrics-{dataset}``, ``dashboard``, ``dashboard-link``, ``recommendation-{device}`` and
``recommended-settings-{device}``; each says in its description which plan it is of.
"""

from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from core.analytics.advice.reading import in_words
from core.analytics.markdown import (
    dashboard_markdown,
    metrics_rows,
    plain,
    recommendation_markdown,
    results_markdown,
)
from core.analytics.metrics import format_number
from core.analytics.results import RetrainingResults, fold_results
from core.events.catalogue import to_fact
from core.events.event import Event
from core.events.open import open_log
from core.events.resource_facts import ConfigRecommended, RecommendationJudged
from core.planning.analysis import analyze_plans
from core.planning.live.progress import LOG
from settings.errors import RetrainError
from settings.layout import Layout
from settings.tracking import TrackingSettings
from tasks.logs import run_identified
from tasks.mlflow_process import update_in_time
from tasks.naming import artifact_key

_MOST_PICTURE_BYTES = 2 * 2**20
"""A larger picture would make the UI slow: its page is linked to instead."""


@task(cache_policy=NO_CACHE, retries=1, task_run_name="write_projections-{plan_id}")
def write_projections(output_dir: Path, plan_id: str) -> None:
    """Results, dashboard and recommended settings as files."""
    with run_identified():
        written, problems = analyze_plans(output_dir, plan_id)
    for path in written:
        get_run_logger().info("wrote %s", path)
    for name, error in problems.items():
        get_run_logger().warning("plan %s is left out: %s", name, error)


@task(cache_policy=NO_CACHE, retries=1, task_run_name="publish_artifacts-{plan_id}")
def publish_artifacts(output_dir: Path, plan_id: str, dashboards_url: str) -> None:
    """Results, metrics, dashboard and recommendation as artifacts of the Prefect UI."""
    layout = Layout(output_dir)
    events = open_log(layout).read(plan_id)
    results = fold_results(events)
    device = results.machine.get("device_name", "an unknown device")
    of_plan = plain(f"Plan {plan_id}, {results.status}, on {device}")
    create_markdown_artifact(results_markdown(results), key="results", description=of_plan)
    _publish_metrics(results, of_plan)
    _publish_dashboard(layout, plan_id, dashboards_url, of_plan)
    _publish_recommendation(events, plan_id)


@task(cache_policy=NO_CACHE, task_run_name="update_mlflow-{plan_id}")
def update_mlflow(output_dir: Path, plan_id: str, tracking: TrackingSettings) -> int:
    """Bring MLflow up to date; returns the number of events projected."""
    with run_identified():
        try:
            return update_in_time(output_dir, plan_id, tracking)
        except RetrainError as error:
            LOG.warning("%s", error)
            raise


def dashboard_address(page: Path, dashboards_url: str) -> str:
    """Where a browser finds a plan's page.

    Args:
        page: The page in the output directory.
        dashboards_url: Setting ``tracking.dashboards_url``; empty for the file itself.
    """
    if not dashboards_url:
        return page.resolve().as_uri()
    return f"{dashboards_url.rstrip('/')}/{quote(page.name)}"


def _publish_metrics(results: RetrainingResults, of_plan: str) -> None:
    for dataset, rows in groupby(metrics_rows(results), lambda row: row["dataset"]):
        create_table_artifact(
            [{name: cell for name, cell in row.items() if name != "dataset"} for row in rows],
            key=artifact_key("metrics", dataset),
            description=f"Every model on every test folder of {plain(dataset)}. {of_plan}",
        )


def _publish_dashboard(layout: Layout, plan_id: str, dashboards_url: str, of_plan: str) -> None:
    page = layout.plan_file(plan_id, "dashboard.html")
    address = dashboard_address(page, dashboards_url)
    # Browsers open no files from a page of a server: that address is to be copied.
    where = f"[Open the dashboard]({address})" if dashboards_url else f"The dashboard: `{address}`"
    picture = layout.plan_file(plan_id, "dashboard.png").read_bytes()
    fits = len(picture) <= _MOST_PICTURE_BYTES
    shown = dashboard_markdown(picture) if fits else "Its picture is too large to be shown here.\n"
    create_markdown_artifact(f"{where}\n\n{shown}", key="dashboard", description=of_plan)
    create_link_artifact(address, link_text=plain(page.name), key="dashboard-link", description=of_plan)


def _publish_recommendation(events: list[Event], plan_id: str) -> None:
    facts = [to_fact(event) for event in events]
    recommended = [fact for fact in facts if isinstance(fact, ConfigRecommended)]
    if not recommended:
        return
    last = recommended[-1]
    judged = [fact for fact in facts if isinstance(fact, RecommendationJudged)]
    changes = ", ".join(f"{item['setting']} {item['value']}" for item in _changes(last))
    told = plain(f"{changes or 'No changes'}. For {last.device_name}, after plan {plan_id}")
    create_markdown_artifact(
        recommendation_markdown(last, judged),
        key=artifact_key("recommendation", last.device_name),
        description=told,
    )
    if rows := _advice_rows(last):
        create_table_artifact(
            rows, key=artifact_key("recommended-settings", last.device_name), description=told
        )


def _advice_rows(fact: ConfigRecommended) -> list[dict[str, str]]:
    return [
        {
            "setting": item["setting"],
            "now": in_words(item["setting"], item["before"]),
            "recommended": in_words(item["setting"], item["value"]),
            "phase": item["phase"] or "all",
            "expected": ""
            if item["expected"] is None
            else f"{item['metric']} {format_number(item['current'])} → {format_number(item['expected'])}",
            "confidence": f"{item['confidence']:.0%}",
            "based on": item["rests_on"],
        }
        for item in fact.advice
    ]


def _changes(fact: ConfigRecommended) -> list[dict[str, Any]]:
    return [item for item in fact.advice if item["value"] != item["before"]]
