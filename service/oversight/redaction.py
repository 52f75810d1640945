"""What is taken out of texts before they are kept: built-in redactors, and those of whoever runs the service.

It knows texts only. A redactor that fails is the caller's business, who must not keep the text then.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from types import MappingProxyType

from service.settings import SettingProblem

Redactor = Callable[[str], str]

# Each is linear in the text: a match begins where a run of its signs begins, so that no run is looked at twice.
_EMAIL = re.compile(r"(?<![^\s@<>\"(),:;])[^\s@<>\"(),:;]+@[^\s@<>\"(),:;]+")
_URL = re.compile(r"\b(?:https?://|www\.)[^\s<>\"]+", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:[ .,/:-]?\d+)*")


def _replace(found: re.Pattern[str], word: str, text: str) -> str:
    return found.sub(word, text)


BUILT_IN: MappingProxyType[str, Redactor] = MappingProxyType(
    {
        "emails": partial(_replace, _EMAIL, "EMAIL"),
        "urls": partial(_replace, _URL, "URL"),
        "numbers": partial(_replace, _NUMBER, "0"),
    }
)
"""Word in the setting -> what it does. The words that are put in are ones that models can read."""


class NotRedacted(Exception):
    """A redactor failed; the text must not be kept. The message says nothing of the text."""


class Redaction:
    """Some redactors, one after the other."""

    def __init__(self, names: Sequence[str]) -> None:
        """Raises SettingProblem for one that there is not."""
        self._redactors = [_found(name) for name in names]

    def __call__(self, text: str) -> str:
        """Raises NotRedacted."""
        for redact in self._redactors:
            try:
                text = redact(text)
                text.encode()
            except Exception:
                raise NotRedacted("a redactor failed") from None  # the cause may hold the text
        return text


def _found(name: str) -> Redactor:
    if name in BUILT_IN:
        return BUILT_IN[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise SettingProblem(
            f"--capture-redact: no redactor {name}; there are {', '.join(BUILT_IN)}, or name yours as module:function"
        )
    try:
        found = getattr(import_module(module), function)
    except Exception as error:  # whatever their module does when it is imported
        problem = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise SettingProblem(
            f"--capture-redact: {name} cannot be imported ({problem}); mend it, or take it out"
        ) from error
    if not callable(found):
        raise SettingProblem(f"--capture-redact: {name} is not a function; name one that takes a text and gives one")
    redactor: Redactor = found
    return redactor
