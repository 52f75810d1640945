"""Small real bundles without training: random networks, a tokenizer of a few words, and proofs that hold.

Biases are never zero: with zero biases a graph that ignores its lengths can look right.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from service.bundle.encoder import Encoder, Text
from service.bundle.manifest import (
    EDGES,
    INPUTS,
    OF_PIECES,
    OUTPUT,
    RECURRENT_INPUTS,
    SIAMESE_INPUTS,
    TOKENIZER_FILE,
    TRANSFORMER_INPUTS,
    Graph,
    Lineage,
    Manifest,
    Measured,
    Network,
    Precision,
    Proof,
    Role,
    Task,
)
from service.bundle.runtime import of_texts, open_graph
from service.bundle.store import digests, write_bundle

NETWORK = {Role.STUDENT: Network.RECURRENT, Role.TEACHER: Network.TRANSFORMER}
"""What toys of a role are."""

LABELS = ("bad", 'so "so"', "gut ✓")
TAGS = ("O", "B-PER", "I-PER", 'B-"so"', 'I-"so"')
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = ("a", "the", "film", "is", "was", "good", "bad", "dull", "bright", "very", "not", "and", "but", "too")
MORE = ("long", "short", ",", ".", "!", "?", "##ly", "##er", "##est", "##s", "##ness")
VOCABULARY = {word: index for index, word in enumerate((*SPECIAL, *WORDS, *MORE))}
PROOF_TEXTS = ("", "good", "a very dull film .", "the film is not bad , but it is too long and too dull !")
PROOF_PAIRS = (("", ""), ("good", "a film"), ("a very dull film .", "good"), (PROOF_TEXTS[3], PROOF_TEXTS[2]))
MAX_TOKENS = 48
TOLERANCE = 1e-5
EMBEDDING, HIDDEN = 8, 6
OPSET, IR = 17, 9  # versions that every ONNX Runtime of the last years reads

_SHAPES = {"input_ids": ("B", "T"), "lengths": ("B",), "pair_ids": ("B", "U"), "pair_lengths": ("B",)}

Weights = dict[str, NDArray[np.generic]]


def tokenizer(*, special: bool) -> bytes:
    """A WordPiece tokenizer; the teacher's adds [CLS] and [SEP]."""
    built = Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]"))
    built.normalizer = normalizers.BertNormalizer()
    built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if special:
        ends = [(token, VOCABULARY[token]) for token in ("[CLS]", "[SEP]")]
        built.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
        )
    return built.to_str().encode()


def student_graph(seed: int = 1, *, width: int = len(LABELS), minds_lengths: bool = True) -> bytes:
    """Gather -> bidirectional LSTM -> last states -> Gemm -> Relu -> Gemm."""
    rng = np.random.default_rng(seed)
    weights = _lstm_weights(rng) | _head_weights(rng, 2 * HIDDEN, width)
    nodes = [*_tower_nodes("input_ids", "lengths", "pooled", minds_lengths=minds_lengths), *_head_nodes("Relu")]
    return _serialise(nodes, weights, {name: _SHAPES[name] for name in RECURRENT_INPUTS}, width)


def tagger_graph(seed: int = 22, *, width: int = len(TAGS), minds_lengths: bool = True) -> bytes:
    """The same LSTM -> its states at each piece -> Gemm -> Relu -> Gemm for each."""
    rng = np.random.default_rng(seed)
    weights = _lstm_weights(rng) | _head_weights(rng, 2 * HIDDEN, width)
    weights["side_by_side"] = np.array([0, 0, -1], np.int64)
    nodes = [
        *_tower_nodes("input_ids", "lengths", "last", minds_lengths=minds_lengths, states="states"),
        helper.make_node("Transpose", ["states"], ["by_row"], perm=[2, 0, 1, 3]),  # (T, 2, B, H) -> (B, T, 2, H)
        helper.make_node("Reshape", ["by_row", "side_by_side"], ["pooled"]),  # -> (B, T, 2H)
        *_head_nodes("Relu", of_pieces=True),
    ]
    return _serialise(nodes, weights, {name: _SHAPES[name] for name in RECURRENT_INPUTS}, width, of_pieces=True)


