"""Examples come out of every kind of file as they went in; whatever doesn't fit is refused by file and line."""

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.data import Data
from export.errors import DataError
from export.texts.datasets import Columns, Example, Names, held_out, read_examples, read_pairs, read_texts
from service.bundle.manifest import Task

LABELS = ("bad", "good")
NAMES = Names(LABELS)
COLUMNS = Columns()
ROWS = (Example('she said "no"', 0), Example("a warm évening 😀", 1), Example("", 0))
KINDS = ("rows.tsv", "rows.csv", "rows.jsonl", "rows.tsv.gz", "rows.csv.gz", "rows.jsonl.gz", "ROWS.TSV.GZ")


def read(path: Path, columns: Columns = COLUMNS) -> list[Example]:
    return list(read_examples(str(path), NAMES, columns))


def content(name: str, rows: tuple[Example, ...] = ROWS) -> bytes:
    """The rows in the format that the name's ending asks for; labels by name."""
    cells = [(str(row.text), LABELS[cast(int, row.label)]) for row in rows]
    if ".jsonl" in name:
        lines = [json.dumps({"text": text, "label": label}) for text, label in cells]
    elif ".csv" in name:
        lines = ["text,label", *('"{}",{}'.format(text.replace('"', '""'), label) for text, label in cells)]
    else:
        lines = ["text\tlabel", *(f"{text}\t{label}" for text, label in cells)]
    return "".join(f"{line}\n" for line in lines).encode()


def write(path: Path, data: bytes | str) -> Path:
    data = data.encode() if isinstance(data, str) else data
    path.write_bytes(gzip.compress(data) if path.suffix.lower() == ".gz" else data)
    return path


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_the_same_examples(tmp_path: Path, name: str) -> None:
    assert read(write(tmp_path / name, content(name.lower()))) == list(ROWS)


@pytest.mark.parametrize("name", ["texts.txt", "texts.txt.gz"])
def test_a_text_file_gives_its_lines_without_the_empty_ones(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "one\r\n\n  \ntwo words\n")
    assert list(read_texts(str(path))) == ["one", "two words"]


