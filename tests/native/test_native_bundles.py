"""The native engine in its place: which engine opens a bundle, that both answer alike, a real service that uses it."""

import asyncio
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.bench.engine import parse_entry
from service.bench.pair.contenders import contender
from service.bundle.engines import Engine, EngineOptions, Isa
from service.bundle.errors import EngineFailed, EngineUnfit, ProofFailed
from service.bundle.manifest import Precision
from service.bundle.runtime import OpenBundle, open_bundle
from service.bundle.seal import MANIFEST_FILE, sealed
from service.bundle.tasks import Logits
from service.offline.scoring import Scorer
from service.settings import Settings
from tests.native.natively import NEEDED, isas
from tests.running import ROOT, command, opened, serving

STUDENTS = ("sst2-bilstm", "voice-intents", "tagger-conll2003")
AUTO, NATIVE = EngineOptions(engine=Engine.AUTO), EngineOptions(engine=Engine.NATIVE)
TEXTS = 300


def folder_of(name: str) -> Path:
    return ROOT / "models" / name / "1"


def texts_of(bundle: OpenBundle) -> list[str]:
    """The proof's, and words of the vocabulary in any order: none of them is one that the student has learned."""
    chance, piece = Random(0), bundle.encoder.piece
    words = [word for word in map(piece, range(1000, 6000)) if word.isalpha()]
    made = [" ".join(chance.choices(words, k=chance.randint(0, 40))) for _ in range(TEXTS)]
    return [*(str(text) for text in bundle.manifest.proof.texts), *made]


def logits(bundle: OpenBundle, texts: Sequence[str]) -> Logits:
    """(R, L): of each text, or of each of its pieces."""
    rows = bundle.encoder.encode(texts)
    found = bundle.run(rows)
    return found if found.ndim == 2 else np.concatenate(bundle.apart(rows, found))


@NEEDED
@pytest.mark.parametrize("name", STUDENTS)
def test_both_engines_give_the_committed_students_texts_one_label(name: str) -> None:
    reference, native = open_bundle(folder_of(name)), open_bundle(folder_of(name), options=AUTO)
    assert (native.chosen.engine, native.chosen.failed) == (Engine.NATIVE, False)
    texts = texts_of(reference)
    wanted, found = logits(reference, texts), logits(native, texts)
    assert np.abs(wanted - found).max() < 0.02
    assert (wanted.argmax(axis=1) == found.argmax(axis=1)).all()
    alone = np.concatenate([logits(native, [text]) for text in texts])
    assert np.array_equal(alone, found)


@NEEDED
def test_files_are_scored_by_it_too() -> None:
    reference, native = open_bundle(folder_of("sst2-bilstm")), open_bundle(folder_of("sst2-bilstm"), options=NATIVE)
    texts = texts_of(reference)
    with Scorer(native, 2) as scorer:
        found = scorer.begin(texts).scores()
    assert np.abs(found - reference.scores(reference.classify(texts))).max() < 0.005
    assert np.array_equal(found, native.scores(native.classify(texts)))


@NEEDED
@pytest.mark.parametrize("isa", Isa)
def test_instructions_that_the_processor_lacks_are_refused(isa: Isa) -> None:
    options = EngineOptions(engine=Engine.NATIVE, isa=isa)
    if isa is Isa.AUTO or isa in isas():
        found = open_bundle(folder_of("voice-intents"), options=options).chosen.isa
        assert found == isa or (isa is Isa.AUTO and found in isas())
    else:
        with pytest.raises(EngineUnfit, match="has no instructions named"):
            open_bundle(folder_of("voice-intents"), options=options)


@NEEDED
def test_the_fast_graph_is_left_to_onnxruntime() -> None:
    bundle = open_bundle(folder_of("sst2-bilstm"), Precision.FAST, AUTO)
    assert bundle.chosen.engine is Engine.ONNXRUNTIME
    assert bundle.chosen.reason.startswith("the native engine cannot run it: its operations are not")
    with pytest.raises(EngineUnfit, match=r"model_quantized\.onnx: the native engine cannot run it"):
        open_bundle(folder_of("sst2-bilstm"), Precision.FAST, NATIVE)


def test_unless_told_otherwise_a_bundle_opens_with_onnxruntime() -> None:
    chosen = open_bundle(folder_of("voice-intents")).chosen
    assert (chosen.engine, chosen.reason, str(chosen)) == (Engine.ONNXRUNTIME, "as the settings say", "onnxruntime")


def test_a_toy_opens_with_onnxruntime_and_the_reason(toy_student: Path) -> None:
    chosen = open_bundle(toy_student, options=AUTO).chosen
    assert chosen.engine is Engine.ONNXRUNTIME
    assert "the native engine cannot run it: " in chosen.reason
    assert str(toy_student) not in chosen.reason
    with pytest.raises(EngineUnfit, match="the native engine cannot run it"):
        open_bundle(toy_student, options=NATIVE)


def with_other_proof(place: Path, shift: float, tolerance: float) -> Path:
    """A bundle with a proof whose logits are off by so much."""
    folder = Path(shutil.copytree(folder_of("voice-intents"), place / "voice-intents" / "1"))
    fields = json.loads((folder / MANIFEST_FILE).read_text())
    exact = fields["proof"]["logits"]["exact"]
    fields["proof"]["logits"]["exact"] = [[value + shift for value in row] for row in exact]
    fields["graphs"]["exact"]["tolerance"] = tolerance
    (folder / MANIFEST_FILE).write_text(sealed(json.dumps(fields)))
    return folder


