#!/usr/bin/env bash
# Makes every model behind docs/results/pairs.md, from the repository's root, and scores them:
#   docs/results/pairs.sh teach | students | ablation | score  mrpc | sick | rte  [SEED…]
# DATA holds mrpc/{glue_train,glue_dev,tokenised_test}, sick/{train,dev,test}, rte/{train,dev}.tsv.gz (columns text, text2,
# label); TEACHER is all-MiniLM-L6-v2. Without local files, leave the --set options out: the recipes name the same on the hub.
set -euo pipefail
DATA=${DATA:-data} TEACHER=${TEACHER:-teachers/all-MiniLM-L6-v2} PYTHON=${PYTHON:-.venv-dev/bin/python}
RUNS=${RUNS:-runs} MODELS=${MODELS:-runs/pairs} WHAT=$1 NAME=$2
SEEDS=("${@:3}")
[ ${#SEEDS[@]} -gt 0 ] || SEEDS=(1)

train=$DATA/$NAME/train.tsv.gz dev=$DATA/$NAME/dev.tsv.gz test=$DATA/$NAME/test.tsv.gz
if [ "$NAME" = mrpc ]; then # in GLUE's spelling
  train=$DATA/mrpc/glue_train.tsv.gz dev=$DATA/mrpc/glue_dev.tsv.gz test=$DATA/mrpc/tokenised_test.tsv.gz
fi
labelled=(--set "data.train=$train" --set "data.dev=$dev" --set data.text=text --set data.pair=text2)
no_copies=(--set transfer.augment.copies=0 --set training.epochs=60) # a tenth of the rows: more epochs, stopped early

teach() {
  "$PYTHON" -m export teach "export/recipes/$NAME-teacher.toml" --out "$RUNS/$NAME-minilm" \
    --set "teacher.model=$TEACHER" "${labelled[@]}"
  "$PYTHON" -m export adopt "$RUNS/$NAME-minilm" --name "$NAME-minilm" --dev "$dev" --pair text2 --models "$MODELS"
}

student() { # the bundle's name, its seed, which is also its version, and what differs from the recipe
  "$PYTHON" -m export distill "export/recipes/tang2019-$NAME.toml" --work "$RUNS" --models "$MODELS" \
    --set "name=$1" --set "version=$2" --set "seed=$2" --set "teacher.model=$RUNS/$NAME-minilm" "${labelled[@]}" "${@:3}"
}

students() { # the same siamese network from the labels alone, and distilled
  for seed in "${SEEDS[@]}"; do
    student "$NAME-alone" "$seed" "${no_copies[@]}" --set objective.alpha=1
    student "$NAME-distilled" "$seed"
  done
  "$PYTHON" -m export results "$MODELS"
}

ablation() { # distilled without augmented pairs
  for seed in "${SEEDS[@]}"; do
    student "$NAME-logits" "$seed" "${no_copies[@]}"
  done
  "$PYTHON" -m export results "$MODELS"
}

score() { # once, when everything is chosen
  "$PYTHON" -m export evaluate "$MODELS/$NAME-minilm/1" "$test" --pair text2
  for seed in "${SEEDS[@]}"; do
    for kind in alone distilled; do
      "$PYTHON" -m export evaluate "$MODELS/$NAME-$kind/$seed" "$test" --pair text2 --teacher "$MODELS/$NAME-minilm/1"
    done
  done
}

"$WHAT"
