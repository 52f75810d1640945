"""Who may import whom, and what no file may look like: the house's rules as data, read over the syntax tree.

Each check is also broken once on purpose, in a source that exists only here, to see it caught.
"""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.rules.syntax import Source, imported, sources, tree
from tests.running import ROOT

WORKSHOP = ("torch", "transformers", "onnx", "onnxscript", "datasets", "accelerate", "export")
SHOP = ("fastapi", "uvicorn", "starlette", "service")
VAGUE = ("utils", "util", "helpers", "helper", "common", "misc", "base", "core")


@dataclass(frozen=True)
class Rule:
    """What the files under `where` may import. The standard library always passes `only`."""

    name: str
    where: str
    banned: tuple[str, ...] = ()
    spared: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    exempt: tuple[str, ...] = ()

    def permits(self, module: str) -> bool:
        if under(module, self.spared):
            return True
        if under(module, self.banned):
            return False
        return self.only is None or module.partition(".")[0] in sys.stdlib_module_names or under(module, self.only)


def declared(*extras: str) -> tuple[str, ...]:
    """The import names of the base dependencies and of these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
    names = (line.partition(">")[0].replace("-", "_") for line in lines)
    return tuple("sklearn" if name == "scikit_learn" else name for name in names)


RULES = (
    Rule("the service knows no workshop", "service/", banned=WORKSHOP),
    Rule(
        "the service imports what it declares",
        "service/",
        # pydantic's own other half, of one version with it; and the extras, each of which one module may know
        only=(
            *declared(),
            "pydantic_core",
            "opentelemetry",
            "matplotlib",
            "pyarrow",
            "ray",
            "understudy_native",
            "service",
        ),
    ),
    Rule(
        "plots are one module's business", "service/", banned=("matplotlib",), exempt=("service/bench/pair/plots.py",)
    ),
    Rule(
        "Parquet is two modules' business",
        "service/",
        banned=("pyarrow",),
        exempt=("service/offline/bulk/parquet.py", "service/offline/bulk/arrow_parts.py"),
    ),
    Rule("the cluster is one module's business", "service/", banned=("ray",), exempt=("service/cluster.py",)),
    Rule(
        "files know no requests",
        "service/offline/",
        banned=("fastapi", "starlette", "service.api", "service.routes", "service.wire", "service.commands"),
    ),
    Rule(
        "traces are one module's business",
        "service/",
        banned=("opentelemetry",),
        exempt=("service/telemetry/tracing.py",),
    ),
    Rule(
        "the native engine is one module's business",
        "service/",
        banned=("understudy_native",),
        exempt=("service/bundle/native.py",),
    ),
    Rule(
        "the wire knows no models",
        "service/wire/",
        banned=("service.bundle", "service.batching", "service.predictors", "service.catalogue", "service.routes"),
    ),
    Rule(
        "the border stands alone",
        "service/bundle/",
        only=("numpy", "tokenizers", "onnxruntime", "understudy_native", "pydantic", "service.bundle"),
    ),
    Rule("the batcher needs the standard library alone", "service/batching/", only=("service.batching",)),
    Rule(
        "student and teacher know no requests",
        "service/oversight/",
        banned=("fastapi", "starlette", "service.api", "service.routes", "service.wire"),
    ),
    Rule("a route does not run the engine itself", "service/routes/", banned=("onnxruntime",)),
    Rule(
        "a route does not know another",
        "service/routes/",
        banned=("service.routes",),
        exempt=("service/routes/__init__.py",),  # the table of contents
    ),
    Rule("the cluster knows no models", "service/cluster.py", only=("ray",)),
    Rule(
        "the workshop sees only the border",
        "export/",
        banned=SHOP,
        spared=("service.bundle", "service.cluster", "service.release"),
    ),
    Rule(
        "the workshop imports what it declares",
        "export/",
        only=(*declared("export", "report"), "service", "export"),
    ),
    Rule("an image is verified before anything is installed", "deploy/", only=("image",)),
    Rule("signals are arrays", "export/objectives/signals.py", only=("torch", "numpy")),
    Rule(
        "objectives are torch and nothing else",
        "export/objectives/outputs.py",
        only=("torch", "export.objectives.signals", "export.objectives.loss", "export.texts.unlabelled"),
    ),
    Rule("a loss is torch and nothing else", "export/objectives/loss.py", only=("torch",)),
    Rule(
        "students are torch and nothing else",
        "export/networks/students.py",
        only=("torch", "export.objectives.signals"),
    ),
)


def under(module: str, roots: tuple[str, ...]) -> bool:
    return any(module == root or module.startswith(f"{root}.") for root in roots)


def forbidden_imports(rule: Rule, source: Source) -> list[str]:
    if not source.path.startswith(rule.where) or source.path in rule.exempt:
        return []
    return [f"{source.path}:{line}: {name}" for line, name in imported(source) if not rule.permits(name)]


def uses_of_held_out(source: Source) -> list[str]:
    """Only evaluation may open a test split; the definition itself is no use."""
    if source.path == "export/measuring/evaluation.py" or not source.path.startswith(("export/", "service/")):
        return []
    found = []
    for node in ast.walk(tree(source)):
        match node:
            case ast.Name(id="held_out") | ast.Attribute(attr="held_out") | ast.alias(name="held_out"):
                found.append(f"{source.path}:{node.lineno}: held_out")
    return found


def functions(source: Source) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def untyped_returns(source: Source) -> list[str]:
    return [f"{source.path}:{f.lineno}: {f.name}" for f in functions(source) if f.returns is None]


def long_functions(source: Source) -> list[str]:
    lengths = ((f, (f.end_lineno or f.lineno) - f.lineno + 1) for f in functions(source))
    return [f"{source.path}:{f.lineno}: {f.name} has {length} lines" for f, length in lengths if length > 40]


def too_long(source: Source) -> list[str]:
    lines = len(source.text.splitlines())
    return [f"{source.path}: {lines} lines"] if lines > 400 else []


def vaguely_named(source: Source) -> list[str]:
    parts = Path(source.path).with_suffix("").parts
    return [f"{source.path}: {part}" for part in parts if part in VAGUE]


def code_among_data(source: Source) -> list[str]:
    return [source.path] if source.path.startswith("models/") else []


Check = Callable[[Source], list[str]]
CHECKS: dict[str, Check] = {rule.name: partial(forbidden_imports, rule) for rule in RULES} | {
    "only evaluation opens the test split": uses_of_held_out,
    "every function says what it returns": untyped_returns,
    "no function is longer than 40 lines": long_functions,
    "no file is longer than 400 lines": too_long,
    "every module's name says what it holds": vaguely_named,
    "models holds data, never code": code_among_data,
}

# One way to break each check, or several where it can be evaded in several ways.
BROKEN: tuple[tuple[str, str, str], ...] = (
    ("the service knows no workshop", "service/app.py", "import torch.nn"),
    (
        "the service knows no workshop",
        "service/app.py",
        "def f() -> None:\n    from export import recipe",
    ),
    (
        "the service knows no workshop",
        "service/a/b.py",
        "import importlib\nimportlib.import_module('onnx')",
    ),
    ("the service knows no workshop", "service/app.py", "__import__('transformers')"),
    ("the service imports what it declares", "service/app.py", "import requests"),
    ("traces are one module's business", "service/app.py", "from opentelemetry import trace"),
    ("plots are one module's business", "service/bench/pair/page.py", "import matplotlib.pyplot"),
    ("Parquet is two modules' business", "service/offline/reading.py", "import pyarrow.parquet as pq"),
    ("the cluster is one module's business", "service/offline/bulk/crew.py", "import ray"),
    ("the cluster knows no models", "service/cluster.py", "from service.bundle.store import find_bundles"),
    (
        "the workshop sees only the border",
        "export/transfer/labelling.py",
        "from service.offline.bulk.cluster import ray_engine",
    ),
    ("files know no requests", "service/offline/bulk/labour.py", "from service.api.exchange import Desk"),
    ("the native engine is one module's business", "service/bundle/runtime.py", "import understudy_native"),
    ("the border stands alone", "service/bundle/store.py", "from service import errors"),
    ("the border stands alone", "service/bundle/store.py", "from ..settings import Settings"),
    ("the border stands alone", "service/bundle/store.py", "import fastapi"),
    ("the wire knows no models", "service/wire/quick.py", "from service.predictors import Predictor"),
    ("the batcher needs the standard library alone", "service/batching/jobs.py", "import numpy"),
    ("the batcher needs the standard library alone", "service/batching/jobs.py", "import service.errors"),
    ("student and teacher know no requests", "service/oversight/cascade.py", "from service.api.exchange import Desk"),
    ("a route does not run the engine itself", "service/routes/hub.py", "import onnxruntime"),
    ("a route does not know another", "service/routes/hub.py", "from service.routes import classify"),
    ("a route does not know another", "service/routes/hub.py", "from . import classify"),
    (
        "the workshop sees only the border",
        "export/publishing/publish.py",
        "from service.settings import Settings",
    ),
    ("the workshop sees only the border", "export/publishing/publish.py", "import service"),
    ("the workshop sees only the border", "export/methods/tang2019.py", "import uvicorn"),
    ("the workshop imports what it declares", "export/texts/datasets.py", "import spacy"),
    (
        "objectives are torch and nothing else",
        "export/objectives/outputs.py",
        "from export.networks.students import Student",
    ),
    ("objectives are torch and nothing else", "export/objectives/outputs.py", "import numpy"),
    ("a loss is torch and nothing else", "export/objectives/loss.py", "from export.objectives.signals import Output"),
    ("students are torch and nothing else", "export/networks/students.py", "from export import recipe"),
    ("an image is verified before anything is installed", "deploy/image/checks.py", "import httpx2"),
    ("signals are arrays", "export/objectives/signals.py", "from export.teachers.hugging_face import Teacher"),
    (
        "only evaluation opens the test split",
        "export/learning/training.py",
        "from export.texts.datasets import held_out",
    ),
    (
        "only evaluation opens the test split",
        "export/learning/training.py",
        "from export import datasets\ndatasets.held_out('x')",
    ),
    (
        "every function says what it returns",
        "service/app.py",
        "class A:\n    async def f(self):\n        pass",
    ),
    ("no function is longer than 40 lines", "service/app.py", "def f() -> None:\n" + "    pass\n" * 40),
    ("no file is longer than 400 lines", "tests/test_much.py", "\n" * 401),
    ("every module's name says what it holds", "export/utils.py", ""),
    ("every module's name says what it holds", "service/common/text.py", ""),
    ("models holds data, never code", "models/sst2/1/modeling.py", ""),
)

ALLOWED: tuple[tuple[str, str], ...] = (
    ("export/publishing/publish.py", "from service.bundle.store import write_bundle\nfrom service import bundle"),
    ("service/bundle/store.py", "import hashlib\nfrom service.bundle.manifest import Manifest"),
    ("service/routes/__init__.py", "from service.routes import classify, hub"),
    ("service/app.py", "import onnxruntime\nfrom service.routes import classify"),
    ("export/texts/datasets.py", "def held_out(name: str) -> None: ..."),
    ("export/measuring/evaluation.py", "from export.texts.datasets import held_out"),
)


@pytest.mark.parametrize("name", CHECKS)
def test_the_repository_keeps_the_rule(name: str) -> None:
    assert [fault for source in sources() for fault in CHECKS[name](source)] == []


@pytest.mark.parametrize(("name", "path", "text"), BROKEN)
def test_a_broken_rule_is_caught(name: str, path: str, text: str) -> None:
    assert CHECKS[name](Source(path, text))


def test_every_rule_is_broken_once() -> None:
    assert {name for name, _, _ in BROKEN} == set(CHECKS)


@pytest.mark.parametrize(("path", "text"), ALLOWED)
def test_what_the_rules_allow_passes_them_all(path: str, text: str) -> None:
    assert [fault for check in CHECKS.values() for fault in check(Source(path, text))] == []


BLOCKED_INTERPRETER = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {WORKSHOP!r}:
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def run_blocked(statement: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED_INTERPRETER + statement]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_service_starts_where_the_workshop_is_not_installed() -> None:
    finished = run_blocked("import service.app, service.bench.engine")
    assert finished.returncode == 0, finished.stderr


def test_measuring_bundles_waits_for_no_torch() -> None:
    named = ("measuring.evaluation", "measuring.calibrate", "measuring.cascade", "publishing.promote")
    statement = f"import sys, {', '.join(f'export.{name}' for name in named)}; print(*sys.modules)"
    finished = subprocess.run(
        [sys.executable, "-c", statement], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert not {"torch", "transformers", "onnx", "datasets"} & set(finished.stdout.split())


@pytest.mark.parametrize("module", WORKSHOP)
def test_the_interpreter_without_the_workshop_really_lacks_it(module: str) -> None:
    finished = run_blocked(f"import {module}")
    assert finished.returncode != 0
    assert f"blocked: {module}" in finished.stderr
