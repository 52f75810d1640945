"""Text -> tokens -> padded batch: the only preprocessing in the repository.

It knows tokenizers and how much of a text they need to see. It knows nothing of what the graph computes.
"""

import json
import re
import sys
from collections.abc import Sequence
from typing import Any, Self, overload

from tokenizers import Encoding, Tokenizer
from tokenizers.models import Unigram, WordLevel, WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from service.bundle.errors import InvalidTokenizer, TextTooLong, TextUnreadable, WrongKind
from service.bundle.manifest import SIAMESE_INPUTS
from service.bundle.rows import COLLATORS, Buckets, Feeds, Ids, Joined, Padding, Passage, Row, Spanned, Twins
from service.bundle.wordpiece import is_of_the_tokenizer, plain_words

__all__ = ["Encoder", "Feeds", "Ids", "Row", "Text"]

Text = str | tuple[str, str]
"""What a row is made of: one text, or a pair of them."""

_LONG, _ENOUGH = 32, 8
"""Texts with more than so many characters for each token that is read are looked at piecemeal, so many at first."""

_SPACES = " \t\n\r\u3000"
_MARKS = "!\"#$%&'()*+,./:;=?@^`{|}~\\\\\\-\u3001\u3002\uff01\uff0c\uff1f"
_SIGNS = "\u3400-\u4dbf\u4e00-\u9fff"
_UP_TO_A_BORDER = re.compile(f".*(?=[{_SPACES}{_MARKS}{_SIGNS}])", re.DOTALL)
"""Up to a character that ends the word before it for BERT's normaliser and splitter: a space, a punctuation mark, a
Chinese sign. (Not all of them: these are frequent, and none is part of a special token.)"""

_WITHOUT_BORDER = re.compile(r"[A-Za-z0-9_<>\[\]]+")
"""Added tokens like these never reach across a border."""


