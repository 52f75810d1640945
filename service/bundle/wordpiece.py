"""Plain text -> token ids through a dictionary of words: what `tokenizers` would answer, several times sooner.

It knows which tokenizers read plain ASCII text word by word, and asks `tokenizers` for each word that it has not met.
It knows nothing of graphs and batches. What is not plain, or not known to be safe, it leaves to its caller.
"""

import json
import string
import sys
from array import array
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from typing import Self

from tokenizers import Tokenizer
from tokenizers.models import Model, WordLevel, WordPiece
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

# 250 bytes an entry at worst (a key of 24, 24 ids of 4 and what Python needs): 8 MB; English text fills some 5.
MOST_WORDS = 32_768
LONGEST_WORD = 24

ENOUGH = 8
"""So many characters for each token hold as many words, as a rule."""

NORMALIZERS = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents"}
"""Each turns an ASCII character into the same thing wherever it stands."""

PRE_TOKENIZERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
"""Each parts words at white space, whatever stands around it, and keeps a run of letters and digits whole."""

MODELS = (WordPiece, WordLevel)
"""Each reads every word by itself, and makes at least one token of it."""

WHITE = " \t\n\v\f\r"
BARRED = 0
"""What a character becomes that makes a text not plain."""


@dataclass(frozen=True, slots=True)
class Alphabet:
    """How a tokenizer reads each ASCII character."""

    fold: bytes
    """What each of the 256 bytes becomes: lower case, say, or BARRED."""

    apart: dict[int, tuple[bytes, bytes]]
    """The marks that are always a word of their own, and the same between two spaces."""

    quiet: bytes
    """All other bytes but BARRED."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, barred: set[str]) -> Self:
        """Ask the tokenizer's own normaliser and pre-tokeniser."""
        fold = bytearray(256)  # BARRED
        for plain in map(chr, range(1, 128)):
            read = tokenizer.normalizer.normalize_str(plain) if tokenizer.normalizer else plain
            if len(read) == 1 and barred.isdisjoint((plain, read)) and (read in WHITE or "!" <= read <= "~"):
                fold[ord(plain)] = ord(read)
        marks = [mark for mark in string.punctuation if _is_apart(tokenizer.pre_tokenizer, mark)]
        apart = {ord(mark): (mark.encode(), f" {mark} ".encode()) for mark in marks}
        return cls(bytes(fold), apart, bytes({*range(256)} - apart.keys() - {BARRED}))


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around the words of a text, and how many tokens have room between."""

    before: bytes
    after: bytes
    room: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self | None:
        """None if texts are padded, or cut otherwise than at their end."""
        limits = tokenizer.truncation
        usual = {"stride": 0, "strategy": "longest_first", "direction": "right"}
        if tokenizer.padding or (limits and limits != usual | {"max_length": limits["max_length"]}):
            return None
        ends, word = tokenizer.encode("").ids, tokenizer.encode("a", add_special_tokens=False).ids
        whole = tokenizer.encode("a").ids
        room = limits["max_length"] - len(ends) if limits else sys.maxsize // ENOUGH
        fits = [at for at in range(len(ends) + 1) if ends[:at] + word + ends[at:] == whole]
        if not fits or room < 1:
            return None
        return cls(_packed(ends[: fits[0]]), _packed(ends[fits[0] :]), room)


class Dictionary(dict[bytes, bytes]):
    """The words met so far with their ids, and asking for another learns it. Readers need no lock.

    Bytes, not lists of int: a third of the memory, and joined in one go.
    """

    def __init__(self, pre_tokenizer: PreTokenizer, model: Model, most_words: int) -> None:
        super().__init__()
        self._pre_tokenizer = pre_tokenizer
        self._model = model
        self._most_words = most_words
        self._lock = Lock()

    def __missing__(self, word: bytes) -> bytes:
        text = word.decode()
        parts = [text] if text.isalnum() else [part for part, _ in self._pre_tokenizer.pre_tokenize_str(text)]
        ids = _packed([token.id for part in parts for token in self._model.tokenize(part)])
        if len(word) <= LONGEST_WORD:
            with self._lock:
                self._make_room()
                self[word] = ids
        return ids

    def _make_room(self) -> None:
        """Forget the oldest when full, in use or not: learning a word anew costs a few microseconds."""
        if len(self) >= self._most_words:
            for word in list(islice(self, 1 + self._most_words // 64)):
                del self[word]


class PlainWords:
    """Texts -> ids by way of a dictionary. Threads may share it."""

    def __init__(self, dictionary: Dictionary, alphabet: Alphabet, frame: Frame) -> None:
        self._ids_of = dictionary.__getitem__
        self._fold, self._apart, self._quiet = alphabet.fold, alphabet.apart, alphabet.quiet
        self._before, self._after, self._room = frame.before, frame.after, frame.room
        self._room_in_bytes = frame.room * len(_packed([0]))
        self._long = frame.room * ENOUGH

    def row(self, text: str) -> list[int] | None:
        """Its token ids, cut and framed as the tokenizer would; None if the text is not plain, or a word fails."""
        words = self._beginning(text) if len(text) > self._long else self._words(text)
        if words is None:
            return None
        try:
            ids = b"".join(map(self._ids_of, words))
        except BaseException as error:
            if not is_of_the_tokenizer(error):
                raise
            return None  # the tokenizer itself shall say so
        return array("i", self._before + ids[: self._room_in_bytes] + self._after).tolist()

    def _words(self, text: str) -> list[bytes] | None:
        """Its words, and no more than there is room for: each is a token at least."""
        if not text.isascii():
            return None
        plain = text.encode().translate(self._fold)
        for mark in set(plain.translate(None, self._quiet)):
            if mark == BARRED:
                return None
            plain = plain.replace(*self._apart[mark])
        words = plain.split(None, self._room)
        if len(words) > self._room:
            words.pop()  # what was not split
        return words

    def _beginning(self, text: str) -> list[bytes] | None:
        """The words of a long text, from its beginning if that has enough: what comes after the space is not read."""
        words = self._words(text[: max(0, text.rfind(" ", 0, self._long))])
        return words if words and len(words) == self._room else self._words(text)


def plain_words(tokenizer: Tokenizer, most_words: int = MOST_WORDS) -> PlainWords | None:
    """The quick way of this tokenizer, with the limit that it has now. None if it is not known to be exact."""
    try:
        words = _of_known_parts(tokenizer, most_words)
        return words if words and _agree(words, tokenizer) else None
    except BaseException as error:
        if not is_of_the_tokenizer(error):
            raise
        return None


def is_of_the_tokenizer(error: BaseException) -> bool:
    """tokenizers raises bare Exceptions, and Rust's panics, which are none and would end whatever thread they meet."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _packed(ids: list[int]) -> bytes:
    return array("i", ids).tobytes()


