"""How captures become graphs, and how graphs are split into training and validation."""

from typing import Self

from pydantic import Field, model_validator

from settings.group import Group


class GraphSettings(Group):
    """Windows, scaling and splits."""

    window: int = Field(default=100, ge=2, le=65_536, description="Frames in a window (one graph).")
    stride: int = Field(default=0, ge=0, description="Frames between window starts; 0 means `window`.")
    val_fraction: float = Field(default=0.2, gt=0.0, lt=0.9, description="Share of windows for validation.")
    block_windows: int = Field(
        default=50, ge=1, description="Windows in a contiguous block; a block is never split over both sides."
    )
    embargo_windows: int = Field(
        default=1, ge=0, description="Windows left out between a training and a validation block."
    )
    clip: float = Field(default=10.0, gt=0.0, description="Scaled features are clipped to [-clip, clip].")

    @property
    def stride_frames(self) -> int:
        """Frames between window starts."""
        return self.stride or self.window

    @model_validator(mode="after")
    def _embargo_covers_overlap(self) -> Self:
        overlap = -(-(self.window - self.stride_frames) // self.stride_frames)
        if self.embargo_windows < overlap:
            raise ValueError(
                f"embargo_windows={self.embargo_windows} lets validation windows share frames with training "
                f"ones: windows of {self.window} every {self.stride_frames} frames need at least {overlap}"
            )
        return self
