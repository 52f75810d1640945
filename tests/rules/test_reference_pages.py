"""Pages of reference are what the service says of itself."""

from pathlib import Path

from tests.pages import api, metrics
from tests.running import ROOT


def test_the_page_of_the_api_is_the_openapi_document() -> None:
    assert api.page() == Path(ROOT, "docs/api.md").read_text(encoding="utf-8")


def test_the_page_of_metrics_is_what_a_server_counts() -> None:
    assert metrics.page() == Path(ROOT, "docs/metrics.md").read_text(encoding="utf-8")