def _of_known_parts(tokenizer: Tokenizer, most_words: int) -> PlainWords | None:
    normalizer, pre_tokenizer, model = tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.model
    known = _kinds(normalizer) <= NORMALIZERS and set() < _kinds(pre_tokenizer) <= PRE_TOKENIZERS
    marks = [_telling_mark(token.content) for token in tokenizer.get_added_tokens_decoder().values()]
    if not known or not isinstance(model, MODELS) or None in marks:
        return None
    alphabet, frame = Alphabet.of(tokenizer, {mark for mark in marks if mark}), Frame.of(tokenizer)
    return PlainWords(Dictionary(pre_tokenizer, model, most_words), alphabet, frame) if frame else None


def _kinds(part: Normalizer | PreTokenizer | None) -> set[str]:
    """The names of what a normaliser or pre-tokeniser is made of."""
    if part is None:
        return set()
    described = json.loads(part.__getstate__())  # what pickle would store: {"type": …, …}
    nested = described.get("normalizers", described.get("pretokenizers"))
    return {described["type"]} if nested is None else {inner["type"] for inner in nested}


def _telling_mark(content: str) -> str | None:
    """A mark without which no word holds this added token; None if it has none, or may reach across words."""
    return next((mark for mark in content if mark in string.punctuation and content.split() == [content]), None)


def _is_apart(pre_tokenizer: PreTokenizer, mark: str) -> bool:
    return [part for part, _ in pre_tokenizer.pre_tokenize_str(f"a{mark}{mark}b")] == ["a", mark, mark, "b"]


def _agree(words: PlainWords, tokenizer: Tokenizer) -> bool:
    return all(words.row(text) in (None, tokenizer.encode(text).ids) for text in _tricky_texts())


def _tricky_texts() -> tuple[str, ...]:
    """A few texts for each way in which a tokenizer could be another than it seems."""
    around = [f"{left}{chr(code)}{right}" for code in range(128) for left, right in (("a", "b"), ("Don", " t"))]
    blank = ("", " ", "\t\n ", " \v \f\r")
    words = ("a", "A", "good", "Good, bad!", "it's a well-made FILM...", "x_y e-mail@b.com", "a.b 3.50")
    marks = ("##ly ##s #", "[CLS] a [SEP]", "[ c l s ]", "<s> </s> <unk>", "pad unk cls sep mask", "$100%^&*() `~|\\/")
    long = ("q" * 99, "q" * 100, "q" * 101, "Q" * 300 + " a", "ab" * 60 + "." + "cd" * 10, "unaffable zzyzx 1234567890")
    return *blank, *words, *marks, *long, " ".join(around), "a b " * 400, "very! " * 400, *around
