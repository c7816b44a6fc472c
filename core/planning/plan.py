"""What to retrain, in which order, and why: a pure decision over the log's projections and the captures."""

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from core.can.digest import digest_captures
from core.can.registry import find_captures, known_datasets
from core.errors import ArtifactError, CaptureError
from core.events.catalogue import ModelSaved, PlanCreated
from core.planning.phases import EVALUATION, GRAPHS, MODEL_PHASES, PARENT, PHASES, settings_digest
from core.planning.registry_view import RegistryView
from core.planning.shared.files import SharedFiles, model_path, shared_files
from settings.app import Settings
from settings.errors import SettingsError
from settings.layout import Layout


@dataclass(frozen=True)
class PlanStep:
    """One phase of one dataset: run it or leave it, and why."""

    dataset: str
    phase: str
    action: str
    reason: str
    settings_digest: str


@dataclass(frozen=True)
class Plan:
    """A retraining plan.

    Attributes:
        plan_id: Also the name of the plan's event stream.
        steps: In order of execution.
        absent: Built-in datasets that are not on this machine, by name, with the reason.
        settings: The settings it was made with.
        machine: The machine it was made for.
        force: Whether everything is retrained.
        priority: Datasets that go first.
    """

    plan_id: str
    steps: tuple[PlanStep, ...]
    absent: dict[str, str]
    settings: Settings
    machine: dict[str, Any]
    force: bool
    priority: tuple[str, ...] = ()

    @property
    def datasets(self) -> list[str]:
        """Datasets in order."""
        return list(dict.fromkeys(step.dataset for step in self.steps))

    def created(self, previous: Sequence[dict[str, Any]] = ()) -> PlanCreated:
        """The fact that begins the plan's stream; `previous` is where other plans stand."""
        return PlanCreated(
            steps=[asdict(step) for step in self.steps],
            # Tracking may hold a password, and storage may move.
            settings=self.settings.model_dump(mode="json", exclude={"tracking", "storage"}),
            machine=self.machine,
            force=self.force,
            previous=list(previous),
            priority=list(self.priority),
        )


def create_plan(
    settings: Settings,
    view: RegistryView,
    machine: dict[str, Any],
    *,
    datasets: Sequence[str] = (),
    priority: Sequence[str] = (),
    force: bool = False,
) -> Plan:
    """Decide for every dataset and phase whether it runs.

    Args:
        settings: Settings fitted to the machine.
        view: Projection of the log: saved models and known captures.
        machine: Description of the machine.
        datasets: Only these; empty for the user's own and every built-in one found below ``data.data_dir``.
        priority: Datasets to do first.
        force: Retrain whatever the log says.

    Returns:
        The plan; nothing is written.

    Raises:
        SettingsError: An unknown dataset, or none to be found.
    """
    names, absent = choose_datasets(settings, datasets, priority)
    files = shared_files(Layout(settings.output_dir))
    steps = [step for name in names for step in _steps(name, settings, view, force, files)]
    now = datetime.now(UTC)
    plan_id = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    first = tuple(name for name in names if name in priority)
    return Plan(plan_id, tuple(steps), absent, settings, machine, force, first)


def choose_datasets(
    settings: Settings, datasets: Sequence[str], priority: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """Datasets in the order of work, and built-in ones that are absent with the reason; reads no capture.

    Raises:
        SettingsError: An unknown dataset, or none to be found.
    """
    known = known_datasets(settings.data)
    for name in (*datasets, *priority):
        if name not in known:
            raise SettingsError(
                f"unknown dataset {name!r}: known are {', '.join(known)}; describe your own in a settings "
                f"file under data.datasets.{name}"
            )
    absent: dict[str, str] = {}
    chosen = list(dict.fromkeys(datasets))
    if not chosen:
        for name in known:
            if name in settings.data.datasets:
                chosen.append(name)
            elif name != "demo":
                try:
                    find_captures(name, settings.data)
                    chosen.append(name)
                except CaptureError as error:
                    absent[name] = str(error)
        if not chosen:
            raise SettingsError(
                f"no dataset found below {settings.data.data_dir} (setting data.data_dir, flag --data-dir): "
                "put captures there, describe your own under data.datasets, or try --datasets demo"
            )
    return sorted(chosen, key=lambda n: (n not in priority, chosen.index(n))), absent


def _steps(
    dataset: str, settings: Settings, view: RegistryView, force: bool, files: SharedFiles | None
) -> Iterable[PlanStep]:
    """Steps of one dataset: a phase whose parent runs has to run too."""
    reasons: dict[str, str] = {}
    current = _current_digest(dataset, settings, view)
    for phase in MODEL_PHASES:
        parent = PARENT.get(phase)
        inherited = f"its {parent} is retrained" if parent in reasons else ""
        stale = "forced" if force else _staleness(dataset, phase, settings, view, current, files)
        if reason := stale or inherited:
            reasons[phase] = reason
    evaluation = settings_digest(settings, dataset, EVALUATION)
    if reasons or view.evaluated.get(dataset) != evaluation:
        reasons[EVALUATION] = "the models are new" if reasons else "not evaluated, or by other settings"
        reasons[GRAPHS] = "read by the phases that run"
    for phase in PHASES:
        yield PlanStep(
            dataset=dataset,
            phase=phase,
            action="run" if phase in reasons else "skip",
            reason=reasons.get(phase) or f"up to date (captures {current[:8]})",
            settings_digest=settings_digest(settings, dataset, phase),
        )


def _current_digest(dataset: str, settings: Settings, view: RegistryView) -> str:
    """Digest of the captures as they are now; empty where nothing is trained yet or nothing can be read."""
    if not any(name == dataset for name, _ in view.models):
        return ""
    try:
        return digest_captures(find_captures(dataset, settings.data), view.known_hashes(dataset))[0]
    except CaptureError:
        return ""  # the chain will say what is wrong when it looks for its captures


def _staleness(
    dataset: str,
    phase: str,
    settings: Settings,
    view: RegistryView,
    current: str,
    files: SharedFiles | None,
) -> str:
    """Why a saved model is missing or stale by what the log says; empty if it is neither."""
    model = view.models.get((dataset, phase))
    if model is None:
        return "never trained"
    if model.data_digest != current:
        return f"captures changed ({model.data_digest[:8]} -> {current[:8] or 'unreadable'})"
    digest = settings_digest(settings, dataset, phase)
    if model.settings_digest != digest:
        return f"settings changed ({model.settings_digest[:8]} -> {digest[:8]})"
    parent = view.models.get((dataset, PARENT[phase])) if phase in PARENT else None
    if parent and model.parent_sha256 != parent.sha256:
        return f"its {parent.phase} is a newer one ({model.parent_sha256[:8]} -> {parent.sha256[:8]})"
    return model_damage(Layout(settings.output_dir), model, files)


def model_damage(layout: Layout, model: ModelSaved, files: SharedFiles | None = None) -> str:
    """What happened to a model's file since the log recorded it; empty if nothing did.

    Args:
        layout: The output directory.
        model: What the log says.
        files: The storage that it is shared in, and fetched from if it is not here; None if it is not shared.

    Raises:
        StorageError: The shared storage cannot be read.
    """
    try:
        path = model_path(layout, model)
        if files:
            files.fetch_model(model)
    except ArtifactError as error:
        return str(error)
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return f"its file is gone ({path})"
    except OSError as error:
        return f"its file cannot be read ({error})"
    return "" if found == model.sha256 else f"its file is not the one that was saved ({path})"
