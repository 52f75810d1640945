"""Answers to questions: in our own dialect, by Hugging Face's client, and as tensors."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import tritonclient.http as triton
from huggingface_hub import InferenceClient

from service.bundle.manifest import EDGES, Role, SealedManifest, Task
from service.bundle.passages import AnswerSpan, Search
from service.bundle.runtime import open_bundle
from service.routes.answer import AnswerResponse
from service.routes.hub import HubAnswers
from tests.running import Running, serving
from tests.toys import toy
from tests.toys.answering import alone

QUESTION = "good ?"
CONTEXTS = ["a film", "a very dull film . goodness", "the film is not bad , but " * 30, ""]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    toy.publish(folder, "asks", "1", Role.TEACHER, task=Task.ANSWERING, labels=EDGES, pairs=True)
    toy.publish(folder, "toy", "1", Role.STUDENT)
    return folder


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Running]:
    with serving(models, "--default", "asks") as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[httpx2.Client]:
    with server.client() as client:
        yield client


def wanted(models: Path, context: str, search: Search) -> list[AnswerSpan]:
    """What the bundle says, each part of the context run by itself."""
    return alone(open_bundle(models / "asks" / "1"), QUESTION, context, search)


def asked(contexts: list[str]) -> list[dict[str, str]]:
    return [{"question": QUESTION, "context": context} for context in contexts]


@pytest.mark.parametrize("top_k", [1, 4])
def test_answers_stand_where_they_are_said_to_stand(top_k: int, client: httpx2.Client, models: Path) -> None:
    answer = client.post("/v1/answer", json={"input": asked(CONTEXTS), "top_k": top_k, "max_answer_tokens": 5})
    assert answer.status_code == 200, answer.text
    found = AnswerResponse.model_validate_json(answer.content)
    assert found.model == "asks@1"
    for index, (row, context) in enumerate(zip(found.data, CONTEXTS, strict=True)):
        theirs = wanted(models, context, Search(top_k, 5))
        assert row.index == index
        assert [(each.answer, each.start, each.end) for each in row.answers] == [
            (each.answer, each.start, each.end) for each in theirs
        ]
        np.testing.assert_allclose([each.score for each in row.answers], [each.score for each in theirs], rtol=1e-4)
        assert all(context[each.start : each.end] == each.answer for each in row.answers)
    assert "x-model-digest" in answer.headers


def test_one_question_alone_and_that_there_may_be_no_answer(client: httpx2.Client) -> None:
    (question,) = asked(CONTEXTS[1:2])
    (row,) = client.post("/v1/answer", json={"model": "asks", "input": question}).json()["data"]
    assert len(row["answers"]) == 1
    body = {"input": question, "no_answer": True, "top_k": 100}
    (row,) = client.post("/v1/answer", json=body).json()["data"]
    assert sum(each["answer"] == "" for each in row["answers"]) == 1
    scores = [each["score"] for each in row["answers"]]
    assert scores == sorted(scores, reverse=True)


def test_hugging_faces_client_reads_them(server: Running, models: Path) -> None:
    asking = InferenceClient(model=f"{server.url}/predict")
    for context in CONTEXTS[:3]:
        (best,) = wanted(models, context, Search(longest=15))
        found: Any = asking.question_answering(QUESTION, context)
        assert (found.answer, found.start, found.end) == (best.answer, best.start, best.end)
        assert found.score == pytest.approx(best.score, rel=1e-4)
    several: Any = asking.question_answering(
        QUESTION, CONTEXTS[1], top_k=3, max_answer_len=2, align_to_words=False, handle_impossible_answer=True
    )
    theirs = wanted(models, CONTEXTS[1], Search(3, 2, whole_words=False, perhaps_none=True))
    assert [each.answer for each in several] == [each.answer for each in theirs]


def test_a_batch_is_a_list_of_answers(client: httpx2.Client) -> None:
    alone = [client.post("/predict", json={"inputs": each}).json() for each in asked(CONTEXTS)]
    batch = client.post("/predict", json={"inputs": asked(CONTEXTS)})
    found = [HubAnswers.model_validate(each).model_dump() for each in batch.json()]
    for ours, theirs in zip(found, alone, strict=True):
        assert {**ours, "score": pytest.approx(ours["score"], rel=1e-4)} == theirs
    assert alone[-1] == {"answer": "", "score": 0.0, "start": 0, "end": 0}  # an empty context


def test_tritons_client_reads_them(server: Running, models: Path) -> None:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as asking:
        inputs = []
        for name, values in (("text", [QUESTION] * 2), ("text_pair", CONTEXTS[:2])):
            tensor = triton.InferInput(name, [2], "BYTES")
            tensor.set_data_from_numpy(np.array(values, dtype=object), binary_data=False)
            inputs.append(tensor)
        wished = [triton.InferRequestedOutput("answer", binary_data=False)]
        found = asking.infer("asks", inputs, outputs=wished).as_numpy("answer")
    for text, context in zip(found, CONTEXTS, strict=False):
        (ours,) = json.loads(text)
        assert ours["answer"] == wanted(models, context, Search())[0].answer


@pytest.mark.parametrize(
    ("path", "body", "problem"),
    [
        ("/v1/classify", {"model": "asks", "input": [{"text": "a", "text_pair": "b"}]}, "asks@1 answers questions"),
        ("/v1/compare", {"student": "asks", "input": [{"text": "a", "text_pair": "b"}]}, "ask /v1/answer"),
        ("/v1/compare", {"student": "toy", "input": asked(["a"])}, "toy@1 makes no vectors and answers no questions"),
        ("/v1/answer", {"model": "toy", "input": asked(["a"])}, "toy@1 makes no vectors and answers no questions"),
        ("/v1/answer", {"input": []}, "at least one"),
        ("/v1/answer", {"input": {"question": "a"}}, "context"),
        ("/v1/answer", {"input": asked(["a"]), "top_k": 0}, "top_k"),
        (
            "/v1/answer",
            {"input": {"question": "good " * 40, "context": "a"}, "truncate": False},
            "the question has more",
        ),
        ("/predict", {"inputs": asked(["a"]), "parameters": {"function_to_apply": "softmax"}}, "answers questions"),
        ("/predict", {"inputs": "good"}, '{"question": ..., "context": ...}'),
    ],
)
def test_what_makes_no_sense_is_refused(path: str, body: dict[str, Any], problem: str, client: httpx2.Client) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 422, answer.text
    assert problem in answer.text.replace('\\"', '"')


def test_a_text_of_more_parts_than_may_wait_is_refused_for_good(models: Path) -> None:
    with (
        serving(models, "--default", "asks", "--max-queue-rows", "8", "--max-request-rows", "4") as server,
        server.client() as client,
    ):
        question = {"question": QUESTION, "context": "a very dull film . " * 200}
        answer = client.post("/v1/answer", json={"input": question})
        assert (answer.status_code, "parts, and" in answer.text) == (422, True)


def test_parameters_of_answers_are_of_no_other_model(models: Path) -> None:
    with serving(models, "--default", "toy") as server, server.client() as client:
        answer = client.post("/predict", json={"inputs": "good", "parameters": {"max_answer_len": 3}})
        assert (answer.status_code, "classifies whole texts" in answer.text) == (422, True)
        answer = client.post("/v1/answer", json={"input": asked(CONTEXTS[:1])})  # the only model that answers
        assert answer.json()["model"] == "asks@1"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"labels": ["end", "start"]}, "labels of question-answering must be start, end"),
        ({"texts": 1}, "question-answering must be of pairs in one sequence"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(changes: dict[str, Any], problem: str, models: Path) -> None:
    content = json.loads((models / "asks" / "1" / "manifest.json").read_text())
    texts = [text[0] for text in content["proof"]["texts"]]
    single = {"texts": texts, "logits": {"exact": [[0.0, 0.0]] * len(texts)}}
    content |= changes if "labels" in changes else changes | {"proof": single}
    with pytest.raises(ValueError, match=problem):
        SealedManifest.model_validate(content)
