#!/usr/bin/env bash
# The loop of docs/results/learn-again.md, run for real, from the repository's root:
# docs/results/learn-again.sh texts | first | traffic | second | swap | all
# DATA holds sst2/{train,dev}.tsv.gz and amazon_multidomain/{books,dvd,electronics,kitchen}.tsv.gz (columns text, label).
# The teacher is the committed bundle, asked as it is served: nobody needs its weights.
set -euo pipefail
DATA=${DATA:-data} PYTHON=${PYTHON:-.venv-dev/bin/python}
OUT=runs/learn-again TEACHER=models/sst2-minilm/1 MODELS=$OUT/models STAGING=$OUT/staging

texts() { # sentences of 6,000 reviews as traffic, of 2,000 others to judge on; each file has its positive reviews first
  mkdir -p "$OUT"
  shape=(--sentences --min-words 3 --max-words 64)
  for part in books dvd electronics kitchen; do
    reviews=$DATA/amazon_multidomain/$part.tsv.gz
    for start in 0 1000; do
      "$PYTHON" -m export texts "$reviews" "${shape[@]}" --skip $start --documents 750 >&3
      "$PYTHON" -m export texts "$reviews" "${shape[@]}" --skip $((start + 750)) --documents 250 --limit 625 >&4
    done
  done 3> "$OUT/traffic.jsonl" 4> "$OUT/others.jsonl"
  grep -vxFf "$OUT/traffic.jsonl" "$OUT/others.jsonl" > "$OUT/unseen.jsonl" # "Highly recommended." stands in both
}

distill() { # version, where to, what differs
  "$PYTHON" -m export distill export/recipes/tang2019-sst2.toml --work "$OUT" --models "$2" --set name=learner \
    --set "version=$1" --set "teacher.model=$TEACHER" --set "data.train=$DATA/sst2/train.tsv.gz" \
    --set "data.dev=$DATA/sst2/dev.tsv.gz" --set data.text=text --set transfer.augment.copies=0 \
    --set "transfer.texts=[]" --set training.epochs=5 --set training.average=0.998 "${@:3}"
}

first() { # a student of SST-2's own texts alone
  mkdir -p "$MODELS" && cp -r models/sst2-minilm "$MODELS/"
  distill 1 "$MODELS"
}

traffic() { # it is served, and the service keeps what it is asked
  "$PYTHON" -m tests.prove.learning traffic --models "$MODELS" --texts "$OUT/traffic.jsonl" --capture "$OUT/capture.db" --json "$OUT/traffic.json"
}

second() { # the same recipe with what was captured
  distill 2 "$STAGING" --transfer "$OUT/capture.db"
}

swap() { # under load: promoted if it agrees with the teacher more, by 3 points at least, on texts that neither has seen
  "$PYTHON" -m tests.prove.learning swap --models "$MODELS" --candidate "$STAGING/learner/2" \
    --teacher "$TEACHER" --texts "$OUT/unseen.jsonl" --min-gain 0.03 --json "$OUT/swap.json"
}

all() { for step in texts first traffic second swap; do "$step"; done; }

"$@"