def siamese_graph(seed: int = 3, *, width: int = len(LABELS)) -> bytes:
    """The same LSTM over both texts -> their states side by side -> Gemm -> Relu -> Gemm."""
    rng = np.random.default_rng(seed)
    weights = _lstm_weights(rng) | _head_weights(rng, 4 * HIDDEN, width)
    nodes = [
        *_tower_nodes("input_ids", "lengths", "first"),
        *_tower_nodes("pair_ids", "pair_lengths", "second"),
        helper.make_node("Concat", ["first", "second"], ["pooled"], axis=1),  # -> (B, 4H)
        *_head_nodes("Relu"),
    ]
    return _serialise(nodes, weights, {name: _SHAPES[name] for name in SIAMESE_INPUTS}, width)


def teacher_graph(seed: int = 2, *, width: int = len(LABELS), of_pieces: bool = False) -> bytes:
    """The inputs of a BERT, and the mean of the embeddings under the mask -> Gemm -> Tanh -> Gemm.

    A tagger adds the mean to the embedding of each piece.
    """
    rng = np.random.default_rng(seed)
    weights = _head_weights(rng, EMBEDDING, width)
    weights["table"] = _random(rng, len(VOCABULARY), EMBEDDING)
    weights["types"] = _random(rng, 2, EMBEDDING)
    weights["last_axis"], weights["time"] = np.array([2], np.int64), np.array([1], np.int64)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),  # (B, T) -> (B, T, E)
        helper.make_node("Gather", ["types", "token_type_ids"], ["kinds"]),
        helper.make_node("Add", ["words", "kinds"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last_axis"], ["mask_of_each"]),  # (B, T) -> (B, T, 1)
        helper.make_node("Mul", ["embedded", "mask_of_each"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "time"], ["total"], keepdims=int(of_pieces)),  # -> (B, E), or (B, 1, E)
        helper.make_node("ReduceSum", ["mask_of_each", "time"], ["count"], keepdims=int(of_pieces)),  # -> (B, 1)
        helper.make_node("Div", ["total", "count"], ["mean" if of_pieces else "pooled"]),
        *([helper.make_node("Add", ["embedded", "mean"], ["pooled"])] if of_pieces else []),  # -> (B, T, E)
        *_head_nodes("Tanh", of_pieces=of_pieces),
    ]
    shapes: dict[str, tuple[str, ...]] = dict.fromkeys(TRANSFORMER_INPUTS, ("B", "T"))
    return _serialise(nodes, weights, shapes, width, of_pieces=of_pieces)


def tagger_files(*, width: int = len(TAGS), minds_lengths: bool = True) -> dict[str, bytes]:
    """A student that tags each piece."""
    exact = tagger_graph(width=width, minds_lengths=minds_lengths)
    return {TOKENIZER_FILE: tokenizer(special=False), "model.onnx": exact, "model_quantized.onnx": rounded(exact)}


def student_files(*, width: int = len(LABELS), pairs: bool = False, minds_lengths: bool = True) -> dict[str, bytes]:
    """A student with an exact graph and a slightly different fast one."""
    exact = siamese_graph(width=width) if pairs else student_graph(width=width, minds_lengths=minds_lengths)
    return {TOKENIZER_FILE: tokenizer(special=False), "model.onnx": exact, "model_quantized.onnx": rounded(exact)}


def teacher_files(*, width: int = len(LABELS), of_pieces: bool = False) -> dict[str, bytes]:
    """A teacher, which has an exact graph only; it reads texts and pairs, or tags the pieces of a text."""
    seed = 38 if of_pieces else 2  # these taggers find a few entities of each label
    graph = teacher_graph(seed, width=width, of_pieces=of_pieces)
    return {TOKENIZER_FILE: tokenizer(special=True), "model.onnx": graph}


def rounded(graph: bytes) -> bytes:
    """The same graph with coarse weights: a stand-in for a quantised one, with logits of its own."""
    model = onnx.load_from_string(graph)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(np.round(values, 2), tensor.name))
    content: bytes = model.SerializeToString()
    return content


