"""Models and checkpoints in the storage that machines share: each is there before the log names it.

::

    {url}/files/models/{sha256}
    {url}/files/checkpoints-{plan_id}/{dataset},{phase},{model},{stem},{sha256}.pt and .json

A name holds the sha256 of its content (a sidecar's that of its checkpoint), and nothing is used that does not
match it. Checkpoints are deleted as they are in the output directory, and with the end of their phase.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.errors import UNREADABLE, ArtifactError
from core.events.catalogue import (
    CheckpointRefused,
    CheckpointWritten,
    Fact,
    ModelSaved,
    PhaseFinished,
    to_fact,
)
from core.events.event import Event
from core.events.files import read_regular, replace_file
from core.events.open import attempt, is_shared, open_log, open_store, read_blob
from core.events.stores import MODEL_BYTES, SMALL_BYTES, SegmentStore
from core.planning.registry_view import registry_view
from settings.layout import Layout

_MODELS = "models"
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_LOG = logging.getLogger(__name__)


class SharedFiles:
    """The shared models and checkpoints of an output directory.

    Every method raises ``StorageError`` where the storage cannot be read or written.

    Args:
        layout: The output directory; its own files are a cache of them.
        store: Where they are.
    """

    def __init__(self, layout: Layout, store: SegmentStore) -> None:
        self._layout, self._store = layout, store

    @contextmanager
    def sharing(self, plan_id: str, fact: Fact, keep: int) -> Iterator[None]:
        """Share the file that a fact names, let the fact be appended, then delete what nobody needs any more.

        What is deleted was chosen before: had another process taken over the chain since, the fact would have
        been refused, and nothing of the other one's is lost.

        Args:
            plan_id: The plan.
            fact: What is appended within the context.
            keep: How many checkpoints of a model are kept.

        Raises:
            ArtifactError: A model's file is not the one that the fact names.
        """
        stream = _checkpoints_of(plan_id)
        obsolete: list[str] = []
        match fact:
            case ModelSaved():
                self.share_model(fact)
            case CheckpointWritten():
                self._share_checkpoint(stream, fact)
                obsolete = _obsolete(self._names(stream), fact, keep)
            case PhaseFinished():
                ended = f"{fact.dataset},{fact.phase},"
                obsolete = [name for name in self._names(stream) if name.startswith(ended)]
        yield
        for name in obsolete:
            try:
                self._store.delete(stream, name)
            except OSError as error:
                _LOG.warning("%s/%s/%s is left over: %s", self._store.location, stream, name, error)

    def share_model(self, model: ModelSaved) -> None:
        """See that a model of the output directory is in the storage as well.

        Raises:
            ArtifactError: Its file is not the one that was saved.
        """
        if model.sha256 in self._names(_MODELS) and self._is_sound(model):
            return
        path = model_path(self._layout, model)
        content = _read_local(path)
        if _sha256(content) != model.sha256:
            raise ArtifactError(f"{path} is not the model that was saved: it cannot be shared")
        attempt(self._store, lambda: self._store.delete(_MODELS, model.sha256))  # what was damaged there
        self._put(_MODELS, model.sha256, content)

    def fetch_model(self, model: ModelSaved) -> None:
        """Have a model in the output directory, where another one or none may lie under its name.

        Raises:
            ArtifactError: It is not in the storage, or not the one that was saved.
        """
        path = model_path(self._layout, model)
        if not path.exists() or _sha256(_read_local(path)) != model.sha256:
            replace_file(path, self.read_model(model))

    def read_model(self, model: ModelSaved) -> bytes:
        """A model's file in the storage; errors as of `fetch_model`."""
        content = read_blob(self._store, _MODELS, model.sha256, MODEL_BYTES)
        place = f"{self._store.location}/{_MODELS}/{model.sha256}"
        if content is None:
            raise ArtifactError(f"its file is gone ({place})")
        if _sha256(content) != model.sha256:
            raise ArtifactError(f"its file is not the one that was saved ({place})")
        return content

    def fetch_checkpoints(self, events: Iterable[Event], dataset: str, phase: str) -> list[CheckpointRefused]:
        """Have the latest sound checkpoint of each model of a phase in the output directory.

        Args:
            events: The plan's events.
            dataset: The dataset.
            phase: The phase.

        Returns:
            Damaged ones on the way to it.
        """
        written: dict[str, list[tuple[str, CheckpointWritten]]] = {}
        for event in events:
            if event.type == CheckpointWritten.TYPE:
                fact = to_fact(event)
                if isinstance(fact, CheckpointWritten) and (fact.dataset, fact.phase) == (dataset, phase):
                    written.setdefault(fact.model, []).append((_checkpoints_of(event.stream), fact))
        refused = []
        for model, checkpoints in written.items():
            there = set(self._names(checkpoints[-1][0]))
            for stream, fact in reversed(checkpoints):
                try:
                    if self._is_here(fact) or self._fetch_checkpoint(stream, fact, there):
                        break
                except ArtifactError as error:
                    names = {"dataset": dataset, "phase": phase, "model": model}
                    refused.append(CheckpointRefused(**names, path=fact.path, reason=str(error)))
        return refused

    def _share_checkpoint(self, stream: str, fact: CheckpointWritten) -> None:
        path = checkpoint_path(self._layout, fact)
        try:
            content = read_regular(path, MODEL_BYTES)
            sidecar = read_regular(path.with_suffix(".json"), SMALL_BYTES)
        except FileNotFoundError:
            return  # training is ahead: there are later ones
        except OSError as error:
            raise ArtifactError(f"{path}: cannot be read to be shared ({error})") from error
        if _vouches(sidecar) == fact.sha256 == _sha256(content):
            self._put(stream, f"{_blob(fact)}.pt", content)
            self._put(stream, f"{_blob(fact)}.json", sidecar)
        else:
            _LOG.warning("%s is not shared: it is not what was written", path)

    def _fetch_checkpoint(self, stream: str, fact: CheckpointWritten, there: set[str]) -> bool:
        """Whether there is such a checkpoint in the storage: then it is here as well."""
        path, name = checkpoint_path(self._layout, fact), f"{_blob(fact)}.pt"
        if name not in there:
            return False
        content, sidecar = (
            read_blob(self._store, stream, name, MODEL_BYTES),
            read_blob(self._store, stream, f"{_blob(fact)}.json", SMALL_BYTES),
        )
        if content is None or sidecar is None:
            return False
        if not _vouches(sidecar) == fact.sha256 == _sha256(content):
            raise ArtifactError(f"{self._store.location}/{stream}/{name} is not what was written")
        replace_file(path, content)
        replace_file(path.with_suffix(".json"), sidecar)
        return True

    def _is_here(self, fact: CheckpointWritten) -> bool:
        path = checkpoint_path(self._layout, fact)
        try:
            content = read_regular(path, MODEL_BYTES)
            sidecar = read_regular(path.with_suffix(".json"), SMALL_BYTES)
        except OSError:
            return False
        return _vouches(sidecar) == fact.sha256 == _sha256(content)

    def _is_sound(self, model: ModelSaved) -> bool:
        try:
            self.read_model(model)
        except ArtifactError:
            return False
        return True

    def _names(self, stream: str) -> list[str]:
        return attempt(self._store, lambda: self._store.names(stream))

    def _put(self, stream: str, name: str, content: bytes) -> None:
        attempt(self._store, lambda: self._store.put_if_absent(stream, name, content))


