"""The exception tree below ``settings.errors.RetrainError``.

::

    RetrainError
    |-- SettingsError           settings: wrong field, file or flag
    |-- CaptureError            core.can: a capture cannot be used as it is
    |   `-- DatasetNotFoundError    a dataset's folder or files are missing
    |-- GraphStoreError         core.can: a graph store is damaged or of another version
    |-- EventLogError           core.events: the log cannot be read or written
    |   |-- ConcurrencyError        another writer appended first
    |   |-- DamagedLogError         a gap or an unreadable segment
    |   |-- UnknownEventError       an event type or version newer than this software
    |   `-- StorageError            shared storage cannot be used, or is not the right one
    |-- TrainingError           core.training: training cannot go on (non-finite loss, one class ...)
    |-- ArtifactError           a model or checkpoint file is damaged or does not fit
    |-- TrainingProcessError    core.resources: the training process failed; carries the failure's kind
    |-- LeaseHeldError          core.events: another process holds a lease, and lives
    |   `-- ChainHeldError          core.planning: another process works on the dataset
    `-- LeaseLostError          core.events: another process took a lease over
        `-- ChainLostError          core.planning: another process works on the dataset by now
"""

from settings.errors import RetrainError

UNREADABLE = (OSError, ValueError, KeyError, TypeError, RecursionError)
"""What comes of reading a JSON file that is damaged, foreign or hostile."""


class CaptureError(RetrainError):
    """A capture file cannot be used as it is; the message names the file, the line and the reason."""


class DatasetNotFoundError(CaptureError):
    """A dataset's folder or files are missing; the message names the path and the setting."""


class GraphStoreError(RetrainError):
    """A graph store is missing parts, damaged or written by an unknown version."""


class EventLogError(RetrainError):
    """The event log cannot be read or written."""


class ConcurrencyError(EventLogError):
    """Another writer appended to the stream first (optimistic concurrency)."""


class DamagedLogError(EventLogError):
    """A segment of the log is missing, unreadable or out of order; the message names it."""


class UnknownEventError(EventLogError):
    """An event's type or version is not known to this version of the software."""


class StorageError(EventLogError):
    """The storage that an output directory is bound to cannot be read or written, or is another one."""


class TrainingError(RetrainError):
    """Training cannot go on: no data of a needed class, a loss that is not finite, a missing parent."""


class ArtifactError(RetrainError):
    """A saved model or checkpoint is missing, damaged (sha256) or does not fit the settings."""


class TrainingProcessError(RetrainError):
    """The training process failed.

    Args:
        kind: Failure class: ``cuda_oom``, ``fragmentation``, ``host_oom``, ``cuda_error``, ``killed``,
            ``hang``, ``data_error`` or ``bug``.
        message: What happened and what to do.
        report: File with its stacks and last signs of life; None where there is none.
    """

    def __init__(self, kind: str, message: str, report: str | None = None) -> None:
        super().__init__(message)
        self.kind, self.report = kind, report

    def __reduce__(self) -> tuple[type["TrainingProcessError"], tuple[str, str, str | None]]:
        """Keep kind and report across process borders."""
        return (TrainingProcessError, (self.kind, str(self), self.report))


class LeaseHeldError(RetrainError):
    """Another process holds a lease, and lives.

    Args:
        holder: Who: ``host:pid:token``.
        purpose: What it holds it for.
        message: What to do; empty for the bare fact.
    """

    def __init__(self, holder: str, purpose: str, message: str = "") -> None:
        super().__init__(message or f"{holder} holds it for {purpose}")
        self.holder, self.purpose = holder, purpose

    def __reduce__(self) -> tuple[type["LeaseHeldError"], tuple[str, str, str]]:
        """Keep holder and purpose across process borders."""
        return (type(self), (self.holder, self.purpose, str(self)))


class LeaseLostError(RetrainError):
    """Another process took a lease over, or it could not be renewed."""


class ChainHeldError(LeaseHeldError):
    """Another process works on the dataset; the message names it and says what to do."""


class ChainLostError(LeaseLostError):
    """Another process took a dataset's chain over, or may have: nothing more is written here."""
