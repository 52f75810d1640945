"""What metrics say of models that have gone, also where several workers keep their values in files."""

from pathlib import Path

import pytest
from prometheus_client import values

from service.telemetry.metrics import SHARED, Metrics
from service.telemetry.oversight import DriftMeter, OversightMetrics, PairMeter

ABOUT = {"role": "student", "task": "single-label", "precision": "exact", "engine": "onnxruntime"}
INFO = ("understudy_model_info", {"model": "a@1", **ABOUT})


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """Of a worker beside others."""
    monkeypatch.setenv(SHARED, str(tmp_path))
    of_worker = values.MultiProcessValue(process_identifier=lambda: "0-0")  # type: ignore[no-untyped-call]
    monkeypatch.setattr(values, "ValueClass", of_worker)
    return Metrics()


def test_a_model_that_was_loaded_again_meanwhile_keeps_its_series() -> None:
    metrics = Metrics()
    old, new = (metrics.of_model("a@1", *ABOUT.values()) for _ in range(2))
    new.rows.inc()
    old.forget()
    assert metrics.registry.get_sample_value(*INFO) == 1
    new.forget()
    old.forget()
    assert metrics.registry.get_sample_value(*INFO) is None


def test_values_in_files_say_that_a_model_has_gone(shared: Metrics) -> None:
    meter = shared.of_model("a@1", *ABOUT.values())
    assert shared.collected().get_sample_value(*INFO) == 1
    meter.forget()
    assert shared.collected().get_sample_value(*INFO) == 0


def test_no_alarm_outlives_its_student_in_files(shared: Metrics) -> None:
    families = OversightMetrics(shared)
    meters = PairMeter(families, "a@1", "t@1"), DriftMeter(families, "a@1", "tokens")
    alarms = (
        ("understudy_agreement_alarm", {"model": "a@1", "teacher": "t@1"}),
        ("understudy_drift_alarm", {"model": "a@1", "feature": "tokens"}),
    )
    for meter in meters:
        meter.alarm.set(1)
    assert [shared.collected().get_sample_value(*alarm) for alarm in alarms] == [1, 1]
    for meter in meters:
        meter.rest()
    assert [shared.collected().get_sample_value(*alarm) for alarm in alarms] == [0, 0]