class Encoder:
    """One tokenizer with its limits. Not changed after construction, so threads may share it."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        inputs: tuple[str, ...],
        max_tokens: int,
        pad_id: int,
        texts: int = 1,
        spanned: bool = False,
    ) -> None:
        """`spanned`: each piece is answered for, and rows know where in the text their tokens stand: single texts to be
        tagged, or questions with the texts in which their answers are looked for."""
        if (inputs, texts) not in COLLATORS or (spanned and inputs == SIAMESE_INPUTS):
            raise ValueError(f"no graph takes {texts} texts as {', '.join(inputs)}")
        self._joins = texts == 2 and inputs != SIAMESE_INPUTS
        self._questions = None
        if max_tokens <= tokenizer.num_special_tokens_to_add(self._joins):
            # tokenizers would then not cut at all
            raise ValueError(f"max_tokens is {max_tokens}, which leaves no room for a text beside the special tokens")
        tokenizer.enable_truncation(max_tokens)  # of a pair the longer text is cut first, as transformers does it
        if spanned and self._joins:
            self._questions = Tokenizer.from_str(tokenizer.to_str())  # by itself, to be cut
            self._questions.enable_truncation(max(1, max_tokens // 2))
            # Parts of a text share a half of the room that is beside the longest question.
            room = max_tokens - max_tokens // 2 - tokenizer.num_special_tokens_to_add(True)
            overlap = max(0, room // 2)
            tokenizer.enable_truncation(max_tokens, stride=overlap, strategy="only_second")
        tokenizer.no_padding()  # rows are padded when their batch is known
        self._tokenizer = tokenizer
        self._spanned = spanned
        self._knows_words = tokenizer.pre_tokenizer is not None  # else it takes a whole text for one
        self._words = None if self._joins or spanned else plain_words(tokenizer)  # the dictionary has no places
        self._collate = COLLATORS[inputs, texts]
        self._padding = Padding(pad_id, max_tokens, None)
        self._long = max_tokens * _LONG if _reads_words_apart(tokenizer) else sys.maxsize
        self.max_tokens = max_tokens
        self.texts = texts
        self.unknown_id = _unknown_id(tokenizer)

    @classmethod
    def from_bytes(cls, content: bytes, source: str, **options: Any) -> Self:
        """Read a `tokenizer.json`; the options are those of the constructor."""
        try:
            return cls(Tokenizer.from_buffer(content), **options)
        except BaseException as error:
            if not is_of_the_tokenizer(error):
                raise
            problem = " ".join(str(error).split())[:300]
            raise InvalidTokenizer(f"{source}: not a usable tokenizer ({problem}); publish the bundle again") from None

    @overload
    def encode(self, texts: Sequence[str], *, truncate: bool = True) -> list[list[int]]: ...
    @overload
    def encode(self, texts: Sequence[Text], *, truncate: bool = True) -> list[Row]: ...
    def encode(self, texts: Sequence[Text], *, truncate: bool = True) -> Any:
        """The tokens of each text or pair. Raises TextError: for a text of the wrong kind, for one that cannot be
        tokenised and, unless texts may be truncated, for one with more than `max_tokens` tokens."""
        wanted = str if self.texts == 1 else tuple
        for place, text in enumerate(texts):
            if not isinstance(text, wanted):
                raise WrongKind(f"this model reads {'single texts' if self.texts == 1 else 'pairs of texts'}", place)
        if self._questions is not None:
            return self._passages(texts, truncate)
        if self._spanned:
            found = self._tokenise(texts, range(len(texts)), truncate)
            return [self._with_places(str(text), each) for text, each in zip(texts, found, strict=True)]
        if self.texts == 1:
            return self._each(texts, truncate)
        if self._joins:
            return [Joined(found.ids, found.type_ids) for found in self._tokenise(texts, range(len(texts)), truncate)]
        first, second = (self._each([text[side] for text in texts], truncate) for side in range(2))
        return list(map(Twins, first, second))

    def piece(self, token: int) -> str:
        """A token as the vocabulary spells it, such as ##s; nothing where it has no such id."""
        return self._tokenizer.id_to_token(token) or ""

    def spelt(self, row: Spanned, place: int) -> str:
        """The same of a token of a row, but an unknown one as it stands in the text."""
        start, end = row.places[place]
        return row.text[start:end] if row[place] == self.unknown_id else self.piece(row[place])

    def collate(self, rows: Sequence[Row], buckets: Buckets | None = None) -> Feeds:
        """Rows of any lengths -> the arrays of one batch, padded to its longest row or up to the buckets."""
        padding = self._padding
        return self._collate(padding if buckets is None else Padding(padding.pad_id, padding.max_tokens, buckets), rows)

    def _each(self, texts: Sequence[Text], truncate: bool) -> list[list[int]]:
        """Each text for itself: through the dictionary of words where that can be, else through the tokenizer."""
        if self._words is None:
            return [found.ids for found in self._tokenise(texts, range(len(texts)), truncate)]
        rows = [self._words.row(str(text)) for text in texts]
        # A row as long as the limit may have been cut; only the tokenizer can tell.
        full = sys.maxsize if truncate else self.max_tokens
        rest = [place for place, row in enumerate(rows) if row is None or len(row) >= full]
        if rest:
            for place, found in zip(
                rest, self._tokenise([texts[place] for place in rest], rest, truncate), strict=True
            ):
                rows[place] = found.ids
        return [row for row in rows if row is not None]

    def _tokenise(self, texts: Sequence[Text], places: Sequence[int], truncate: bool) -> list[Encoding]:
        """`places` are those of the texts in the call, for errors."""
        try:
            found = self._encodings(texts)
        except BaseException as error:
            if not is_of_the_tokenizer(error):
                raise
            place = places[0] if len(texts) == 1 else None
            raise TextUnreadable("the tokenizer cannot read it", place) from None  # the cause may hold the text
        if not truncate:
            for place, encoding in zip(places, found, strict=True):
                if len(encoding.ids) >= self.max_tokens and encoding.overflowing:
                    raise TextTooLong(f"more than the {self.max_tokens} tokens that this model reads", place)
        return found

    def _with_places(self, text: str, found: Encoding) -> Spanned:
        """What the tokenizer calls a word is one, as in training; special tokens are of no word."""
        words: list[range] = []
        last = None
        for place, word in enumerate(found.word_ids):
            if word is None:
                continue
            if word == last and self._knows_words:
                words[-1] = range(words[-1].start, place + 1)
            else:
                words.append(range(place, place + 1))
            last = word
        return Spanned(found.ids, text, found.offsets, words)

    def _passages(self, texts: Sequence[Text], truncate: bool) -> list[Row]:
        """Of each question with its text one or more; nothing of a text is left out, of a long question its end is."""
        asked = [(self._question(text[0], place, truncate), text[1]) for place, text in enumerate(texts)]
        found = self._tokenise(asked, range(len(texts)), truncate=True)
        return [
            _passage(part, asked[number][1], number)
            for number, whole in enumerate(found)
            for part in (whole, *whole.overflowing)
        ]

    def _question(self, text: str, place: int, truncate: bool) -> str:
        """As much of it as may stand beside a text: half of what the model reads."""
        assert self._questions is not None  # where this is called there are questions
        if len(text) < self.max_tokens // 2:  # a token is a character at least
            return text
        found = self._questions.encode(text, add_special_tokens=False)
        if not found.overflowing:
            return text
        if not truncate:
            raise TextTooLong(f"the question has more than {self.max_tokens // 2} tokens", place)
        return text[: found.offsets[-1][1]]

    def _encodings(self, texts: Sequence[Text]) -> list[Encoding]:
        # Cutting both texts of a pair could change which of them is the longer one, and so what truncation leaves.
        if not self._joins:
            texts = [text if len(text) <= self._long else self._beginning(str(text)) for text in texts]
        if len(texts) == 1:
            text = texts[0]
            return [self._tokenizer.encode(text) if isinstance(text, str) else self._tokenizer.encode(*text)]
        return self._tokenizer.encode_batch(texts) if self._spanned else self._tokenizer.encode_batch_fast(texts)

    def _beginning(self, text: str) -> str:
        """So much of a long text that its first tokens are the same and are known to be too many; else all of it."""
        size = self.max_tokens * _ENOUGH
        while size < len(text):
            words = _UP_TO_A_BORDER.match(text, 0, size)
            if words and self._tokenizer.encode(words[0]).overflowing:
                return words[0]
            size *= 4
        return text


