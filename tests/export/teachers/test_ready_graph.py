"""A folder as Optimum writes it is adopted as it is; what is no teacher's graph is refused in one line."""

import json
import shutil
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from export.errors import ModelError
from export.graphs.to_onnx import teacher_graph
from export.networks.pretrained import load_tokenizer
from export.pipeline import Judged, adopt
from export.publishing.publish import Called
from export.publishing.ready_graph import graph_file, read_ready_graph
from export.teachers.hugging_face import Teacher
from export.texts.datasets import Columns
from service.bundle.manifest import TRANSFORMER_INPUTS, Precision, Task
from service.bundle.runtime import open_bundle
from tests.toys.workshop import LABELS, Shop, command, sentences

TEXTS = [text for text, _ in sentences()[:20]]


@pytest.fixture(scope="session")
def optimum(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `optimum-cli export onnx --task text-classification` leaves: its names of files, inputs and output."""
    folder = tmp_path_factory.mktemp("optimum")
    teacher = Teacher.load(str(taught))
    (folder / "model.onnx").write_bytes(teacher_graph(teacher.model))
    teacher.model.config.save_pretrained(folder)
    teacher.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(optimum: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(optimum, tmp_path / "optimum"))


def publish(folder: Path, shop: Shop, models: Path) -> Path:
    return adopt(str(folder), Called("ready"), Judged(str(shop.dev), Columns()), models, "a test")


def test_the_graph_is_published_as_it_is_and_answers_as_torch_does(
    optimum: Path, taught: Path, shop: Shop, tmp_path: Path
) -> None:
    bundle = open_bundle(publish(optimum, shop, tmp_path))
    manifest, teacher = bundle.manifest, Teacher.load(str(taught))
    assert (bundle.folder / "model.onnx").read_bytes() == (optimum / "model.onnx").read_bytes()
    assert (manifest.labels, manifest.task, manifest.max_tokens) == (LABELS, Task.SINGLE_LABEL, 64)
    assert manifest.graphs[Precision.EXACT].parity == 0
    assert {row.what for row in manifest.results} == {"teacher, exact"}  # torch was not asked
    torch.testing.assert_close(
        torch.from_numpy(bundle.classify(TEXTS)), torch.from_numpy(teacher.exact_logits(TEXTS)), atol=0.02, rtol=0
    )


def test_the_command_takes_the_folder(optimum: Path, shop: Shop, tmp_path: Path) -> None:
    found = command("adopt", optimum, "--name", "ready", "--dev", shop.dev, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert open_bundle(tmp_path / "models" / "ready" / "1").manifest.labels == LABELS


class TwoInputs(nn.Module):
    """As Optimum exports a DistilBERT: no token types."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


@pytest.mark.filterwarnings("ignore")
def test_a_graph_without_token_types_gets_an_input_that_nothing_reads(folder: Path, shop: Shop, tmp_path: Path) -> None:
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    config = DistilBertConfig(vocab_size=vocabulary, dim=32, n_layers=1, n_heads=2, hidden_dim=32)
    config.id2label = dict(enumerate(LABELS))
    torch.manual_seed(0)
    model = DistilBertForSequenceClassification(config).eval()
    batch, length = torch.export.Dim("B", min=1, max=4096), torch.export.Dim("T", min=1, max=512)
    example = torch.ones(2, 8, dtype=torch.int64)
    program = torch.onnx.export(
        TwoInputs(model),
        (example, example.clone()),
        dynamo=True,
        input_names=list(TRANSFORMER_INPUTS[:2]),
        output_names=["logits"],
        dynamic_shapes=[{0: batch, 1: length}] * 2,
        verbose=False,
    )
    assert program is not None
    program.save(str(folder / "model.onnx"), external_data=False)
    config.save_pretrained(folder)
    bundle = open_bundle(publish(folder, shop, tmp_path / "models"))
    assert bundle.manifest.inputs == TRANSFORMER_INPUTS
    tokens = Teacher(model, load_tokenizer(str(folder)), 64).exact_logits(TEXTS)
    torch.testing.assert_close(torch.from_numpy(bundle.classify(TEXTS)), torch.from_numpy(tokens), atol=1e-4, rtol=0)


def test_the_graph_may_lie_in_a_folder_of_its_own(folder: Path) -> None:
    (folder / "onnx").mkdir()
    (folder / "model.onnx").rename(folder / "onnx" / "model.onnx")
    file = graph_file(str(folder))
    assert file == folder / "onnx" / "model.onnx"
    assert read_ready_graph(file, str(folder)).labels == LABELS


def test_torchs_weights_are_preferred(folder: Path, taught: Path) -> None:
    shutil.copy(taught / "model.safetensors", folder)
    assert graph_file(str(folder)) is None
    assert graph_file(str(taught)) is None
    assert graph_file("an/id-of-the-hub") is None


def test_positions_behind_the_padding_are_no_tokens(folder: Path) -> None:
    file = folder / "model.onnx"
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 66, "pad_token_id": 1}
    for kind, limit in (("bert", 66), ("roberta", 64)):
        (folder / "config.json").write_text(json.dumps(config | {"model_type": kind}))
        assert read_ready_graph(file, str(folder)).max_tokens == limit


def changed(file: Path, old: str, new: str) -> None:
    """Give an input or output another name."""
    proto = onnx.load(file)
    for node in proto.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = new if name == old else name
    for value in (*proto.graph.input, *proto.graph.output):
        value.name = new if value.name == old else value.name
    onnx.save(proto, file)


def refused(folder: Path) -> str:
    file = graph_file(str(folder))
    assert file is not None
    with pytest.raises(ModelError) as caught:
        read_ready_graph(file, str(folder))
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("logits", "last_hidden_state", "gives last_hidden_state, not logits; export it for text-classification"),
        ("attention_mask", "mask", "a teacher takes input_ids, attention_mask, token_type_ids"),
        ("input_ids", "pixel_values", "takes pixel_values, attention_mask, token_type_ids; a teacher takes"),
    ],
)
def test_other_names_are_refused(folder: Path, old: str, new: str, message: str) -> None:
    changed(folder / "model.onnx", old, new)
    assert message in refused(folder)


def test_another_number_of_labels_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    names = {str(place): name for place, name in enumerate(("a", "b", "c"))}
    (folder / "config.json").write_text(json.dumps(config | {"id2label": names, "label2id": {}}))
    assert "3 labels in config.json" in refused(folder)


def test_an_input_of_another_kind_is_refused(folder: Path) -> None:
    proto = onnx.load(folder / "model.onnx")
    proto.graph.ClearField("node")
    proto.graph.ClearField("input")
    for name in TRANSFORMER_INPUTS:
        proto.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 2]))
    proto.graph.node.append(helper.make_node("Identity", ["input_ids"], ["logits"]))
    onnx.save(proto, folder / "model.onnx")
    assert "tensor(float)" in refused(folder)


def test_what_is_no_graph_is_refused(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"\xff" * 100)
    assert "not an ONNX file" in refused(folder)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_what_is_missing_is_named(folder: Path, missing: str) -> None:
    for file in folder.glob(f"{missing.removesuffix('.json')}*"):
        file.unlink()
    assert str(folder) in refused(folder)
