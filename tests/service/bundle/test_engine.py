"""ONNX Runtime as we set it up: devices, bindings, runs that are given up."""

import threading
import time

import numpy as np
import onnxruntime
import pytest

from service.bundle.devices import CPU, CUDA, Device, choose_providers
from service.bundle.engine import RunHandle, open_graph
from service.bundle.engines import EngineOptions
from service.bundle.errors import GraphMismatch, ProviderMissing, RunAborted
from service.bundle.manifest import Role
from tests.service.bundle.endless import endless_graph
from tests.toys import toy

TEXTS = ("good", "a very dull film .", "")


@pytest.mark.parametrize("content", [toy.student_graph(), toy.teacher_graph()])
def test_a_binding_changes_no_answer(content: bytes) -> None:
    role = Role.STUDENT if content == toy.student_graph() else Role.TEACHER
    encoder = toy.encoder(role, toy.tokenizer(special=role is Role.TEACHER))
    feeds = encoder.collate(encoder.encode(TEXTS))
    plain, bound = (open_graph(content, EngineOptions(bound=bound)).run(feeds) for bound in (False, True))
    assert (plain == bound).all()
    assert bound.flags.owndata or bound.base is not None


@pytest.mark.parametrize("options", [EngineOptions(arena=True), EngineOptions(arena=True, patterns=True)])
def test_neither_does_memory_that_is_kept(options: EngineOptions) -> None:
    encoder = toy.encoder(Role.STUDENT, toy.tokenizer(special=False))
    plain, kept = open_graph(toy.student_graph()), open_graph(toy.student_graph(), options)
    for batch in (TEXTS, TEXTS[:1], TEXTS * 5, TEXTS[1:]):
        feeds = encoder.collate(encoder.encode(batch))
        assert (plain.run(feeds) == kept.run(feeds)).all()


@pytest.mark.parametrize("bound", [False, True])
def test_another_thread_can_end_a_run(bound: bool) -> None:
    graph, handle = open_graph(endless_graph(), EngineOptions(bound=bound)), RunHandle()
    timer = threading.Timer(0.2, handle.abort)
    started = time.monotonic()
    timer.start()
    with pytest.raises(RunAborted, match="given up"):
        graph.run({"input_ids": np.zeros((1, 1), np.int64)}, handle)
    timer.join()
    assert time.monotonic() - started < 10
    assert handle.aborted


def test_a_run_that_was_given_up_beforehand_does_not_start() -> None:
    graph, handle = open_graph(endless_graph()), RunHandle()
    handle.abort()
    with pytest.raises(RunAborted):
        graph.run({"input_ids": np.zeros((1, 1), np.int64)}, handle)


def test_giving_up_one_run_leaves_the_others_alone(capfd: pytest.CaptureFixture[str]) -> None:
    encoder = toy.encoder(Role.STUDENT, toy.tokenizer(special=False))
    graph, handle = open_graph(toy.student_graph()), RunHandle()
    feeds = encoder.collate(encoder.encode(TEXTS))
    wanted = graph.run(feeds)
    handle.abort()
    with pytest.raises(RunAborted):
        graph.run(feeds, handle)
    assert (graph.run(feeds, RunHandle()) == wanted).all()
    assert capfd.readouterr().err == ""  # ONNX Runtime would log what it also raises


def test_what_fails_for_itself_is_not_taken_for_given_up() -> None:
    graph, handle = open_graph(toy.student_graph()), RunHandle()
    with pytest.raises(Exception, match="input_ids") as caught:
        graph.run({"input_ids": np.zeros((1, 1), np.int64)}, handle)
    assert not isinstance(caught.value, RunAborted)


@pytest.mark.parametrize(
    ("device", "available", "wanted"),
    [
        (Device.CPU, [CPU], (CPU,)),
        (Device.CPU, [CUDA, CPU], (CPU,)),
        (Device.AUTO, [CPU], (CPU,)),
        (Device.AUTO, [CUDA, CPU], (CUDA, CPU)),
        (Device.CUDA, [CUDA, CPU], (CUDA,)),
    ],
)
def test_a_device_decides_what_is_tried(device: Device, available: list[str], wanted: tuple[str, ...]) -> None:
    assert choose_providers(device, available) == wanted


def test_a_missing_gpu_build_is_named_with_its_package() -> None:
    with pytest.raises(ProviderMissing, match="install onnxruntime-gpu"):
        choose_providers(Device.CUDA, [CPU])


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="here a GPU build is installed")
def test_asking_for_a_gpu_without_its_build_opens_nothing() -> None:
    with pytest.raises(ProviderMissing, match="install onnxruntime-gpu"):
        open_graph(toy.student_graph(), EngineOptions(device=Device.CUDA))


def test_on_a_cpu_nothing_of_the_gpu_is_used() -> None:
    graph = open_graph(toy.student_graph(), EngineOptions(device=Device.CPU))
    assert (graph.device, graph.buckets) == (Device.CPU, None)


def test_an_open_graph_keeps_no_copy_of_its_file() -> None:
    assert open_graph(toy.student_graph())._session._model_bytes is None


@pytest.mark.parametrize("content", [b"", b"not a graph", b"ORTM" * 10, toy.student_graph()[:-9]])
def test_bytes_that_are_no_graph_are_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(GraphMismatch, match="export it again") as caught:
        open_graph(content, source="model.onnx")
    assert "\n" not in str(caught.value)