def draft(
    name: str,
    version: str,
    role: Role,
    files: Mapping[str, bytes],
    texts: Sequence[Text] = PROOF_TEXTS,
    *,
    task: Task = Task.SINGLE_LABEL,
    labels: Sequence[str] = LABELS,
) -> Manifest:
    """A manifest that is true of these files; its proof holds where each text or pair was run alone."""
    names = {Precision.EXACT: "model.onnx", Precision.FAST: "model_quantized.onnx"}
    graphs = {precision: file for precision, file in names.items() if file in files}
    pairs = not isinstance(texts[0], str)
    reader = encoder(role, files[TOKENIZER_FILE], pairs=pairs, spanned=task in OF_PIECES)
    proof = {precision: _alone(reader, files[file], texts) for precision, file in graphs.items()}
    return Manifest(
        format=1,
        name=name,
        version=version,
        role=role,
        task=task,
        labels=tuple(labels),
        texts=reader.texts,
        inputs=INPUTS[NETWORK[role], reader.texts],
        max_tokens=MAX_TOKENS,
        pad_id=VOCABULARY["[PAD]"],
        graphs={precision: _declared(file) for precision, file in graphs.items()},
        files=digests(files),
        lineage=_lineage(role),
        results=(Measured(what="toy, exact", dataset="toy", split="dev", rows=4, metric="accuracy", value=0.5),),
        proof=Proof(texts=tuple(texts), logits=proof),
    )


def _declared(file: str) -> Graph:
    return Graph(file=file, parity=0, wander=0, flips=0, tolerance=TOLERANCE)


def _lineage(role: Role) -> Lineage:
    teacher = None if role is Role.TEACHER else "toy-teacher@1"
    return Lineage(teacher=teacher, method="random weights", recipe="seed = 1\n", versions={"numpy": np.__version__})


def publish(
    models_folder: Path,
    name: str,
    version: str,
    role: Role,
    *,
    task: Task = Task.SINGLE_LABEL,
    labels: Sequence[str] = LABELS,
    pairs: bool = False,
) -> Path:
    """Write a toy bundle into a folder of models."""
    width, texts, tags = len(labels), PROOF_PAIRS if pairs else PROOF_TEXTS, task in OF_PIECES
    if role is Role.TEACHER:
        files = teacher_files(width=width, of_pieces=tags)
    else:
        files = tagger_files(width=width) if tags else student_files(width=width, pairs=pairs)
    folder = models_folder / name / version
    write_bundle(folder, draft(name, version, role, files, texts, task=task, labels=labels), files, card="# A toy\n")
    return folder


def publish_zoo(models_folder: Path) -> None:
    """A toy of each task and of each kind of pair; `toy` is the default, in two versions, with a teacher."""
    publish(models_folder, "toy", "1", Role.STUDENT)
    publish(models_folder, "toy", "2", Role.STUDENT, labels=LABELS[:2])
    publish(models_folder, "toy-teacher", "1", Role.TEACHER, labels=LABELS[:2])
    publish(
        models_folder, "tags", "1", Role.STUDENT, task=Task.MULTI_LABEL, labels=("red", 'very "red"', "green ✓", "blue")
    )
    publish(models_folder, "stars", "1", Role.TEACHER, task=Task.REGRESSION, labels=("score",))
    publish(models_folder, "same", "1", Role.TEACHER, pairs=True)
    publish(models_folder, "vectors", "1", Role.STUDENT, task=Task.EMBEDDING, labels=("0", "1", "2", "3", "4"))
    publish(models_folder, "asks", "1", Role.TEACHER, task=Task.ANSWERING, labels=EDGES, pairs=True)
    publish(models_folder, "twins", "1", Role.STUDENT, task=Task.REGRESSION, labels=("near", "far"), pairs=True)


