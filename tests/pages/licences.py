"""The licences of all that the image holds, as the packages themselves state them.

`python -m tests.pages.licences` prints docs/licences.md. It reads what is installed, and knows nothing of what a
licence asks for.
"""

import re
import sys
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

LOCK = Path(__file__).resolve().parents[2] / "deploy/locks/service.txt"
ALLOWED = {"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MPL-2.0", "PSF-2.0", "Zlib"}
"""None of them asks anything of who serves models with it. MPL-2.0 asks for the source of its own files if changed."""

SPELT = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "ISC License": "ISC",
    "MIT License": "MIT",
}
"""As packages say it -> as SPDX does."""

HEAD = """# Licences

What the image holds beside Understudy itself (Apache-2.0) and the base image, as the packages themselves say.
`python -m tests.pages.licences > docs/licences.md` writes this page, and a test compares both. Allowed are {allowed}.
Wheels may bring libraries of their own, whose licences lie in them (numpy: OpenBLAS and the GCC runtime).
Our own engine, understudy_native, is built on nanobind (BSD-3-Clause), which brings robin-map (MIT).

| package | version | licence |
|---|---|---|
"""


@dataclass(frozen=True)
class Licensed:
    """A package and its licence, an SPDX expression where it says enough for one."""

    name: str
    version: str
    licence: str

    @property
    def allowed(self) -> bool:
        """Of `A AND B` both must be, of `A OR B` one."""
        both = self.licence.split(" AND ")
        return all(any(one in ALLOWED for one in part.strip("()").split(" OR ")) for part in both)


def stated(name: str) -> str:
    """What a package says of its licence: the expression, else the old field, else a classifier."""
    metadata = distribution(name).metadata
    classifiers = [line for line in metadata.get_all("Classifier") or () if line.startswith("License :: ")]
    classified = [line.rpartition(" :: ")[2] for line in classifiers]
    fields = [line for field in ("License-Expression", "License") for line in metadata.get_all(field) or ()]
    said = str([*fields, *classified, "not stated"][0]).strip()
    return SPELT.get(said, said)


def of_the_image() -> list[Licensed]:
    """Of each package that the lock names."""
    pins = re.findall(r"^(\S+)==(\S+)", LOCK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [Licensed(name, version, stated(name)) for name, version in pins]


def page() -> str:
    rows = (f"| {package.name} | {package.version} | {package.licence} |\n" for package in of_the_image())
    return HEAD.format(allowed=", ".join(sorted(ALLOWED))) + "".join(rows)


if __name__ == "__main__":
    sys.stdout.write(page())
