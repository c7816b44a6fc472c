"""Where curves and metrics are shown besides the dashboard."""

from pydantic import Field

from settings.group import Group


class TrackingSettings(Group):
    """MLflow, a projection of the event log."""

    mlflow: bool = Field(default=True, description="Whether plans are projected to MLflow at all.")
    mlflow_uri: str = Field(
        default="", description="Tracking server or database; empty for sqlite:///{output_dir}/mlflow.db."
    )
    experiment: str = Field(default="can-ids-retrain", min_length=1, description="MLflow experiment.")
