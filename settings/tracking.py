"""Where curves and metrics are shown besides the dashboard."""

from pydantic import Field, SecretStr

from settings.group import Group


class TrackingSettings(Group):
    """MLflow, a projection of the event log."""

    mlflow: bool = Field(default=True, description="Whether plans are projected to MLflow at all.")
    mlflow_uri: SecretStr = Field(
        default=SecretStr(""),
        description="Tracking server or database, with its password if it has one; empty for "
        "sqlite:///{output_dir}/mlflow.db. It is shown nowhere.",
    )
    mlflow_every_s: float = Field(
        default=15.0,
        ge=0,
        description="Seconds between updates of MLflow while a plan runs; 0 updates it at the end only.",
    )
    mlflow_limit_s: float = Field(
        default=120.0,
        gt=0,
        description="Most seconds that the end of a plan waits for MLflow; the rest is caught up later.",
    )
    dashboards_url: str = Field(
        default="",
        pattern=r"^(https?://\S+)?$",
        description="Address under which the output directory is served to browsers, such as "
        "http://gpu-1:8000/; artifacts of the Prefect UI link to dashboards there. Empty: they link to the "
        "file, which a browser opens only on the machine itself.",
    )
    experiment: str = Field(default="can-ids-retrain", min_length=1, description="MLflow experiment.")
