"""When the scores of recent traffic count as drifted from those of the traffic a model was chosen on."""

from pydantic import Field

from settings.group import Group
from settings.names import Folder


class DriftSettings(Group):
    """Where recent traffic lies, and how far its scores may move."""

    recent_dir: Folder | None = Field(
        default=None,
        description="Folder of recent traffic: captures of any readable format below "
        "`{recent_dir}/{dataset}`. Empty: drift is not looked for.",
    )
    max_psi: float = Field(
        default=0.25,
        gt=0.0,
        description="Population stability index that counts as drift, if chance does not explain it; by the "
        "usual rule of thumb 0.1 is a small change and 0.25 a large one.",
    )
    false_alarm_rate: float = Field(
        default=0.001,
        gt=0.0,
        lt=0.5,
        description="How often a look at traffic that has not drifted may find so large an index by chance.",
    )
    num_bins: int = Field(
        default=10, ge=2, le=50, description="Bins of about equally many validation windows."
    )
    min_windows: int = Field(
        default=200, ge=100, description="Fewer recent (or validation) windows are no evidence of drift."
    )
    max_windows: int = Field(
        default=20_000, ge=100, description="Windows to score at most, those of the newest captures first."
    )
