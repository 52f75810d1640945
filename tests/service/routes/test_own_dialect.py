"""`POST /v1/classify`: each task's own answer, and whatever a request may choose."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from service.api.answers import Numbers, OneLabel, SeveralLabels
from service.bundle.manifest import Task
from service.routes.classify import ClassifyResponse
from tests.service.routes.asking import SINGLE, VERSIONS, bundle, expected, scores_of, serving_zoo, spoken, texts_of
from tests.toys import toy

KIND: dict[Task, type[OneLabel | SeveralLabels | Numbers]] = {
    Task.SINGLE_LABEL: OneLabel,
    Task.MULTI_LABEL: SeveralLabels,
    Task.REGRESSION: Numbers,
}


@pytest.fixture(scope="module")
def client(zoo: Path) -> Iterator[httpx2.Client]:
    with serving_zoo(zoo) as server, server.client() as client:
        yield client


def ask(client: httpx2.Client, **body: object) -> ClassifyResponse:
    """An answer, held against the model that documents it."""
    answer = client.post("/v1/classify", json=body)
    assert answer.status_code == 200, answer.text
    return ClassifyResponse.model_validate_json(answer.content)


def problem(client: httpx2.Client, status: int, **body: object) -> dict[str, object]:
    answer = client.post("/v1/classify", json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, object] = answer.json()
    return found


@pytest.mark.parametrize("model", VERSIONS)
def test_each_task_has_its_answer(client: httpx2.Client, zoo: Path, model: str) -> None:
    opened = bundle(zoo, model)
    rows = ask(client, model=model, input=[spoken(text) for text in texts_of(model)]).data
    assert [row.index for row in rows] == [0, 1, 2]
    for row, text in zip(rows, texts_of(model), strict=True):
        scores = expected(zoo, model, text)
        assert isinstance(row, KIND[opened.manifest.task])
        assert list(row.scores) == list(opened.manifest.labels)
        assert row.scores == pytest.approx(scores, abs=1e-5)
        if isinstance(row, OneLabel):
            assert (row.label, row.score) == max(row.scores.items(), key=lambda pair: pair[1])
        if isinstance(row, SeveralLabels):
            held = {label: score for label, score in row.scores.items() if score >= 0.5}
            assert list(row.labels) == sorted(held, key=lambda label: -held[label])


def test_a_multi_label_model_may_choose_several_labels_or_none(client: httpx2.Client) -> None:
    words = [" ".join((first, second)) for first in toy.WORDS for second in toy.WORDS]
    rows = ask(client, model="tags", input=words).data
    counts = {len(row.labels) for row in rows if isinstance(row, SeveralLabels)}
    assert len(counts) > 1
    assert max(counts) > 1


@pytest.mark.parametrize("model", ["toy", "tags", "twins"])
@pytest.mark.parametrize("top_k", [1, 2, 99])
def test_top_k_leaves_the_best_labels(client: httpx2.Client, model: str, top_k: int) -> None:
    text = spoken(texts_of(model)[0])
    whole, cut = (ask(client, model=model, input=text, top_k=best).data[0] for best in (None, top_k))
    scores = scores_of(whole)
    best_first = sorted(scores, key=lambda label: -scores[label])
    assert list(scores_of(cut)) == best_first[:top_k]
    if not isinstance(cut, Numbers):
        assert cut.model_copy(update={"scores": {}}) == whole.model_copy(update={"scores": {}})


def test_a_list_is_always_a_batch(client: httpx2.Client) -> None:
    both = ask(client, input=["good", "a film"]).data
    assert [scores_of(row) for row in both] == [
        scores_of(ask(client, input=text).data[0]) for text in ("good", "a film")
    ]


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ({}, "toy@2"),
        ({"model": "toy"}, "toy@2"),
        ({"model": "toy", "version": "1"}, "toy@1"),
        ({"model": "toy", "version": 1}, "toy@1"),
        ({"model": "toy@1"}, "toy@1"),
        ({"version": "1"}, "toy@1"),
        ({"version": None, "model": None, "top_k": None}, "toy@2"),
        ({"model": "tags"}, "tags@1"),
    ],
)
def test_model_and_version_are_named_either_way(client: httpx2.Client, asked: dict[str, object], answered: str) -> None:
    assert ask(client, input="good", **asked).model == answered


@pytest.mark.parametrize(
    "asked", [{"model": "toy", "version": "3"}, {"model": "toy@1", "version": "1"}, {"model": "ape"}, {"version": -1}]
)
def test_what_is_not_served_is_not_found(client: httpx2.Client, asked: dict[str, object]) -> None:
    assert problem(client, 404, input="good", **asked)["title"] == "Unknown model"


@pytest.mark.parametrize("model", VERSIONS)
def test_a_long_text_is_cut_unless_the_request_says_no(client: httpx2.Client, zoo: Path, model: str) -> None:
    long = spoken(("good " * 60, "bad " * 60) if bundle(zoo, model).manifest.texts == 2 else "good " * 60)
    short = spoken(texts_of(model)[0])
    assert ask(client, model=model, input=[short, long]).usage.tokens >= toy.MAX_TOKENS
    assert ask(client, model=model, input=[short, short], truncate=False).data
    found = problem(client, 422, model=model, input=[short, long], truncate=False)
    assert found["errors"] == [
        {
            "loc": ["input", 1],
            "msg": f"more than the {toy.MAX_TOKENS} tokens that this model reads",
            "type": "value_error",
        }
    ]
    alone = problem(client, 422, model=model, input=long, truncate=False)
    assert alone["detail"] == f"input: more than the {toy.MAX_TOKENS} tokens that this model reads"


@pytest.mark.parametrize(
    ("model", "wrong", "detail"),
    [
        ("same", "good", 'input: this model reads pairs of texts; write {"text": ..., "text_pair": ...} for each'),
        ("twins", ["good", "bad"], "input.0: this model reads pairs of texts; write"),
        ("toy", {"text": "good", "text_pair": "bad"}, "input: this model reads single texts"),
        ("tags", [{"text": "good", "text_pair": "bad"}], "input.0: this model reads single texts"),
    ],
)
def test_the_wrong_kind_of_text_is_refused_with_the_right_one(
    client: httpx2.Client, model: str, wrong: object, detail: str
) -> None:
    assert str(problem(client, 422, model=model, input=wrong)["detail"]).startswith(detail)


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        (["good", {"text": "good", "text_pair": "bad"}], ["input", 1]),
        ([{"text": "good", "text_pair": "bad"}, "good"], ["input", 1]),
        ([["good", "bad"]], ["input", 0]),
        ([{"text": "good"}], ["input", 0, "text_pair"]),
        ({"text": "good"}, ["input", "text_pair"]),
        ({"text": "good", "text_pair": "bad", "third": "x"}, ["input", "third"]),
        ({"text": "good", "text_pair": None}, ["input", "text_pair"]),
        (7, ["input"]),
        (None, ["input"]),
    ],
)
def test_a_shape_that_could_mean_two_things_is_refused(
    client: httpx2.Client, wrong: object, place: list[object]
) -> None:
    found = problem(client, 422, input=wrong)
    assert isinstance(found["errors"], list)
    assert found["errors"][0]["loc"] == place


@pytest.mark.parametrize(
    "asked", [{"top_k": 0}, {"top_k": "1"}, {"top_k": 1.5}, {"truncate": "no"}, {"version": True}, {"k": 1}]
)
def test_what_makes_no_sense_is_refused(client: httpx2.Client, asked: dict[str, object]) -> None:
    assert problem(client, 422, input="good", **asked)["errors"]


def test_models_tell_their_task_and_whether_they_read_pairs(client: httpx2.Client) -> None:
    told = {model["name"]: (model["task"], model["texts"]) for model in client.get("/v1/models").json()["data"]}
    assert told["tags"] == ("multi-label", 1)
    assert told["stars"] == ("regression", 1)
    assert told["same"] == ("single-label", 2)
    assert told["twins"] == ("regression", 2)


def test_all_of_a_request_can_be_chosen_at_once(client: httpx2.Client) -> None:
    whole = ask(client, model="toy", version="1", input=list(SINGLE), top_k=1, truncate=False)
    assert whole.model == "toy@1"
    assert [len(scores_of(row)) for row in whole.data] == [1, 1, 1]


def test_what_is_wrong_with_a_version_is_said_once(client: httpx2.Client) -> None:
    errors = client.post("/v1/classify", json={"input": "good", "version": True}).json()["errors"]
    assert [error["loc"] for error in errors] == [["version"]]
