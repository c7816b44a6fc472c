"""The captures a plan goes by: hashed before its graphs are built, and the same whenever it reads them."""

from collections.abc import Sequence
from typing import Any

from core.can.digest import digest_captures
from core.can.registry import find_captures
from core.errors import CaptureError
from core.events.catalogue import CapturesDigested, GraphsBuilt
from core.events.event import Event
from core.planning.registry_view import REGISTRY_VIEW, RegistryView
from settings.app import Settings

_MOST_NAMED = 3


def captures_digested(dataset: str, settings: Settings, view: RegistryView) -> CapturesDigested:
    """Hash a dataset's captures, reusing what the log knows of unchanged files.

    Raises:
        DatasetNotFoundError: The dataset's folder or captures are missing.
    """
    digest, rows = digest_captures(find_captures(dataset, settings.data), view.known_hashes(dataset))
    return CapturesDigested(dataset=dataset, data_digest=digest, captures=rows)


def captures_of_graphs(events: Sequence[Event]) -> dict[str, CapturesDigested]:
    """What the graphs of a plan were built from, by dataset; those without graphs are absent."""
    digested = REGISTRY_VIEW.fold(events).captures
    built = [event.payload["dataset"] for event in events if event.type == GraphsBuilt.TYPE]
    return {dataset: digested[dataset] for dataset in built}


def require_same_captures(before: CapturesDigested, now: CapturesDigested) -> None:
    """Refuse captures of other bytes than a plan's graphs were built from, wherever they lie.

    Raises:
        CaptureError: Captures are missing, added or changed; the message names the first of them.
    """
    if before.data_digest == now.data_digest:
        return
    old, new = _contents(before), _contents(now)
    differences = [
        f"{path} {'is missing' if key not in new else 'has other bytes'}"
        for key, (path, sha256) in old.items()
        if new.get(key, ("", ""))[1] != sha256
    ]
    differences += [f"{path} was not there" for key, (path, _) in new.items() if key not in old]
    shown = "; ".join(differences[:_MOST_NAMED])
    more = f" and {len(differences) - _MOST_NAMED} more" if len(differences) > _MOST_NAMED else ""
    raise CaptureError(
        f"{now.dataset}: these are not the captures that the plan's graphs were built from: {shown}{more}; "
        "bring them back (--resume PLAN_ID --data-dir DIR says where they are), or make a new plan (without "
        "--resume)"
    )


def _contents(digested: CapturesDigested) -> dict[tuple[Any, ...], tuple[str, str]]:
    """Path and sha256 of each capture by its role, its folder, its name and its turn among namesakes."""
    contents: dict[tuple[Any, ...], tuple[str, str]] = {}
    for row in digested.captures:
        name = (row["role"], row["folder"], row["path"].rsplit("/", 1)[-1])
        turn = sum(key[:3] == name for key in contents)
        contents[*name, turn] = (row["path"], row["sha256"])
    return contents
