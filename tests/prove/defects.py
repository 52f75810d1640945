"""A hundred ways for a bundle to be bad. Each takes a good one in its folder, and spoils it.

It knows bundles and files. Whoever drops the folder into a server's models knows nothing of what is wrong with it.
"""

import json
import os
import random
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from service.bundle.manifest import OUTPUT, TOKENIZER_FILE
from service.bundle.seal import MANIFEST_FILE
from tests.prove.editions import GRAPH_FILE
from tests.service.bundle.spoiling import edit, replace

FILES = (MANIFEST_FILE, TOKENIZER_FILE, GRAPH_FILE)


@dataclass(frozen=True, slots=True)
class Scene:
    """A good bundle, a folder elsewhere that holds a `good` bundle and a file `secret`, and luck."""

    folder: Path
    outside: Path
    chance: random.Random


class CannotSpoil(Exception):
    """This machine does not let us; the message says why."""


Spoil = Callable[[Scene], None]


def truncated(scene: Scene) -> None:
    path = scene.folder / scene.chance.choice(FILES)
    content = path.read_bytes()
    path.write_bytes(content[: scene.chance.randrange(len(content) - 1)])


def flipped_graph(scene: Scene) -> None:
    _flip(scene, GRAPH_FILE)


def flipped_tokenizer(scene: Scene) -> None:
    _flip(scene, TOKENIZER_FILE)


def flipped_digest(scene: Scene) -> None:
    """Where a digest of another file stands."""
    path = scene.folder / MANIFEST_FILE
    content = bytearray(path.read_bytes())
    digest = json.loads(content)["files"][scene.chance.choice((TOKENIZER_FILE, GRAPH_FILE))]
    content[content.index(digest.encode()) + scene.chance.randrange(64)] ^= 1 << scene.chance.randrange(8)
    path.write_bytes(content)


def flipped_manifest(scene: Scene) -> None:
    """Anywhere, as long as it says something else: a flipped bit in the last digit of a number may not."""
    path = scene.folder / MANIFEST_FILE
    content = path.read_bytes()
    while _says_the_same(content, path.read_bytes()):
        path.write_bytes(content)
        _flip(scene, MANIFEST_FILE)


def wrong_digest(scene: Scene) -> None:
    name = scene.chance.choice((TOKENIZER_FILE, GRAPH_FILE))
    digest = scene.chance.randbytes(32).hex()
    edit(scene.folder, lambda manifest: manifest["files"].update({name: digest}))


def stranger(scene: Scene) -> None:
    (scene.folder / scene.chance.choice(("weights.bin", ".hidden", "model.py", "a b"))).write_bytes(b"?")


def file_lost(scene: Scene) -> None:
    (scene.folder / scene.chance.choice(FILES)).unlink()


def linked(scene: Scene) -> None:
    """A link to a file with the very content that belongs here."""
    name = scene.chance.choice(FILES)
    shutil.move(scene.folder / name, scene.outside / f"{scene.folder.name}-{name}")
    (scene.folder / name).symlink_to(scene.outside / f"{scene.folder.name}-{name}")


def hard_linked(scene: Scene) -> None:
    path = scene.folder / scene.chance.choice(FILES)
    path.unlink()
    path.hardlink_to(scene.outside / "secret")


def folder_inside(scene: Scene) -> None:
    path = scene.folder / scene.chance.choice((GRAPH_FILE, "more"))
    path.unlink(missing_ok=True)
    path.mkdir()


def pipe_inside(scene: Scene) -> None:
    """Whoever opens one to read waits for ever."""
    path = scene.folder / scene.chance.choice((*FILES, "pipe"))
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def socket_inside(scene: Scene) -> None:
    path = scene.folder / TOKENIZER_FILE
    path.unlink()
    here = os.open(scene.folder, os.O_RDONLY)
    try:  # a socket's path may be 100 bytes long
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(f"/proc/self/fd/{here}/{path.name}")
    except OSError as error:
        raise CannotSpoil(f"no socket can be made there ({error.strerror})") from error
    finally:
        os.close(here)


def data_outside(scene: Scene) -> None:
    """Weights in another file, whose place the graph names; the graph's own digest is right."""
    graph = onnx.load(scene.folder / GRAPH_FILE)
    place = scene.chance.choice((str(scene.outside / "secret"), "../../../outside/secret", "secret", TOKENIZER_FILE))
    if place == "secret":
        (scene.folder / "secret").hardlink_to(scene.outside / "secret")
    tensor = max(graph.graph.initializer, key=lambda each: len(each.raw_data))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    replace(scene.folder, GRAPH_FILE, graph.SerializeToString())


def traversal(scene: Scene) -> None:
    change = scene.chance.choice(
        (
            lambda m: m.update(name="../outside"),
            lambda m: m.update(version="../1"),
            lambda m: m["graphs"]["exact"].update(file="../../../outside/secret"),
            lambda m: m["files"].update({"../../../outside/secret": "0" * 64}),
            lambda m: m["files"].update({str(scene.outside / "secret"): "0" * 64}),
        )
    )
    edit(scene.folder, change)


def wrong_labels(scene: Scene) -> None:
    labels: list[str] = json.loads((scene.folder / MANIFEST_FILE).read_text())["labels"]
    twice, short = [labels[0]] * len(labels), labels[:-1]
    wrong: tuple[list[object], ...] = ([*labels, "more"], [*short], [*twice], [], [*short, 7], [*short, ""])
    _set(scene, labels=scene.chance.choice(wrong))