def test_quotes_mean_nothing_in_a_tsv(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"open\tbad\n""\tgood\n')
    assert read(path) == [Example('"open', 0), Example('""', 1)]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize(("name", "cut"), [("a.tsv", "\t"), ("a.csv", ",")])
def test_blank_lines_of_a_table_are_left_out_and_counted(tmp_path: Path, name: str, cut: str, ending: str) -> None:
    lines = ["", f"text{cut}label", f"a{cut}bad", "", "", f"b{cut}good", f"c{cut}neither", ""]
    rows = read_examples(str(write(tmp_path / name, ending.join(lines))), NAMES, COLUMNS)
    assert [next(rows), next(rows)] == [Example("a", 0), Example("b", 1)]
    with pytest.raises(DataError, match="line 7: unknown label 'neither'"):
        next(rows)


def test_columns_without_names_may_be_several(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.csv", "text,label,,\na,good,,\n")) == [Example("a", 1)]


def test_a_line_is_counted_in_the_file_and_not_in_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text,label\n"over\ntwo lines",good\nlast,neither\n')
    rows = read_examples(str(path), NAMES, Columns())
    assert next(rows) == Example("over\ntwo lines", 1)
    with pytest.raises(DataError, match=r"a\.csv, line 4: unknown label 'neither'; the recipe knows bad, good"):
        next(rows)


def test_labels_are_names_or_indices_and_a_name_goes_first(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", '{"text": "a", "label": 1}\n\n{"text": "b", "label": "bad"}\n{"text":"c","label":"0"}'
    )
    assert [row.label for row in read(path)] == [1, 0, 0]
    crossed = write(tmp_path / "b.tsv", "text\tlabel\na\t1\nb\t0\n")
    assert [row.label for row in read_examples(str(crossed), Names(("1", "0")), Columns())] == [0, 1]


@pytest.mark.parametrize("labels", [("1", "2", "3"), ("0.0", "1.0"), ("-1", "0", "1"), ("bad", "2")])
def test_where_a_label_is_a_number_no_row_counts_labels(tmp_path: Path, labels: tuple[str, ...]) -> None:
    names = Names(labels)
    own = write(tmp_path / "own.tsv", "text\tlabel\n" + "".join(f"a\t{label}\n" for label in labels))
    assert [row.label for row in read_examples(str(own), names, COLUMNS)] == list(range(len(labels)))
    other = next(str(i) for i in range(9) if str(i) not in labels)
    counted = write(tmp_path / "counted.tsv", f"text\tlabel\na\t{labels[1]}\nb\t{other}\n")
    with pytest.raises(DataError, match=rf"counted\.tsv, line 3: unknown label '{other}'"):
        list(read_examples(str(counted), names, COLUMNS))


def test_columns_have_the_names_that_the_recipe_gives(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,stars,review\n7,good,fine\n")
    assert read(path, Columns("review", "stars")) == [Example("fine", 1)]


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    long = "good " * 40_000
    assert read(write(tmp_path / "a.csv", f"text,label\n{long},bad\n")) == [Example(long, 0)]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path, name: str) -> None:
    assert read(write(tmp_path / name, b"\xef\xbb\xbf" + content(name))) == list(ROWS)


REFUSED = {
    "no column": ("a.tsv", b"text\tclass\na\tbad\n", "a.tsv, line 2: no column 'label'; there is text, class"),
    "no column in JSON": ("a.jsonl", b'{"text": "a"}\n', "a.jsonl, line 1: no column 'label'; there is text"),
    "nothing there": ("a.jsonl", b'{"text": null, "label": 1}\n', "a.jsonl, line 1: nothing in column 'text'"),
    "a ragged row": ("a.tsv", b"text\tlabel\na\tbad\nb\tbad\tx\n", "a.tsv, line 3: 3 columns, but the header has 2"),
    "a name twice": (
        "a.csv",
        b"text,label,text\na,bad,b\n",
        "a.csv, line 1: 2 columns are named 'text'; rename all but",
    ),
    "an open quote": ("a.csv", b'text,label\n"a,bad\n', "a.csv, line 2: unexpected end of data"),
    "no JSON": ("a.jsonl", b'{"text": "a", "label": 0}\n{"text": \n', "a.jsonl, line 2: not JSON"),
    "brackets without end": ("a.jsonl", b"[" * 200_000, "a.jsonl, line 1: not JSON"),
    "no object": ("a.jsonl", b'["a", 0]\n', "a.jsonl, line 1: not a JSON object"),
    "no string": ("a.jsonl", b'{"text": 5, "label": 0}\n', "a.jsonl, line 1: the text is int, not a string"),
    "half a pair": (
        "a.jsonl",
        b'{"text": "a \\ud83d", "label": 0}\n',
        "a.jsonl, line 1: the text has half a surrogate",
    ),
    "another label": ("a.tsv", b"text\tlabel\na\t2\n", "a.tsv, line 2: unknown label '2'; the recipe knows bad, good"),
    "Windows-1252": ("a.tsv", b"text\tlabel\n" + b"a\tbad\n" * 9000 + b"caf\xe9\tbad\n", "a.tsv, line 9002: not UTF-8"),
    "UTF-16": ("a.csv", "text,label\n".encode("utf-16"), "a.csv, line 1: not UTF-8"),
    "nothing at all": ("a.tsv", b"", "a.tsv: empty; the first line must name the columns"),
    "nothing but lines": ("a.csv", b"\n\n", "a.csv: empty; the first line must name the columns"),
    "another ending": (
        "a.parquet",
        b"PAR1",
        "a.parquet: unknown kind of file; use one of .tsv, .csv, .jsonl, .json, .conll, .txt",
    ),
    "no ending": ("rows", b"text", "rows: unknown kind of file"),
}


@pytest.mark.parametrize(("name", "data", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused_by_file_and_line(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    with pytest.raises(DataError) as refusal:
        read(write(tmp_path / name, data))
    assert str(refusal.value).startswith(f"{tmp_path}/{message}")
    assert "\n" not in str(refusal.value)


def test_windows_1252_is_found_in_a_zipped_file_too(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.txt\.gz, line 2: not UTF-8"):
        list(read_texts(str(write(tmp_path / "a.txt.gz", b"ok\n\x93quoted\x94\n"))))


def test_a_broken_gzip_file_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(content("a.tsv", ROWS[:2] * 4000))
    broken = {
        "cut.tsv.gz": whole[: len(whole) // 2],
        "plain.tsv.gz": content("a.tsv"),
        "bits.tsv.gz": whole[:40] + bytes(byte ^ 0xFF for byte in whole[40:80]) + whole[80:],
        "sum.tsv.gz": whole[:-8] + b"12345678",
    }
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=f"{name}: not a whole gzip file"):
            read(tmp_path / name)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        read(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"folder\.csv: no such file"):
        read(tmp_path / "folder.csv")


@pytest.mark.parametrize("empty", ["train", "dev"])
def test_a_split_without_rows_is_refused(tmp_path: Path, empty: str) -> None:
    splits = {name: str(write(tmp_path / f"{name}.tsv", "text\tlabel\na\tbad\n")) for name in ("train", "dev")}
    write(tmp_path / f"{empty}.tsv", "text\tlabel\n")
    with pytest.raises(DataError, match=rf"{empty}\.tsv: has no rows"):
        Data(**splits, labels=LABELS).read()
    with pytest.raises(DataError, match=rf"{empty}\.tsv: has no rows"):
        held_out(splits[empty], NAMES, Columns())


def test_both_splits_are_read(tmp_path: Path) -> None:
    train, more = (str(write(tmp_path / name, content(name))) for name in ("train.tsv", "more.csv"))
    dev = str(write(tmp_path / "dev.tsv", f"text\tlabel\nanother film\tgood\n{ROWS[1].text}\tgood\n"))
    data = Data(train=(train, more), dev=dev, labels=LABELS).read()
    apart = tuple(row for row in ROWS if row.text != ROWS[1].text)  # what selects teaches nobody
    assert (data.labels, data.train, len(data.dev)) == (LABELS, (*apart, *apart), 2)


def test_what_selects_is_not_all_that_there_is(tmp_path: Path) -> None:
    same = str(write(tmp_path / "same.tsv", content("same.tsv")))
    with pytest.raises(DataError, match=r"data.train: each of its texts stands in data.dev too"):
        Data(train=same, dev=same, labels=LABELS).read()


def test_a_pair_is_two_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "text\ttext2\tlabel\none\ttwo\tgood\n")
    assert read(path, Columns(pair="text2")) == [Example(("one", "two"), 1)]
    assert list(read_pairs(str(path), ("text", "text2"))) == [("one", "two")]
    with pytest.raises(DataError, match="line 2: no column 'other'; there is text, text2, label"):
        read(path, Columns(pair="other"))


def test_a_row_may_have_several_labels_or_none(tmp_path: Path) -> None:
    names = Names(("bad", "good", "odd"), Task.MULTI_LABEL)
    table = write(tmp_path / "a.tsv", "text\tlabel\na\tgood, bad\nb\t\nc\t2,2\n")
    assert [row.label for row in read_examples(str(table), names, Columns())] == [(0, 1), (), (2,)]
    lines = write(tmp_path / "a.jsonl", '{"text": "a", "label": ["odd", 0]}\n{"text": "b", "label": []}\n')
    assert [row.label for row in read_examples(str(lines), names, Columns())] == [(0, 2), ()]
    wrong = write(tmp_path / "b.tsv", "text\tlabel\na\tgood,worse\n")
    with pytest.raises(DataError, match=r"b\.tsv, line 2: unknown label 'worse'; the recipe knows bad, good, odd"):
        list(read_examples(str(wrong), names, Columns()))


@pytest.mark.parametrize(("cell", "found"), [("4.5", (4.5,)), (" 3 ", (3.0,)), ("-1e2", (-100.0,))])
def test_a_label_may_be_a_number(tmp_path: Path, cell: str, found: tuple[float, ...]) -> None:
    path = write(tmp_path / "a.tsv", f"text\tlabel\na\t{cell}\n")
    assert [row.label for row in read_examples(str(path), Names(("score",), Task.REGRESSION), Columns())] == [found]


@pytest.mark.parametrize("cell", ["high", "nan", "inf", "1,2", ""])
def test_a_label_that_is_no_number_is_refused(tmp_path: Path, cell: str) -> None:
    path = write(tmp_path / "a.tsv", f"text\tlabel\na\t{cell}\n")
    with pytest.raises(DataError, match=r"a\.tsv, line 2: the label .* is n"):
        list(read_examples(str(path), Names(("score",), Task.REGRESSION), Columns()))


def test_a_big_file_is_streamed(tmp_path: Path) -> None:
    big = b"text\tlabel\n" + b"a row\tgood\n" * 50_000 + b"and a last one\tneither\n"
    for name in ("big.tsv", "big.tsv.gz"):
        rows = read_examples(str(write(tmp_path / name, big)), NAMES, Columns())
        assert next(rows) == Example("a row", 1)  # before the row that is refused was seen
        with pytest.raises(DataError, match="line 50002"):
            list(rows)


# What separates lines or cells in a TSV can't stand in one; JSON can spell everything but half a surrogate pair.
texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(rows=st.lists(st.tuples(texts, st.integers(0, 1))))
def test_jsonl_keeps_every_text(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]]) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    assert [(row.text, row.label) for row in read(path)] == rows


@given(rows=st.lists(st.tuples(texts, st.integers(0, 1))))
def test_csv_keeps_every_text(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]]) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    assert [(row.text, row.label) for row in read(path)] == rows


@given(rows=st.lists(st.tuples(texts.map(lambda text: "".join(text.split("\t"))), st.integers(0, 1))))
def test_tsv_keeps_every_text_of_one_line(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]]
) -> None:
    one_line = [("".join(c for c in text if c not in "\r\n"), label) for text, label in rows]
    path = tmp_path_factory.mktemp("tsv") / "a.tsv"
    path.write_bytes("".join(["text\tlabel\n", *(f"{text}\t{label}\n" for text, label in one_line)]).encode())
    assert [(row.text, row.label) for row in read(path)] == one_line


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that `datasets` takes for a data set."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "hub"
    folder.mkdir()
    write(folder / "train.csv", 'text,label\n"warm, and clever",1\ndull,0\n')
    write(folder / "test.csv", "text,label\nslow,0\n")
    yield folder