def encoder(
    role: Role, content: bytes, *, pairs: bool = False, max_tokens: int = MAX_TOKENS, spanned: bool = False
) -> Encoder:
    """The encoder that a server would open for these bytes."""
    texts = 2 if pairs else 1
    return Encoder(
        Tokenizer.from_str(content.decode()),
        inputs=INPUTS[NETWORK[role], texts],
        max_tokens=max_tokens,
        pad_id=VOCABULARY["[PAD]"],
        texts=texts,
        spanned=spanned,
    )


def _alone(reader: Encoder, graph: bytes, texts: Sequence[Text]) -> tuple[tuple[float, ...], ...]:
    opened = open_graph(graph)
    read = reader.encode(texts)
    rows = [opened.run(reader.collate([row]))[0] for row in read]
    if rows[0].ndim == 2:  # of a tagger: a row's own logits alone, and an empty one has none
        rows = [logits[: len(row)] for row, logits in zip(read, rows, strict=True)]
    return tuple(tuple(each.tolist()) for each in of_texts(read, [row.ravel() for row in rows]))


def _random(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.normal(0, 0.7, shape).astype(np.float32)


def _lstm_weights(rng: np.random.Generator) -> Weights:
    return {
        "table": _random(rng, len(VOCABULARY), EMBEDDING),
        "w": _random(rng, 2, 4 * HIDDEN, EMBEDDING),
        "r": _random(rng, 2, 4 * HIDDEN, HIDDEN),
        "b": _random(rng, 2, 8 * HIDDEN),
        "flat": np.array([0, -1], np.int64),
    }


def _head_weights(rng: np.random.Generator, pooled: int, width: int) -> Weights:
    return {
        "dense": _random(rng, pooled, HIDDEN),
        "dense_bias": _random(rng, HIDDEN),
        "out": _random(rng, HIDDEN, width) * np.float32(2),
        "out_bias": _random(rng, width),
    }


def _tower_nodes(
    ids: str, lengths: str, pooled: str, *, minds_lengths: bool = True, states: str = ""
) -> list[onnx.NodeProto]:
    """Ids (B, T) and lengths (B,) -> the last states of both directions (B, 2H), and all states (T, 2, B, H)."""

    def own(name: str) -> str:
        return f"{pooled}_{name}"

    return [
        helper.make_node("Gather", ["table", ids], [own("embedded")]),  # (B, T) -> (B, T, E)
        helper.make_node("Transpose", [own("embedded")], [own("in_time")], perm=[1, 0, 2]),  # -> (T, B, E)
        helper.make_node("Cast", [lengths], [own("steps")], to=TensorProto.INT32),
        helper.make_node(
            "LSTM",
            [own("in_time"), "w", "r", "b", own("steps") if minds_lengths else ""],
            [states, own("last")],
            hidden_size=HIDDEN,
            direction="bidirectional",
        ),
        helper.make_node("Transpose", [own("last")], [own("by_row")], perm=[1, 0, 2]),  # (2, B, H) -> (B, 2, H)
        helper.make_node("Reshape", [own("by_row"), "flat"], [pooled]),  # -> (B, 2H)
    ]


def _head_nodes(activation: str, *, of_pieces: bool = False) -> list[onnx.NodeProto]:
    if of_pieces:  # (B, T, H) -> (B, T, L)
        return [
            helper.make_node("MatMul", ["pooled", "dense"], ["dense_only"]),
            helper.make_node("Add", ["dense_only", "dense_bias"], ["hidden"]),
            helper.make_node(activation, ["hidden"], ["active"]),
            helper.make_node("MatMul", ["active", "out"], ["out_only"]),
            helper.make_node("Add", ["out_only", "out_bias"], [OUTPUT]),
        ]
    return [
        helper.make_node("Gemm", ["pooled", "dense", "dense_bias"], ["hidden"]),
        helper.make_node(activation, ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "out", "out_bias"], [OUTPUT]),  # -> (B, L)
    ]


def _serialise(
    nodes: list[onnx.NodeProto],
    weights: Weights,
    inputs: Mapping[str, tuple[str, ...]],
    width: int,
    *,
    of_pieces: bool = False,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ("B", *("T",) * of_pieces, width))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