def labels_and_proof(scene: Scene) -> None:
    """One label more than the graph has, in the labels and in the proof."""

    def widen(manifest: dict[str, Any]) -> None:
        manifest["labels"].append("more")
        for rows in manifest["proof"]["logits"].values():
            for row in rows:
                row.append(0.0)

    edit(scene.folder, widen)


def wrong_inputs(scene: Scene) -> None:
    _set(scene, inputs=scene.chance.choice((["input_ids"], ["lengths", "input_ids"], ["a", "b"])))


def other_inputs(scene: Scene) -> None:
    """The graph has inputs that the manifest does not know."""
    graph = onnx.load(scene.folder / GRAPH_FILE)
    graph.graph.input.append(helper.make_tensor_value_info("more", TensorProto.INT64, ["B"]))
    replace(scene.folder, GRAPH_FILE, graph.SerializeToString())


def other_output(scene: Scene) -> None:
    graph = onnx.load(scene.folder / GRAPH_FILE)
    graph.graph.output[0].name = "scores"
    graph.graph.node.append(helper.make_node("Identity", [OUTPUT], ["scores"]))
    replace(scene.folder, GRAPH_FILE, graph.SerializeToString())


def false_proof(scene: Scene) -> None:
    def change(manifest: dict[str, Any]) -> None:
        rows = manifest["proof"]["logits"]["exact"]
        scene.chance.choice(rows)[0] += scene.chance.choice((-1, 1)) * 10 ** scene.chance.uniform(-2, 9)

    edit(scene.folder, change)


def other_weights(scene: Scene) -> None:
    """A whole graph that runs, with a right digest, but not the one whose logits are in the proof."""
    _last_layer(scene, lambda values: values + 0.1)


def not_numbers(scene: Scene) -> None:
    _last_layer(scene, lambda values: values * float("nan"))


def huge(scene: Scene) -> None:
    """Dimensions of a petabyte, and a few bytes of data."""
    graph = onnx.load(scene.folder / GRAPH_FILE)
    tensor = scene.chance.choice(graph.graph.initializer)
    tensor.dims[0] = 1 << scene.chance.choice((40, 50, 62))
    replace(scene.folder, GRAPH_FILE, graph.SerializeToString())


def no_graph(scene: Scene) -> None:
    replace(scene.folder, GRAPH_FILE, scene.chance.choice((b"", b"not a graph", scene.chance.randbytes(5000))))


def no_tokenizer(scene: Scene) -> None:
    replace(scene.folder, TOKENIZER_FILE, scene.chance.choice((b"", b"{}", b"[" * 100_000, b"\xff\x00")))


def unknown_format(scene: Scene) -> None:
    _set(scene, format=scene.chance.choice((0, 2, 10**30, "1", True, None, [1])))


def no_manifest(scene: Scene) -> None:
    wrong = (b"", b"[]", b"null", b'{"format": 1}', b"[" * 100_000, b"{" * 10, b'{"format": 1e999}', b"\xff")
    (scene.folder / MANIFEST_FILE).write_bytes(scene.chance.choice(wrong))


def unknown_field(scene: Scene) -> None:
    _set(scene, **{scene.chance.choice(("trust_remote_code", "url", "texts_")): True})


def another_place(scene: Scene) -> None:
    """A good bundle under a wrong name or version."""
    _set(scene, **scene.chance.choice(({"name": "another"}, {"version": "1"})))


def unreadable(scene: Scene) -> None:
    if os.geteuid() == 0:
        raise CannotSpoil("root can read everything")
    (scene.folder / scene.chance.choice(FILES)).chmod(0)


def linked_folder(scene: Scene) -> None:
    shutil.rmtree(scene.folder)
    scene.folder.symlink_to(scene.outside / "good")


def no_folder(scene: Scene) -> None:
    shutil.rmtree(scene.folder)
    scene.folder.write_bytes(b"not a folder")


def empty_folder(scene: Scene) -> None:
    shutil.rmtree(scene.folder)
    scene.folder.mkdir()


DEFECTS: tuple[Spoil, ...] = (
    truncated, flipped_graph, flipped_tokenizer, flipped_manifest, flipped_digest, wrong_digest, stranger, file_lost,
    linked, hard_linked, folder_inside, pipe_inside, socket_inside, data_outside, traversal, wrong_labels,
    labels_and_proof, wrong_inputs, other_inputs, other_output, false_proof, other_weights, not_numbers, huge,
    no_graph, no_tokenizer, unknown_format, no_manifest, unknown_field, another_place, unreadable, linked_folder,
    no_folder, empty_folder,
)  # fmt: skip


def _flip(scene: Scene, name: str) -> None:
    path = scene.folder / name
    content = bytearray(path.read_bytes())
    content[scene.chance.randrange(len(content))] ^= 1 << scene.chance.randrange(8)
    path.write_bytes(content)


def _says_the_same(good: bytes, other: bytes) -> bool:
    try:
        return bool(json.loads(good) == json.loads(other))
    except ValueError:
        return False


def _set(scene: Scene, **fields: Any) -> None:
    edit(scene.folder, lambda manifest: manifest.update(fields))


def _last_layer(scene: Scene, change: Callable[[Any], Any]) -> None:
    graph = onnx.load(scene.folder / GRAPH_FILE)
    last = next(node for node in graph.graph.node if OUTPUT in node.output)
    tensor = next(tensor for tensor in graph.graph.initializer if tensor.name == last.input[-1])
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(change(values).astype(values.dtype), tensor.name))
    replace(scene.folder, GRAPH_FILE, graph.SerializeToString())
