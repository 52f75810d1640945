"""README's table of settings is the one that `python -m service config --markdown` prints."""

from pathlib import Path

from service.commands.config import markdown

README = Path(__file__).resolve().parent.parent / "README.md"


def test_readme_shows_every_setting_with_its_default_and_reason() -> None:
    assert "\n".join(markdown()) in README.read_text(encoding="utf-8")
