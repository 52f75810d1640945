"""The page of settings is the one that `python -m service config --markdown` prints."""

from pathlib import Path

from service.commands.config import page

SETTINGS = Path(__file__).resolve().parents[2] / "docs" / "settings.md"


def test_it_shows_every_setting_with_its_default_and_reason() -> None:
    assert "\n".join(page()) + "\n" == SETTINGS.read_text(encoding="utf-8")
