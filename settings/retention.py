"""What maintenance deletes, and how much disk is left free."""

from pydantic import Field

from settings.group import Group


class RetentionSettings(Group):
    """How long what is no longer needed is kept, in days since it was last used; 0 keeps it for ever.

    The event log, models, and whatever a plan that is not over may still need are never deleted.
    """

    checkpoint_days: float = Field(
        default=7.0, ge=0.0, description="Checkpoints of datasets that their plan is done with."
    )
    graphs_days: float = Field(
        default=30.0, ge=0.0, description="Graph stores; a plan that needs one again builds it again."
    )
    plan_days: float = Field(
        default=180.0,
        ge=0.0,
        description="Dashboards and results of a plan; `python -m flows.analyze` writes them again.",
    )
    log_days: float = Field(default=90.0, ge=0.0, description="Log files and reports of failures.")
    telemetry_days: float = Field(
        default=365.0,
        ge=0.0,
        description="Resource samples of a plan; without them its dashboard has no charts of resources.",
    )
    max_disk_gib: float = Field(
        default=0.0,
        ge=0.0,
        description="Most that the output directory may take, GiB: beyond it maintenance deletes, oldest and "
        "cheapest to make again first, also what is younger than the days above. 0 is no limit.",
    )
    min_free_gib: float = Field(
        default=1.0,
        ge=0.0,
        description="No plan begins or is taken up where less of the disk is free, GiB. 0 begins anyway.",
    )
