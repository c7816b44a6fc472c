"""Whether the disk has room for a plan."""

import shutil
from pathlib import Path

from core.planning.upkeep.retention import shortage
from settings.app import Settings
from settings.errors import RetrainError
from settings.retention import RetentionSettings


def disk_shortage(output_dir: Path, policy: RetentionSettings) -> str:
    """Why no plan may begin in an output directory for lack of room; empty if one may.

    Args:
        output_dir: It need not be there.
        policy: What the settings say.
    """
    folder = output_dir.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shortage(shutil.disk_usage(existing).free, output_dir, policy)


def require_room(settings: Settings) -> None:
    """Refuse to begin a plan where the disk is nearly full.

    Raises:
        RetrainError: Less than ``retention.min_free_gib`` is free; it says what to do.
    """
    if problem := disk_shortage(settings.output_dir, settings.retention):
        raise RetrainError(problem)