def test_a_data_set_of_the_hub_is_streamed_from_a_local_folder(hub: Path) -> None:
    rows = read_examples(f"hub:{hub}?split=train", NAMES, Columns())
    assert next(rows) == Example("warm, and clever", 1)
    assert list(rows) == [Example("dull", 0)]
    assert list(read_texts(f"hub:{hub}?split=test&config=default")) == ["slow"]


def classes(folder: Path, names: list[str], cells: list[int]) -> str:
    """A source of the hub that counts its classes, in the order of their names."""
    kinds = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    rows = {"text": [f"text {i}" for i in range(len(cells))], "label": cells}
    (folder / "classes").mkdir(exist_ok=True)
    datasets.Dataset.from_dict(rows, features=kinds).to_parquet(str(folder / "classes" / "train.parquet"))
    return f"hub:{folder / 'classes'}?split=train"


def test_the_hubs_classes_are_told_by_their_names_where_these_are_the_labels(hub: Path) -> None:
    source = classes(hub, ["good", "bad"], [0, 1, 1])
    assert [row.label for row in read_examples(source, NAMES, COLUMNS)] == [1, 0, 0]
    with pytest.raises(DataError, match=r"split=train, line 2: unknown label -1"):
        list(read_examples(classes(hub, ["good", "bad"], [0, -1]), NAMES, COLUMNS))


