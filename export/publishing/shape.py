"""A BERT classifier of a given shape with random weights: useless, but as slow as a trained one of that shape.

It needs no download and no data: the tokenizer, the labels and the length come from a bundle that is there.
"""

from pathlib import Path

import tomli_w
import torch
from transformers import BertConfig, BertForSequenceClassification

from export.errors import ModelError
from export.graphs.to_onnx import teacher_graph
from export.networks.shapes import BertShape, parse_shape
from export.publishing.publish import PROOF_TEXTS, Reads, Reference, Trained, encoder_of, free_place, publish, versions
from export.tasks.metrics import Logits
from service.bundle.encoder import Encoder
from service.bundle.manifest import TOKENIZER_FILE, UNTRAINED, Lineage, Network, Precision, Role, Task
from service.bundle.store import read_manifest, verify

SEED = 0
LARGEST = 500_000_000
"""Weights: more than that is no ONNX file, which ends at 2 GB."""

PROOF = "the texts of its proof"


def shape_bundle(text: str, like: Path, version: int, models: Path, command: str) -> Path:
    """Publish `random-<shape>`, with all but the network taken from the teacher bundle `like`; returns its folder.

    Raises ModelError, BundleError.
    """
    shape, name = parse_shape(text), f"random-{text}"
    free_place(models, name, version)
    around = read_manifest(like)
    if around.role is not Role.TEACHER or around.task is not Task.SINGLE_LABEL or around.texts != 1:
        raise ModelError(f"--like {like}: is no teacher of single labels of single texts; name the bundle of one")
    verify(like, around)
    tokenizer = (like / TOKENIZER_FILE).read_text(encoding="utf-8")
    encoder = encoder_of(tokenizer, Reads(Network.TRANSFORMER), around.max_tokens, around.pad_id)
    model = random_bert(shape, _pieces(tokenizer), around.max_tokens, len(around.labels))
    trained = Trained(
        name=name,
        version=version,
        role=Role.TEACHER,
        network=Network.TRANSFORMER,
        task=Task.SINGLE_LABEL,
        labels=around.labels,
        texts=1,
        tokenizer_json=tokenizer,
        max_tokens=around.max_tokens,
        pad_id=around.pad_id,
        graphs={Precision.EXACT: teacher_graph(model)},
        lineage=Lineage(
            teacher=None,
            method=UNTRAINED,
            recipe=tomli_w.dumps({"shape": vars(shape), "like": around.name, "seed": SEED}),
            versions=versions(),
        ),
    )
    reference = Reference(PROOF, PROOF_TEXTS, None, _torch_logits(model, encoder), None)
    return publish(trained, reference, models, command)


def random_bert(shape: BertShape, pieces: int, max_tokens: int, labels: int) -> BertForSequenceClassification:
    """As BERT is initialised before it learns anything. Raises ModelError for one that no ONNX file holds."""
    weights = shape.hidden * (pieces + max_tokens + shape.layers * (4 * shape.hidden + 2 * shape.intermediate))
    if weights > LARGEST:
        raise ModelError(f"a shape of some {weights:,} weights: at most {LARGEST:,} fit into a bundle")
    config = BertConfig(
        vocab_size=pieces,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=max(512, max_tokens),
    )
    config.num_labels = labels
    torch.manual_seed(SEED)
    model = BertForSequenceClassification(config)
    model.eval()
    return model


@torch.inference_mode()
def _torch_logits(model: BertForSequenceClassification, encoder: Encoder) -> Logits:
    """Of each text of the proof alone, (N, L)."""
    rows = encoder.encode(PROOF_TEXTS)
    return torch.cat([model(input_ids=torch.tensor([row])).logits for row in rows]).numpy()


def _pieces(tokenizer: str) -> int:
    """Ids that the tokenizer may give."""
    from tokenizers import Tokenizer

    return int(Tokenizer.from_str(tokenizer).get_vocab_size())
