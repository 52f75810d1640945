#!/usr/bin/env bash
# Makes every figure of docs/results/cascade.md, from the repository's root:
# docs/results/cascade.sh texts | calibrate | measure | targets | seen
# DATA holds sst2/{train,dev}.tsv.gz (columns text, label) and imdb/test.tsv.gz (text).
set -euo pipefail
DATA=${DATA:-data} PYTHON=${PYTHON:-.venv-dev/bin/python} MODELS=${MODELS:-models}
OUT=runs/cascade TEACHER=$MODELS/sst2-minilm/1 DEV=$DATA/sst2/dev.tsv.gz

export_() { "$PYTHON" -m export "$@"; }

texts() { # film reviews in the spelling of SST-2, of which neither model has seen one: to calibrate on, and to measure on
  mkdir -p "$OUT"
  shape=(--sentences --treebank --min-words 3 --max-words 64)
  export_ texts "$DATA/imdb/test.tsv.gz" "${shape[@]}" --documents 2500 --limit 20000 > "$OUT/imdb-sentences.jsonl"
  export_ texts "$DATA/imdb/test.tsv.gz" "${shape[@]}" --skip 12500 --documents 1250 --limit 10000 > "$OUT/imdb-unseen.jsonl"
}

calibrate() { # what is committed: only the manifest and the card change
  export_ calibrate "$MODELS/sst2-bilstm/1" --teacher "$TEACHER" --texts "$OUT/imdb-sentences.jsonl" --profile "$DEV" --replace
}

measure() {
  for precision in fast exact; do
    student=("$MODELS/sst2-bilstm/1" --teacher "$TEACHER" --precision "$precision")
    export_ cascade "${student[@]}" "$DEV" --plot "docs/results/cascade.svg"
    export_ cascade "${student[@]}" "$OUT/imdb-unseen.jsonl" --unlabelled
  done
}

targets() { # the same student for other promises
  for target in 0.98 0.995; do
    another "$OUT/target-$target" "$OUT/imdb-sentences.jsonl" --target "$target"
  done
}

seen() { # calibrated on texts that the student was trained on: what not to do
  export_ texts "$DATA/sst2/train.tsv.gz" --max-words 64 --documents 20000 > "$OUT/sst2-train.jsonl"
  another "$OUT/seen" "$OUT/sst2-train.jsonl"
}

another() { # a folder for a copy of the student, the texts, options
  rm -rf "$1" && mkdir -p "$1/sst2-bilstm" && cp -r "$MODELS/sst2-bilstm/1" "$1/sst2-bilstm/1"
  export_ calibrate "$1/sst2-bilstm/1" --teacher "$TEACHER" --texts "$2" --replace "${@:3}"
  export_ cascade "$1/sst2-bilstm/1" "$DEV" --teacher "$TEACHER"
}

"$@"
