"""Tasks that publish a finished plan: files, Prefect artifacts, MLflow."""

import re
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from core.analytics.markdown import (
    dashboard_markdown,
    metrics_rows,
    recommendation_markdown,
    results_markdown,
)
from core.analytics.recommendations import device_slug
from core.analytics.results import fold_results
from core.events.catalogue import to_fact
from core.events.log import EventLog
from core.events.resource_facts import ConfigRecommended, RecommendationJudged
from core.planning.analysis import analyze_plans
from core.planning.progress import LOG
from settings.errors import RetrainError
from settings.layout import Layout
from settings.tracking import TrackingSettings
from tasks.mlflow_process import update_in_time


@task(cache_policy=NO_CACHE, retries=1)
def write_projections(output_dir: Path, plan_id: str) -> None:
    """Results, dashboard and recommended settings as files."""
    written, problems = analyze_plans(output_dir, plan_id)
    for path in written:
        get_run_logger().info("wrote %s", path)
    for name, error in problems.items():
        get_run_logger().warning("plan %s is left out: %s", name, error)


@task(cache_policy=NO_CACHE, retries=1)
def publish_artifacts(output_dir: Path, plan_id: str) -> None:
    """Results, dashboard and recommendation as artifacts of the Prefect UI."""
    layout = Layout(output_dir)
    events = EventLog(layout.events).read(plan_id)
    results = fold_results(events)
    create_markdown_artifact(results_markdown(results), key=f"results-{_key(plan_id)}")
    if rows := metrics_rows(results):
        create_table_artifact(rows, key=f"metrics-{_key(plan_id)}", description=f"Metrics of plan {plan_id}")
    picture = layout.plan_file(plan_id, "dashboard.png")
    create_markdown_artifact(dashboard_markdown(picture.read_bytes()), key=f"dashboard-{_key(plan_id)}")
    facts = [to_fact(event) for event in events]
    recommended = [fact for fact in facts if isinstance(fact, ConfigRecommended)]
    judged = [fact for fact in facts if isinstance(fact, RecommendationJudged)]
    if recommended:
        key = f"recommendation-{device_slug(recommended[-1].device_name)}"
        create_markdown_artifact(recommendation_markdown(recommended[-1], judged), key=key)


@task(cache_policy=NO_CACHE)
def update_mlflow(output_dir: Path, plan_id: str, tracking: TrackingSettings) -> int:
    """Bring MLflow up to date; returns the number of events projected."""
    try:
        return update_in_time(output_dir, plan_id, tracking)
    except RetrainError as error:
        LOG.warning("%s", error)
        raise


def _key(plan_id: str) -> str:
    """Artifact keys are lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", plan_id.lower())