def _passage(found: Encoding, text: str, number: int) -> Passage:
    own = [place for place, side in enumerate(found.sequence_ids) if side == 1]
    tokens = range(own[0], own[-1] + 1) if own else range(0)
    return Passage(found.ids, found.type_ids, text, found.offsets, found.word_ids, tokens, number)


def _unknown_id(tokenizer: Tokenizer) -> int:
    """What a piece that is not in the vocabulary becomes; -1, which no piece is, where the tokenizer has no such id."""
    if isinstance(tokenizer.model, Unigram):  # says it in its file only
        found = json.loads(tokenizer.to_str())["model"]["unk_id"]
    else:
        found = tokenizer.token_to_id(tokenizer.model.unk_token or "")
    return -1 if found is None else int(found)


def _reads_words_apart(tokenizer: Tokenizer) -> bool:
    """Are the tokens before a border the same whatever comes after it? True of BERT's tokenizers: each character is
    normalised for itself, a border ends a word, and each word is looked up or split into pieces for itself."""
    normaliser = tokenizer.normalizer
    return (
        isinstance(normaliser, BertNormalizer)
        and normaliser.clean_text
        and normaliser.handle_chinese_chars
        and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
        and isinstance(tokenizer.model, WordPiece | WordLevel)
        and all(
            _WITHOUT_BORDER.fullmatch(token.content) and not token.single_word
            for token in tokenizer.get_added_tokens_decoder().values()
        )
    )
