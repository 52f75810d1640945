"""Files of lines in pieces: the pieces are the whole, wherever it was cut and whatever is wrong with a row."""

import csv
import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.offline.bulk.blocks import Reject
from service.offline.bulk.line_files import open_lines
from service.offline.bulk.plan import InputFile
from service.offline.errors import InputError
from service.offline.lines import SPLITS
from service.offline.reading import open_file
from service.offline.records import Columns
from tests.service.offline.tables import write

WITH_ID = Columns(kept=("id",))

cells = st.text(st.sampled_from("ab\"',\t\r\n ✓é\udcff"), max_size=6)
"""What tables trip over: quotes, ends of lines within cells, bytes that are no UTF-8."""

noise = st.lists(
    st.sampled_from(['"', ",", "\n", "a", "\t", "\r\n", "\udcff", "{", "}", ":", "✓", "text"]), max_size=60
)


def everything(path: Path, kind: str, columns: Columns, part_rows: int) -> list[tuple[object, ...]]:
    """(row, line, text or problem, kept…) of each row, read part by part and each part by itself."""
    file = InputFile.of(path, kind)
    with open_lines(file, columns) as source:
        spans = source.spans(0, 0, part_rows)
    found: list[tuple[object, ...]] = []
    for place, span in enumerate(spans):
        assert (span.number, span.first) == (place, place * part_rows)
        assert span.rows == part_rows or (place == len(spans) - 1 and 0 < span.rows <= part_rows)
        with open_lines(file, columns) as source:
            blocks = list(source.blocks(span))
        assert sum(block.read for block in blocks) == span.rows
        for block in blocks:
            assert block.lines is not None
            good = zip(block.rows, block.lines, block.texts, *map(list, block.own), strict=True)  # type: ignore[arg-type]
            bad: Sequence[Reject] = block.rejects
            found += sorted([*good, *(tuple(asdict(each).values()) for each in bad)], key=lambda row: int(str(row[0])))
    assert [row[0] for row in found] == list(range(1, len(found) + 1))
    return found


@given(text=noise.map("".join), kind=st.sampled_from(sorted(SPLITS)), part_rows=st.integers(1, 5))
def test_a_file_of_any_bytes_is_the_same_in_pieces(text: str, kind: str, part_rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        head = "text\n" if kind in ("csv", "tsv") else ""
        path = write(Path(folder) / f"in.{kind}", head + text)
        try:
            whole = everything(path, kind, Columns(), 1000)
        except InputError:  # of JSON whose first row has no such column
            return
        assert everything(path, kind, Columns(), part_rows) == whole


@given(rows=st.lists(st.tuples(cells, cells), max_size=12), part_rows=st.integers(1, 5), zipped=st.booleans())
def test_a_table_is_what_the_csv_module_reads(rows: list[tuple[str, str]], part_rows: int, zipped: bool) -> None:
    stream = io.StringIO()
    csv.writer(stream).writerows([("id", "text"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / f"in.csv{'.gz' if zipped else ''}", stream.getvalue())
        found = everything(path, "csv", WITH_ID, part_rows)
    assert len(found) == len(rows)
    for (_, _, *said), (name, text) in zip(found, rows, strict=True):
        if "\udcff" in name + text:
            assert said == ["not UTF-8; convert the file first"]
        else:
            assert said == [text, text, name]


@pytest.mark.parametrize("name", ["in.csv", "in.tsv", "in.jsonl", "in.txt"])
def test_the_pieces_hold_what_the_whole_file_holds(tmp_path: Path, name: str) -> None:
    rows = [(f"n{number}", f"text {number} ✓") for number in range(23)]
    columns = Columns() if name == "in.txt" else WITH_ID
    text = {
        "csv": "\ufefftext,id\n" + "".join(f"{text},{own}\n" for own, text in rows),
        "tsv": "text\tid\n\n" + "".join(f"{text}\t{own}\n" for own, text in rows),
        "jsonl": "\n\n".join(json.dumps({"id": own, "text": text}) for own, text in rows),
        "txt": "\ufeff" + "".join(f"{text}\r\n" for _, text in rows),
    }[name.partition(".")[2]]
    path = write(tmp_path / name, text)
    with open_file(path) as source:
        whole = [(record.line, record.text, *record.kept) for record in source.records(columns)]
    found = everything(path, name.partition(".")[2], columns, 5)
    assert [(line, text, *kept) for _, line, text, _, *kept in found] == whole


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.csv", "text,b\ngood,1\ngood\n", "1 columns, but the header has 2"),
        ("a.csv", 'text\ngood\n"x"y\n', "',' expected after '\"'"),
        ("a.csv", 'text\ngood\n"good\n', "unexpected end of data"),
        ("a.tsv", "text\ngood\ngood\tbad\n", "2 columns, but the header has 1"),
        ("a.csv", "text\ngood\n\udcff\n", "not UTF-8; convert the file first"),
        ("a.jsonl", '{"text": "a"}\n{"text": 1}\n', "text is int, not a string"),
        ("a.jsonl", '{"text": "a"}\n{"text": }\n', "not JSON (Expecting value)"),
        ("a.jsonl", '{"text": "a"}\n' + "[" * 100_000 + "\n", "not JSON"),
        ("a.jsonl", '{"text": "a"}\n["a"]\n', "not a JSON object"),
        ("a.jsonl", '{"text": "a"}\n{"txt": "a"}\n', "no column 'text'; there is txt"),
        ("a.jsonl", '{"text": "a"}\n{"text": "\\ud800"}\n', "text has half a surrogate pair"),
    ],
)
def test_a_bad_row_has_its_reason_and_the_others_stay(tmp_path: Path, name: str, text: str, problem: str) -> None:
    kind = name.partition(".")[2]
    good, bad = everything(write(tmp_path / name, text + text.partition("\n")[0] + "\n"), kind, Columns(), 100)[:2]
    assert good[:2] == (1, 2 if kind != "jsonl" else 1)
    assert str(bad[2]).startswith(problem)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.csv", "", "a.csv: empty; the first line must name the columns"),
        ("a.csv", "sentence,label\n", "a.csv:1: no column 'text'; there is sentence, label (see --text-column"),
        ("a.jsonl", '{"body": "a"}\n', "a.jsonl:1: no column 'text'; there is body"),
    ],
)
def test_what_no_row_can_mend_ends_it_at_once(tmp_path: Path, name: str, text: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        everything(write(tmp_path / name, text), name.partition(".")[2], Columns(), 100)
    assert problem in str(caught.value)


def test_a_gzip_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.txt.gz", "good\n" * 1000)
    whole.write_bytes(whole.read_bytes()[:-10])
    with pytest.raises(InputError, match="not a whole gzip file"):
        everything(whole, "txt", Columns(), 100)
