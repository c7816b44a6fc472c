"""The reference pages say what the code says."""

from dataclasses import fields

import pytest

from core.events.catalogue import CATALOGUE
from core.events.upcasters import UPCASTERS
from docs.generate.events_page import events_page
from docs.generate.outputs_page import outputs_page
from docs.generate.pages import FOLDER, reference_pages
from docs.generate.settings_page import settings_page
from settings.app import Settings
from settings.layout import Layout
from settings.tree import leaves


@pytest.mark.slow
def test_committed_pages_are_those_that_the_code_gives() -> None:
    stale = [name for name, text in reference_pages().items() if (FOLDER / name).read_text() != text]
    assert not stale, f"run `make docs`: {stale}"


def test_every_setting_is_listed_with_its_variable() -> None:
    page = settings_page()
    for leaf in leaves(Settings()):
        assert f'<a id="{leaf.name}"></a>' in page
        assert f"`CAN_RETRAIN__{leaf.name.upper().replace('.', '__')}`" in page


def test_a_default_that_the_preset_decides_is_told_for_both_presets() -> None:
    row = next(line for line in settings_page().splitlines() if 'id="models.teacher.vgae.latent"' in line)
    assert "`16` (small), `64` (published)" in row


def test_every_event_is_listed_with_its_fields_and_every_step_from_earlier_versions() -> None:
    page = events_page()
    sections = dict(part.split("\n", 1) for part in page.split("\n### ")[1:])
    assert list(sections) == list(CATALOGUE)
    for name, cls in CATALOGUE.items():
        assert all(f"| `{field.name}` |" in sections[name] for field in fields(cls))
        steps = [line for line in sections[name].splitlines() if line.startswith("- version")]
        assert len(steps) == sum(kind == name for kind, _ in UPCASTERS)


def test_every_place_of_the_layout_is_listed() -> None:
    page = outputs_page()
    root = Layout(FOLDER)
    for name, member in vars(Layout).items():
        if isinstance(member, property):
            assert f"| `{getattr(root, name).relative_to(FOLDER)}/` |" in page


def test_every_command_is_listed() -> None:
    page = (FOLDER / "commands.md").read_text()
    for module in ("retrain", "status", "analyze", "detect", "verify", "config"):
        assert f"usage: python -m flows.{module}" in page
    assert "usage: python -m deployments.apply" in page
