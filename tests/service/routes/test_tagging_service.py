"""A tagger behind a real server: entities in each dialect, compared, watched, and classified from files."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from huggingface_hub import InferenceClient, constants
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException
from typer.testing import CliRunner

from service.api.answers import Entities
from service.api.door import Door
from service.bench.__main__ import app
from service.bundle.runtime import OpenBundle, open_bundle
from service.bundle.spans import Aggregation, Entity, shared
from service.routes.classify import ClassifyResponse
from service.routes.compare import CompareResponse, SetsBeside
from service.routes.hub import PATHS, HubEntities, HubResponse
from tests.running import Running, client_of, command, serving
from tests.toys.cascading import visit
from tests.toys.tagging import TEXTS, expected

TEXT = TEXTS[1]


@pytest.fixture(scope="module")
def server(taggers: Path) -> Iterator[Running]:
    with serving(taggers, "--default", "ner") as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[httpx2.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def student(taggers: Path) -> OpenBundle:
    return open_bundle(taggers / "ner" / "1")


@pytest.fixture(scope="module")
def teacher(taggers: Path) -> OpenBundle:
    return open_bundle(taggers / "ner-teacher" / "1")


@pytest.fixture
def hub(server: Running, monkeypatch: pytest.MonkeyPatch) -> InferenceClient:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # it would take this machine for far away
    return InferenceClient(model=f"{server.url}/predict")


def classify(client: httpx2.Client, **body: object) -> ClassifyResponse:
    answer = client.post("/v1/classify", json=body)
    assert answer.status_code == 200, answer.text
    return ClassifyResponse.model_validate_json(answer.content)


def found_in(row: object) -> list[Entity]:
    assert isinstance(row, Entities)
    return [Entity(each.label, each.score, each.start, each.end, each.text) for each in row.entities]


def same(found: Sequence[Entity], wanted: Sequence[Entity]) -> bool:
    assert [entity.score for entity in found] == pytest.approx([entity.score for entity in wanted], abs=1e-5)
    return [(entity.place, entity.text) for entity in found] == [(entity.place, entity.text) for entity in wanted]


def refusal(client: httpx2.Client, path: str, **body: object) -> str:
    answer = client.post(path, json=body)
    assert answer.status_code == 422, answer.text
    return answer.text


# --- our own dialect


@pytest.mark.parametrize("model", ["ner", "ner-teacher"])
def test_texts_are_answered_with_their_entities(client: httpx2.Client, taggers: Path, model: str) -> None:
    bundle = open_bundle(taggers / model / "1")
    done = classify(client, model=model, input=list(TEXTS))
    assert done.usage.tokens == sum(map(len, bundle.encoder.encode(TEXTS)))
    for place, (row, text, wanted) in enumerate(zip(done.data, TEXTS, expected(bundle, TEXTS), strict=True)):
        assert row.index == place
        assert same(found_in(row), wanted)
        assert all(text[entity.start : entity.end] == entity.text for entity in found_in(row))
        (alone,) = classify(client, model=model, input=text).data
        assert same(found_in(alone), wanted)
    assert {entity.label for row in done.data for entity in found_in(row)} == {"PER", '"so"'}


def test_an_answer_reads_as_it_is_documented(client: httpx2.Client, student: OpenBundle) -> None:
    (row,) = client.post("/v1/classify", json={"input": TEXT}).json()["data"]
    assert list(row) == ["index", "entities"]
    assert list(row["entities"][0]) == ["label", "score", "start", "end", "text"]
    schema = client.get("/openapi.json").json()["components"]["schemas"]
    assert schema["Entities"]["properties"]["entities"]["items"] == {"$ref": "#/components/schemas/EntityFound"}
    assert schema["EntityFound"]["required"] == ["label", "score", "start", "end", "text"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"top_k": 1}, "top_k: ner@1 marks entities in a text and has no scores of labels; leave it away"),
        ({"truncate": False}, "more than the 48 tokens that this model reads"),
        ({"strategy": "cascade"}, "a cascade is for models that choose one label of several, and ner@1 does not"),
    ],
)
def test_what_makes_no_sense_is_refused(client: httpx2.Client, more: dict[str, object], said: str) -> None:
    assert said in refusal(client, "/v1/classify", input=list(TEXTS), **more)


def test_a_teacher_answers_in_its_students_place(client: httpx2.Client, teacher: OpenBundle) -> None:
    answer = client.post("/v1/classify", json={"input": list(TEXTS), "strategy": "teacher"})
    assert answer.headers["x-served-by"] == "teacher"
    done = ClassifyResponse.model_validate_json(answer.content)
    assert (done.model, done.teacher) == ("ner@1", "ner-teacher@1")
    for row, wanted in zip(done.data, expected(teacher, TEXTS), strict=True):
        assert same(found_in(row), wanted)
        assert (row.served_by, row.confidence) == ("teacher", None)


def test_a_cascade_of_all_is_not_begun_with_a_tagger(taggers: Path) -> None:
    done = command("serve", "--models", str(taggers), "--default", "ner", "--strategy", "cascade")
    assert done.returncode == 2
    assert "a cascade is for models that choose one label of several, and ner@1 does not" in done.stderr


def test_where_all_are_in_a_cascade_a_tagger_answers_itself(taggers: Path, student: OpenBundle) -> None:
    async def act(door: Door) -> None:
        async with client_of(door) as client:
            answer = await client.post("/v1/classify", json={"model": "ner", "input": TEXT})
        (row,) = ClassifyResponse.model_validate_json(answer.content).data
        assert (row.served_by, row.confidence, row.escalated) == ("student", None, False)
        assert same(found_in(row), expected(student, [TEXT])[0])

    visit(taggers, act, cascade_threshold=0.5)


def test_both_models_are_compared_by_what_they_find(
    client: httpx2.Client, student: OpenBundle, teacher: OpenBundle
) -> None:
    answer = client.post("/v1/compare", json={"input": list(TEXTS)})
    done = CompareResponse.model_validate_json(answer.content)
    ours, theirs = expected(student, TEXTS), expected(teacher, TEXTS)
    for side, wanted in ((done.student, ours), (done.teacher, theirs)):
        assert all(same(found_in(row), entities) for row, entities in zip(side.data, wanted, strict=True))
    shares = [shared(one, other) for one, other in zip(ours, theirs, strict=True)]
    assert {0 < share < 1 for share in shares} == {True, False}
    assert done.agreement is not None
    assert done.agreement.share == pytest.approx(sum(shares) / len(TEXTS))
    for row, share in zip(done.data, shares, strict=True):
        assert isinstance(row, SetsBeside)
        assert row.agree == (share == 1)
        assert row.share == pytest.approx(share)


# --- Hugging Face's


@pytest.mark.parametrize("text", TEXTS)
def test_its_client_reads_our_answer(hub: InferenceClient, student: OpenBundle, text: str) -> None:
    found = hub.token_classification(text)
    assert all(each.entity is None and each.entity_group is not None for each in found)
    told = [Entity(str(each.entity_group), each.score, each.start, each.end, each.word) for each in found]
    assert same(told, expected(student, [text])[0])


@pytest.mark.parametrize("how", [how for how in Aggregation if how is not Aggregation.NONE])
def test_its_client_chooses_how_pieces_become_words(
    hub: InferenceClient, student: OpenBundle, how: Aggregation
) -> None:
    found = hub.token_classification(TEXT, aggregation_strategy=how.value)
    told = [Entity(str(each.entity_group), each.score, each.start, each.end, each.word) for each in found]
    assert same(told, expected(student, [TEXT], how)[0])


def test_its_client_reads_single_pieces(hub: InferenceClient, student: OpenBundle) -> None:
    found = hub.token_classification("GOODNESS , film zyx", aggregation_strategy="none", ignore_labels=[])
    assert [each.word for each in found] == ["good", "##ness", ",", "film", "zyx"]
    assert [(each.start, each.end) for each in found] == [(0, 4), (4, 8), (9, 10), (11, 15), (16, 19)]
    (logits,) = student.classify(["GOODNESS , film zyx"])
    best = [student.manifest.labels[tag] for tag in logits.argmax(axis=1)]
    assert [each.entity for each in found] == best
    assert all(each.entity_group is None for each in found)
    kept = hub.token_classification("GOODNESS , film zyx", aggregation_strategy="none", ignore_labels=best[:1])
    assert [each.entity for each in kept] == [tag for tag in best if tag != best[0]]


def test_its_client_says_what_to_leave_out(hub: InferenceClient, student: OpenBundle) -> None:
    (wanted,) = expected(student, [TEXT])
    assert {entity.label for entity in wanted} == {"PER", '"so"'}
    groups = [each.entity_group for each in hub.token_classification(TEXT, ignore_labels=["O", "PER"])]
    assert groups == [entity.label for entity in wanted if entity.label != "PER"]
    whole = hub.token_classification(TEXT, ignore_labels=[])
    assert {each.entity_group for each in whole} == {"O", "PER", '"so"'}
    assert (whole[0].start, whole[-1].end) == (0, len(TEXT))


def test_a_teachers_pieces_are_its_own(taggers: Path, teacher: OpenBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving(taggers, "--default", "ner", "--strategy", "teacher") as server:
        hub = InferenceClient(model=f"{server.url}/predict")
        found = hub.token_classification("GOODNESS zyx", aggregation_strategy="none", ignore_labels=[""])
        words = hub.token_classification("GOODNESS zyx", aggregation_strategy="average", ignore_labels=[""])
    (logits,) = teacher.classify(["GOODNESS zyx"])  # [CLS] good ##ness zyx [SEP]
    best = [teacher.manifest.labels[tag] for tag in logits.argmax(axis=1)][1:-1]
    assert [(each.word, each.entity, each.start) for each in found] == [
        (word, tag, start) for word, tag, start in zip(["good", "##ness", "zyx"], best, [0, 4, 9], strict=True)
    ]
    assert (words[0].start, words[-1].end) == (0, 12)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("how", [None, "none", "simple"])
def test_a_batch_is_a_list_of_lists(client: httpx2.Client, path: str, how: str | None) -> None:
    parameters = {"parameters": {"aggregation_strategy": how}}
    answers = [client.post(path, json={"inputs": text, **parameters}).content for text in TEXTS]
    batch = client.post(path, json={"inputs": list(TEXTS), **parameters})
    found = HubResponse.model_validate_json(batch.content).root
    assert isinstance(found, tuple)
    for row, answer in zip(found, answers, strict=True):
        assert isinstance(row, HubEntities)
        alone = HubEntities.model_validate_json(answer).root
        assert [each.model_dump(exclude={"score"}) for each in row.root] == [
            each.model_dump(exclude={"score"}) for each in alone
        ]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"top_k": 2}, "parameters.top_k: ner@1 marks entities and has no scores of labels; leave it away"),
        ({"function_to_apply": "none"}, "parameters.function_to_apply: ner@1 marks entities"),
        ({"aggregation_strategy": "best"}, "parameters.aggregation_strategy: Input should be 'none', 'simple'"),
        ({"stride": 2}, "parameters.stride: Extra inputs are not permitted"),
    ],
)
def test_what_a_tagger_cannot_do_is_refused(client: httpx2.Client, parameters: dict[str, Any], said: str) -> None:
    assert said in refusal(client, "/predict", inputs=TEXT, parameters=parameters)


def test_a_classifier_marks_no_entities(taggers: Path) -> None:
    with serving(taggers, "--default", "toy") as server, server.client() as client:
        for field, value in (("aggregation_strategy", "first"), ("ignore_labels", ["O"])):
            said = f"parameters.{field}: toy@1 classifies whole texts and marks nothing in them; leave it away"
            assert said in refusal(client, "/predict", inputs="good", parameters={field: value})


# --- the Open Inference Protocol


@pytest.fixture(scope="module")
def triton(server: Running) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(server.url.removeprefix("http://")) as client:
        yield client


def tensor(texts: Sequence[str]) -> InferInput:
    made = InferInput("text", [len(texts)], "BYTES")
    made.set_data_from_numpy(np.array(texts, dtype=np.object_), binary_data=False)
    return made


def test_tritons_client_reads_our_answer(triton: InferenceServerClient, student: OpenBundle) -> None:
    about = triton.get_model_metadata("ner")
    assert about["outputs"] == [{"name": "entities", "datatype": "BYTES", "shape": [-1]}]
    assert (about["parameters"]["task"], about["parameters"]["json_outputs"]) == ("tagging", ["entities"])
    assert triton.get_model_metadata("toy")["parameters"]["json_outputs"] == []
    wanted = [InferRequestedOutput("entities", binary_data=False)]
    told = triton.infer("ner", [tensor(TEXTS)], outputs=wanted).as_numpy("entities")
    assert told.shape == (len(TEXTS),)
    for row, entities in zip(told, expected(student, TEXTS), strict=True):
        assert same([Entity(**each) for each in json.loads(row)], entities)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (InferRequestedOutput("entities", binary_data=False, class_count=2), "classification is for scores alone"),
        (InferRequestedOutput("logits", binary_data=False), "ner does not give logits; it gives entities"),
    ],
)
def test_triton_is_told_what_there_is_not(
    triton: InferenceServerClient, output: InferRequestedOutput, said: str
) -> None:
    with pytest.raises(InferenceServerException, match=said):
        triton.infer("ner", [tensor([TEXT])], outputs=[output])


# --- without a server


def tagged(taggers: Path, *arguments: str) -> str:
    done = command("classify", "--models", str(taggers), "--model", "ner", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_files_are_tagged_too(taggers: Path, student: OpenBundle, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": "kept"}) + "\n" for text in TEXTS))
    given = ("--file", str(path), "--keep", "label")
    lines = [json.loads(line) for line in tagged(taggers, *given).splitlines()]
    cells = list(csv.DictReader(io.StringIO(tagged(taggers, *given, "--format", "csv"))))
    for line, row, text, wanted in zip(lines, cells, TEXTS, expected(student, TEXTS), strict=True):
        assert list(line) == list(row) == ["text", "label", "entities"]
        assert (line["text"], line["label"]) == (row["text"], row["label"]) == (text, "kept")
        assert line["entities"] == json.loads(row["entities"])
        assert same([Entity(**each) for each in line["entities"]], wanted)


def test_top_k_is_refused_in_one_line(taggers: Path) -> None:
    done = command("classify", "--models", str(taggers), "--model", "ner", "--top-k", "1", "good")
    assert done.returncode == 2
    assert "ner marks entities and has no scores of labels: leave --top-k away" in done.stderr


def test_the_benchmark_of_engines_takes_taggers(taggers: Path) -> None:
    result = CliRunner().invoke(app, ["engine", "--models", str(taggers), "--rounds", "2", "--tokens", "6"])
    assert result.exit_code == 0, result.output
    assert "ner@1:exact" in result.stdout