@NEEDED
def test_where_it_fails_its_proof_onnxruntime_runs_and_says_so(tmp_path: Path) -> None:
    folder = with_other_proof(tmp_path, 0.1, tolerance=0.2)
    chosen = open_bundle(folder, options=AUTO).chosen
    assert (chosen.engine, chosen.failed) == (Engine.ONNXRUNTIME, True)
    assert chosen.reason.startswith("the native engine fails its proof: alone, its logits differ")
    with pytest.raises(EngineFailed, match=r"fails its proof.*allowed: 0\.02"):
        open_bundle(folder, options=NATIVE)


@NEEDED
def test_big_files_keep_to_the_engine_that_they_were_begun_with(
    tmp_path: Path,
) -> None:
    """Parts of several engines would differ in their last digits."""
    (tmp_path / "texts.txt").write_text("a fine film\na dull one\n")
    words = ("classify", "--models", str(ROOT / "models"), f"{tmp_path}/texts.txt", "--out", f"{tmp_path}/scored/")
    assert command(*words).returncode == 0
    assert json.loads((tmp_path / "scored" / "_ledger.json").read_text())["request"]["engine"] == "native"
    native = open_bundle(folder_of("sst2-bilstm"), options=NATIVE)
    wanted = native.scores(native.classify(["a fine film", "a dull one"]))
    lines = (tmp_path / "scored" / "part-00000.jsonl").read_text().splitlines()
    assert [list(json.loads(line)["scores"].values()) for line in lines] == wanted.tolist()
    other = command(*words, UNDERSTUDY_ENGINE="onnxruntime")
    assert (other.returncode, "engine native, now onnxruntime" in other.stderr) == (2, True), other.stderr


@NEEDED
def test_a_bundle_that_is_wrong_fails_with_either(tmp_path: Path) -> None:
    folder = with_other_proof(tmp_path, 0.1, tolerance=1e-5)
    with pytest.raises(ProofFailed, match="differ from the exporter's"):
        open_bundle(folder, options=AUTO)


@NEEDED
def test_a_real_service_answers_with_the_same_labels(tmp_path: Path) -> None:
    reference = open_bundle(folder_of("sst2-bilstm"))
    texts = texts_of(reference)[:200]
    wanted = reference.scores(reference.classify(texts))
    labels = [reference.manifest.labels[place] for place in wanted.argmax(axis=1)]
    with serving(ROOT / "models", "--engine", "native", "--no-drift") as running, running.client() as client:
        assert "sst2-bilstm@1 (student, exact, native), sst2-minilm@1 (teacher, exact)" in running.line
        found = client.post("/v1/classify", json={"input": texts, "model": "sst2-bilstm"}).json()["data"]
        assert [each["label"] for each in found] == labels
        alone = [client.post("/v1/classify", json={"input": [text], "model": "sst2-bilstm"}) for text in texts[:20]]
        alone_scores = [each.json()["data"][0]["scores"] for each in alone]
        assert alone_scores == [each["scores"] for each in found[:20]]
        models = {each["name"]: each for each in client.get("/v1/models").json()["data"]}
        assert (models["sst2-bilstm"]["engine"], models["sst2-minilm"]["engine"]) == ("native", "onnxruntime")
        assert models["sst2-bilstm"]["isa"] in isas()
        assert models["sst2-bilstm"]["engine_reason"] == "as the settings say"
        families = text_string_to_metric_families(client.get("/metrics").text)
        about = [each.labels for family in families for each in family.samples if each.name == "understudy_model_info"]
        assert {each["model"]: each["engine"] for each in about}["sst2-bilstm@1"] == "native"


@NEEDED
def test_the_log_says_which_engine_runs_and_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def open_and_close() -> None:
        async with opened(Settings(models=ROOT / "models")):
            pass

    asyncio.run(open_and_close())
    lines = [record.getMessage() for record in caplog.records]
    assert f"sst2-bilstm@1 runs by native ({isas()[-1]}): it knows the graph, and proved itself" in lines
    assert any(line.startswith("sst2-minilm@1 runs by onnxruntime: the native engine cannot") for line in lines)


def test_benchmarks_run_the_engine_that_a_bundle_is_named_with() -> None:
    entry = parse_entry(f"{folder_of('sst2-bilstm')}:native")
    both = contender(entry, teacher=False), contender(parse_entry(str(entry.folder)), teacher=False)
    assert [each.title for each in both] == ["sst2-bilstm@1:native", "sst2-bilstm@1:exact"]
    assert [each.entry.flags[-1] for each in both] == ["native", "onnxruntime"]
    assert both[1].entry.open().chosen.engine is Engine.ONNXRUNTIME


def test_a_service_that_is_told_to_use_what_it_cannot_does_not_start(toy_models: Path) -> None:
    done = command("serve", "--models", str(toy_models), "--port", "0", "--engine", "native")
    assert done.returncode == 3
    assert "the native engine cannot run it" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
