"""Small tokenizers of every make: those that `service.bundle.wordpiece` knows, and those that it must leave alone."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
STARTS = ("a", "b", "q", "The", "the", "Film", "film", "don", "good", "be", "x_y", "a.b", "1", "2", "19", "pad", "cls")
MARKS = (".", ",", "!", "'", "-", "#", "##", "...", "!?", "_", "&")  # others are unknown
ENDS = ("a", "b", "d", "t", "s", "ly", "er", "ilm", "od", "0", "1", "9", "_", ".", "B", "q" * 30)
BERT = normalizers.BertNormalizer()
BERT_WORDS = pre_tokenizers.BertPreTokenizer()


def word_piece(prefix: str = "##", **options: Any) -> models.WordPiece:
    """Word pieces that spell some words, halves of some, and nothing of others."""
    vocabulary = _numbered(*SPECIAL, *STARTS, *MARKS, *(f"{prefix}{end}" for end in ENDS))
    return models.WordPiece(vocabulary, unk_token="[UNK]", continuing_subword_prefix=prefix, **options)


def word_level(*unknown: str) -> models.WordLevel:
    """Whole words only."""
    return models.WordLevel(_numbered(*SPECIAL, *STARTS, *MARKS), unk_token=(*unknown, "[UNK]")[0])


def framed(single: str) -> processors.TemplateProcessing:
    """What stands around a text; `$A` is the text."""
    ids = [(token, at) for at, token in enumerate(SPECIAL)]
    return processors.TemplateProcessing(single=single, special_tokens=ids)


def built(model: models.Model, normalizer: Any = BERT, words: Any = BERT_WORDS, ends: Any = None) -> Tokenizer:
    """A tokenizer of these parts, with the special tokens that its vocabulary begins with."""
    tokenizer = Tokenizer(model)
    if normalizer:
        tokenizer.normalizer = normalizer
    if words:
        tokenizer.pre_tokenizer = words
    if ends:
        tokenizer.post_processor = ends
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def known() -> Mapping[str, Tokenizer]:
    """One of each kind that has a quick way, made anew."""
    small, both = normalizers.Lowercase(), pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), BERT_WORDS])
    composed = normalizers.Sequence([normalizers.NFD(), small, normalizers.StripAccents()])
    cased = normalizers.BertNormalizer(lowercase=False, strip_accents=True)
    tokenizers = {
        "plain": built(word_piece()),
        "cased": built(word_piece(), cased),
        "dirty": built(word_piece(), normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False)),
        "short words": built(word_piece(max_input_chars_per_word=5)),
        "another prefix": built(word_piece("@@")),
        "no prefix": built(word_piece("")),
        "a frame": built(word_piece(), ends=framed("[CLS] $A [SEP]")),
        "a frame of BERT": built(word_piece(), ends=processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))),
        "only before": built(word_piece(), ends=framed("[CLS] [CLS] $A")),
        "only behind": built(word_piece(), ends=framed("$A [UNK]")),
        "no normaliser": built(word_piece(), None),
        "composed": built(word_piece(), composed, both, framed("[CLS] $A [SEP]")),
        "marks in runs": built(word_piece(), small, pre_tokenizers.Whitespace()),
        "marks in words": built(word_piece(), small, pre_tokenizers.WhitespaceSplit()),
        "whole words": built(word_level()),
        "whole words in runs": built(word_level(), small, pre_tokenizers.Whitespace()),
        "whole words as they are": built(word_level(), None, pre_tokenizers.WhitespaceSplit()),
    }
    tokenizers["more tokens"] = _with_added(AddedToken("<s>"), AddedToken("[Film]", normalized=True, lstrip=True))
    return MappingProxyType(tokenizers)


def unknown() -> Mapping[str, Tokenizer]:
    """One of each kind that has none: it does not read word by word, or nobody has shown that it does."""
    padded, left, strided, crowded = (built(word_piece(), ends=framed("[CLS] $A [SEP]")) for _ in range(4))
    padded.enable_padding()
    left.enable_truncation(8, direction="left")
    strided.enable_truncation(8, stride=2)
    crowded.enable_truncation(2)
    vocabulary = _numbered(*SPECIAL, *"abdeghilmo")
    digits = pre_tokenizers.Sequence([BERT_WORDS, pre_tokenizers.Digits(True)])
    halves = pre_tokenizers.Sequence([BERT_WORDS, pre_tokenizers.Split("zeb", "isolated")])
    return MappingProxyType(
        {
            "padded": padded,
            "cut at the left": left,
            "cut with a stride": strided,
            "no room for a word": crowded,
            "byte pairs": built(models.BPE(vocabulary, [], unk_token="[UNK]")),
            "unigrams": built(models.Unigram([(token, -1.0) for token in vocabulary], unk_id=1)),
            "no words": built(word_piece(), words=None),
            "words with their space": built(word_piece(), words=pre_tokenizers.Metaspace()),
            "digits apart": built(word_piece(), words=digits),
            "one word in halves": built(word_piece(), words=halves),
            "replacing": built(word_piece(), normalizers.Replace("zebra", "horse")),
            "nested": built(word_piece(), normalizers.Sequence([normalizers.Sequence([normalizers.Strip()])])),
            "written in Python": built(word_piece(), normalizers.Normalizer.custom(_Shouting())),
            "no token for the unknown": built(word_level("[MISSING]")),
            "a text twice": built(word_piece(), ends=framed("$A $A")),
            "no text at all": built(word_piece(), ends=framed("[CLS]")),
            "a token like a word": _with_added(AddedToken("lol")),
            "a token of another script": _with_added(AddedToken("É", normalized=True)),
            "a token of two words": _with_added(AddedToken("good <film>")),
        }
    )


class _Shouting:
    def normalize(self, text: Any) -> None:
        text.uppercase()


def _numbered(*tokens: str) -> dict[str, int]:
    return {token: at for at, token in enumerate(dict.fromkeys(tokens))}


def _with_added(*tokens: AddedToken) -> Tokenizer:
    tokenizer = built(word_piece())
    tokenizer.add_tokens(list(tokens))
    return tokenizer
