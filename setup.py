"""What pyproject.toml cannot say: the extra `native` is the folder native/ beside this file, wherever that is."""

from pathlib import Path
from typing import Any

from setuptools import Distribution, setup

NATIVE = Path(__file__).resolve().parent / "native"


class WithNative(Distribution):
    """Everything else stands in pyproject.toml."""

    def parse_config_files(self, *arguments: Any, **options: Any) -> None:
        super().parse_config_files(*arguments, **options)
        extras = {**self.extras_require, "native": [f"understudy-native @ {NATIVE.as_uri()}"]}
        self.extras_require = self.metadata.extras_require = extras


setup(distclass=WithNative)