def shared_files(layout: Layout) -> SharedFiles | None:
    """The shared files of an output directory; None where it keeps its own.

    Raises:
        StorageError: The shared storage cannot be reached.
    """
    return SharedFiles(layout, open_store(layout, "files")) if is_shared(layout) else None


def fetch_models(layout: Layout, dataset: str, phases: Iterable[str]) -> None:
    """Have a dataset's last saved models in the output directory, where they may be on other machines.

    Args:
        layout: The output directory.
        dataset: The dataset.
        phases: Whose models.

    Raises:
        EventLogError: The shared storage cannot be read.
        ArtifactError: A model is gone or is not the one that was saved.
    """
    if files := shared_files(layout):
        models = registry_view(open_log(layout)).models
        for phase in phases:
            if model := models.get((dataset, phase)):
                try:
                    files.fetch_model(model)
                except ArtifactError as error:
                    raise ArtifactError(f"the {phase} model of {dataset} cannot be used: {error}") from error


def model_path(layout: Layout, model: ModelSaved) -> Path:
    """Where a saved model lies in an output directory.

    Raises:
        ArtifactError: The log names no file of that folder.
    """
    return layout.saved_models / _plain(Path(model.path).name)


def checkpoint_path(layout: Layout, fact: CheckpointWritten) -> Path:
    """Where a checkpoint lies in an output directory; errors as of `model_path`."""
    parts = map(_plain, (fact.dataset, fact.phase, fact.model, Path(fact.path).name))
    return layout.checkpoints.joinpath(*parts)


def _plain(name: str) -> str:
    """A name from the log that cannot leave its folder."""
    if not _PLAIN.fullmatch(name):
        raise ArtifactError(f"{name!r} is no name of a file")
    return name


def _checkpoints_of(plan_id: str) -> str:
    return f"checkpoints-{_plain(plan_id)}"


def _blob(fact: CheckpointWritten) -> str:
    """Name of a checkpoint's blobs, without their endings; it sorts as the checkpoints of a model follow."""
    parts = (fact.dataset, fact.phase, fact.model, Path(fact.path).stem, fact.sha256)
    return ",".join(map(_plain, parts))


def _obsolete(names: Iterable[str], written: CheckpointWritten, keep: int) -> list[str]:
    """Blobs of a model's checkpoints but the latest; those that come after this one were gone back from."""
    model = _blob(written).rsplit(",", 2)[0] + ","
    found: dict[str, list[str]] = {}
    for name in names:
        if name.startswith(model):
            found.setdefault(name.rpartition(".")[0], []).append(name)
    kept = sorted(blob for blob in found if blob <= _blob(written))[-keep:]
    return [name for blob in found if blob not in kept for name in found[blob]]


def _vouches(sidecar: bytes) -> str:
    """The sha256 that a sidecar vouches for; empty if it cannot be read."""
    try:
        entry: Any = json.loads(sidecar)
        return str(entry["sha256"])
    except UNREADABLE:
        return ""


def _read_local(path: Path) -> bytes:
    try:
        return read_regular(path, MODEL_BYTES)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error})") from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
