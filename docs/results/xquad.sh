#!/usr/bin/env bash
# Makes every model behind the questions in docs/results/chen2021.md, from the repository's root, after `chen2021.sh encoders`:
#   docs/results/xquad.sh teach | students [SEED…] | score
# DATA holds xquad/xquad.en.json.gz: 1,190 questions about 48 articles, cut by article: of each eight, five train, one selects,
# two are held back. TEACHER is all-MiniLM-L6-v2. The full SQuAD has its recipes: squad-teacher.toml, chen2021-squad.toml.
# Dev selects. `score` opens the articles that were held back: once, when all is chosen.
set -euo pipefail
DATA=${DATA:-data} TEACHER=${TEACHER:-teachers/all-MiniLM-L6-v2} PYTHON=${PYTHON:-.venv-dev/bin/python}
RUNS=${RUNS:-runs} WHAT=$1
SEEDS=("${@:2}")
[ ${#SEEDS[@]} -gt 0 ] || SEEDS=(1 2 3)

folder=$RUNS/xquad models=$RUNS/xquad/models
mkdir -p "$folder"
"$PYTHON" - "$DATA/xquad/xquad.en.json.gz" "$folder" << 'CUT'
import gzip, json, pathlib, sys
articles = json.load(gzip.open(sys.argv[1]))["data"]
for name, rests in {"train": range(5), "dev": (5,), "test": (6, 7)}.items():
    part = [article for number, article in enumerate(articles) if number % 8 in rests]
    pathlib.Path(sys.argv[2], f"{name}.json").write_text(json.dumps({"version": "1.1", "data": part}))
CUT
data=(--set "data.train=$folder/train.json" --set "data.dev=$folder/dev.json" --set training.epochs=12)

teach() {
  "$PYTHON" -m export teach export/recipes/squad-teacher.toml --out "$folder/minilm" --set "teacher.model=$TEACHER" "${data[@]}" \
    --set training.batch_size=16 --set training.evaluations_per_epoch=1
  "$PYTHON" -m export adopt "$folder/minilm" --name xquad-minilm --text question --pair context --label answers \
    --dev "$folder/dev.json" --models "$models"
}

students() { # its small transformer, extracted with random and important units, learns the teacher's logits
  for seed in "${SEEDS[@]}"; do
    for beginning in nothing chance importance; do
      "$PYTHON" -m export distill export/recipes/chen2021-squad.toml --work "$RUNS" --models "$models" \
        --set "name=xquad-$beginning" --set "version=$seed" --set "seed=$seed" --set "teacher.model=$folder/minilm" "${data[@]}" \
        --set "student.begins=$RUNS/etd/minilm-$beginning" --set training.batch_size=16
    done
  done
  "$PYTHON" -m export results "$models"
}

score() {
  for bundle in "$models"/*/*; do
    "$PYTHON" -m export evaluate "$bundle" "$folder/test.json" --text question --pair context --label answers
  done
}

"$WHAT"