def test_the_hubs_classes_are_places_where_their_names_are_others(hub: Path) -> None:
    assert [row.label for row in read_examples(classes(hub, ["neg", "pos"], [0, 1]), NAMES, COLUMNS)] == [0, 1]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "write hub:NAME"),
        ("?config=default", "write hub:NAME"),
        ("?split=train&revision=1", "write hub:NAME"),
        ("?split=dev", "Bad split: dev"),
        ("?split=train&config=none", "BuilderConfig 'none' not found"),
        ("/none?split=train", "Couldn't find any data file"),
    ],
)
def test_a_hub_source_that_does_not_exist_is_refused(hub: Path, query: str, message: str) -> None:
    with pytest.raises(DataError) as refusal:
        list(read_texts(f"hub:{hub}{query}"))
    assert str(refusal.value).startswith(f"hub:{hub}{query}: {message}")
    assert "\n" not in str(refusal.value)


def test_a_bad_row_of_a_hub_source_is_refused_by_its_number(hub: Path) -> None:
    write(hub / "train.csv", "text,label\na,1\nb,5\n")
    with pytest.raises(DataError, match=r"split=train, line 2: unknown label 5"):
        list(read_examples(f"hub:{hub}?split=train", NAMES, Columns()))


def test_a_broken_file_of_a_hub_source_is_refused_in_one_line(hub: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(hub / "train.csv", "text,label\na,1\nb,1,2,3\n")
    with pytest.raises(DataError, match="split=train: Error tokenizing data") as refusal:
        list(read_texts(f"hub:{hub}?split=train"))
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr().err == ""
