"""What a fine-tuned teacher knows, without its weights: its task and its labels; and whether these are the data's."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from export.errors import ModelError, few
from export.networks.pretrained import knows_a_task, labels_of, load_config, task_of
from export.survey import Survey
from export.teachers.served import is_bundle
from service.bundle.manifest import Task
from service.bundle.store import read_manifest


class Known(NamedTuple):
    """What a teacher says of itself."""

    task: Task
    labels: tuple[str, ...]  # in the order of its logits


def known(model: str) -> Known:
    """Of a bundle, a hub id or a folder. Raises ModelError, BundleError."""
    if is_bundle(model):
        manifest = read_manifest(Path(model))
        return Known(manifest.task, manifest.labels)
    config = load_config(model)
    if not knows_a_task(config):
        raise ModelError(f"--fine-tuned {model}: is no fine-tuned classifier; --teacher names an encoder to fine-tune")
    return Known(task_of(config), labels_of(config))


def knows_no_task(model: str) -> bool:
    """Is it an encoder, or one with the head of a language model? Raises ModelError."""
    return not is_bundle(model) and not knows_a_task(load_config(model))


def renamed(model: str, labels: Sequence[str], rename: Mapping[str, str]) -> tuple[str, ...]:
    """A teacher's labels by other names. Raises ModelError for a name that it doesn't have, or two that become one."""
    for name in rename:
        if name not in labels:
            raise ModelError(f"rename: teacher {model} knows no label {name!r}; it knows {few(labels)}")
    found = tuple(rename.get(label, label) for label in labels)
    if len(set(found)) < len(found):
        raise ModelError(f"rename: two labels of teacher {model} would have one name; give each its own")
    return found


def as_known(seen: Survey, model: str, rename: Mapping[str, str]) -> Survey:
    """Labelled rows with the labels of a teacher that knows their task, in its order; it may know some that no row has.

    Raises ModelError where it knows another task, or not all of the labels.
    """
    task, labels = known(model)
    if task is not seen.task:
        raise ModelError(f"--fine-tuned {model}: does {task}; {seen.source} has labels of {seen.task} (see --task)")
    theirs = renamed(model, labels, rename)
    counts = dict(zip(seen.labels, seen.counts, strict=False))
    by_number = {str(place): label for place, label in enumerate(theirs)}
    if not set(seen.labels) <= set(theirs) and set(seen.labels) <= set(by_number):  # rows count them, from 0
        counts = {by_number[number]: rows for number, rows in counts.items()}
    elif strange := [label for label in seen.labels if label not in theirs]:
        missing = [label for label in theirs if label not in seen.labels]
        hint = f"; where one is called otherwise, say so: --rename {missing[0]}={strange[0]}" if missing else ""
        raise ModelError(f"--fine-tuned {model}: knows {few(theirs)}, and not {few(strange)} of {seen.source}{hint}")
    found = tuple(counts.get(label, 0) for label in theirs) if seen.counts else ()
    return replace(seen, labels=theirs, counts=found)


def check_labels(model: str, theirs: Sequence[str], ours: Sequence[str]) -> None:
    """Raises ModelError where a recipe's labels are not its teacher's, in the order of its logits."""
    if tuple(theirs) == tuple(ours):
        return
    if set(theirs) == set(ours):
        raise ModelError(f"data.labels: teacher {model} has them in another order, {few(theirs)}; write this order")
    strange = [label for label in ours if label not in theirs]
    missing = [label for label in theirs if label not in ours]
    what = [f"data.labels says {few(strange)}, which it does not know"] if strange else []
    what += [f"it knows {few(missing)}, which data.labels does not say"] if missing else []
    if strange and missing:
        what.append(f'where one is called otherwise, say so: teacher.rename."{missing[0]}" = "{strange[0]}"')
    raise ModelError(f"teacher {model}: {'; '.join(what)}")
