"""README's tables say what the code says."""

import re
from pathlib import Path

import pytest

from service.settings import PREFIX, Settings

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def row(name: str) -> str:
    """How README shows this setting."""
    field = Settings.model_fields[name]
    default = "" if field.default is None else f"`{field.default}`"
    flag, variable = "--" + name.replace("_", "-"), PREFIX + name.upper()
    return f"| `{flag}` | `{variable}` | {default} | {field.description} |"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_readme_shows_the_setting_with_its_default_and_reason(name: str) -> None:
    assert row(name) in README.splitlines()


def test_readme_shows_no_setting_that_is_gone() -> None:
    shown = re.findall(rf"^\| `--[a-z-]+` \| `{PREFIX}([A-Z_]+)`", README, flags=re.MULTILINE)
    assert [name.lower() for name in shown] == list(Settings.model_fields)
