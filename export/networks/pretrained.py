"""Hugging Face models and tokenizers as they lie on the hub or in a folder: loading them, and what they say themselves.

Whatever can't be loaded is a ModelError of one line. This module knows nothing of training or of texts.
"""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging

from export.errors import ModelError, first_line
from service.bundle.manifest import EDGES, Task

RECIPE = "recipe.toml"
"""What `teach` writes beside a model."""

SHORT = 128
"""Tokens that a teacher reads unless told otherwise: its users' texts are short."""

BEHIND_PADDING = frozenset(
    {
        "camembert",
        "data2vec-text",
        "ibert",
        "longformer",
        "luke",
        "markuplm",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Kinds of models whose first token has the position behind the padding's: of 514 positions they read 512 tokens."""


def load_tokenizer(source: str) -> PreTrainedTokenizerFast:
    """The teacher's fast tokenizer, from a hub id or a folder. Raises ModelError."""
    tokenizer: PreTrainedTokenizerFast = load(AutoTokenizer, source)
    if len(tokenizer) <= len(
        tokenizer.all_special_ids
    ):  # transformers makes up an empty one where the files are missing
        raise ModelError(f"teacher {source}: has no tokenizer; give a folder with tokenizer.json")
    return tokenizer


def load_network(kind: Any, source: str, **options: Any) -> Any:
    """In fp32, whatever the file holds: training in bare bfloat16 loses small steps."""
    return load(kind, source, dtype=torch.float32, **options)


def load_config(source: str) -> Any:
    """A model's configuration, which has fields of its own. Raises ModelError."""
    return load(AutoConfig, source)


def load(kind: Any, source: str, **options: Any) -> Any:
    """Of this kind, without the library's own messages. Raises ModelError."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what is wrong is raised; and a new head is no surprise
    logging.set_tqdm_hook(_no_bar)  # for reading a file; downloads have bars of their own
    try:
        return kind.from_pretrained(source, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"teacher {source}: {first_line(error)}; give a hub id or a folder with config.json"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        logging.set_tqdm_hook(None)


def _no_bar(bar: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return bar(*args, **(options | {"disable": True}))


def readable(config: Any, source: str) -> int:
    """So many tokens as it was taught with; of one that we have not taught SHORT, where it could read more."""
    taught = _taught_tokens(Path(source, RECIPE))
    return taught or min(SHORT, limit_of(config) or SHORT)


def _taught_tokens(recipe: Path) -> int | None:
    if not recipe.is_file():
        return None
    try:
        return int(tomllib.loads(recipe.read_text(encoding="utf-8"))["teacher"]["max_tokens"])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError):
        return None  # somebody else's file


def check_limit(config: Any, source: str, max_tokens: int) -> None:
    """Raises ModelError where a model reads fewer tokens."""
    limit = limit_of(config)
    if limit is not None and max_tokens > limit:
        raise ModelError(f"teacher {source}: reads at most {limit} tokens; set teacher.max_tokens = {limit} or less")


def limit_of(config: Any) -> int | None:
    """Tokens that a model has positions for; None where it needs none."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return None
    return int(positions) - (config.pad_token_id + 1 if config.model_type in BEHIND_PADDING else 0)


def labels_of(config: Any) -> tuple[str, ...]:
    """The labels in the order of the logits."""
    if task_of(config) is Task.ANSWERING:
        return EDGES
    names: dict[int, str] = config.id2label
    return tuple(names[i] for i in sorted(names))


def task_of(config: Any) -> Task:
    """What a classifier's logits mean, as transformers' own pipelines read its configuration."""
    if any(name.endswith("ForTokenClassification") for name in config.architectures or ()):
        return Task.TAGGING
    if any(name.endswith("ForQuestionAnswering") for name in config.architectures or ()):
        return Task.ANSWERING
    if config.problem_type == "regression":
        return Task.REGRESSION
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return Task.MULTI_LABEL
    return Task.SINGLE_LABEL


def knows_a_task(config: Any) -> bool:
    """Was it fine-tuned as a classifier, a tagger or a reader?"""
    heads = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
    return any(name.endswith(heads) for name in config.architectures or ())


def plain_tokenizer_json(tokenizer: PreTrainedTokenizerFast) -> str:
    """The tokenizer without padding and truncation, which each call of it leaves set.

    Where transformers gives its model no token types, both texts of a pair are of one type here too.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    if "token_type_ids" not in tokenizer.model_input_names:
        content["post_processor"] = _of_one_type(content["post_processor"])
    return json.dumps(content | {"truncation": None, "padding": None}, ensure_ascii=False)


def _of_one_type(described: Any) -> Any:
    """A post-processor, as its JSON has it, with every `type_id` 0."""
    match described:
        case dict():
            return {name: 0 if name == "type_id" else _of_one_type(value) for name, value in described.items()}
        case list():
            return list(map(_of_one_type, described))
        case _:
            return described
