#!/usr/bin/env bash
# Makes every model behind docs/results/few-labels.md, from the repository's root:
#   docs/results/few-labels.sh ag_news | imdb [teach | alone_random | alone | hard | soft | … | score] (unset: those of the table)
# DATA holds ag_news/train_partial.tsv.gz and imdb/{train,unsup}.tsv.gz (columns text, label); TEACHER is all-MiniLM-L6-v2;
# WORK takes teachers, caches and checkpoints, MODELS the students; SEED is the students'. Dev selects; `score` alone opens
# the test split ({ag_news,imdb}/test.tsv.gz).
# Without local files, leave the --set options of `source` out: the recipes name the same data and weights on the hub.
set -euo pipefail
DATA=${DATA:-data} TEACHER=${TEACHER:-teachers/all-MiniLM-L6-v2} PYTHON=${PYTHON:-.venv-dev/bin/python}
WORK=${WORK:-runs} SEED=${SEED:-1} MODELS=${MODELS:-runs/few-labels}
task=$1

name=${task//_/-}-few
case $task in
  ag_news) source=(--set "data.train=$DATA/ag_news/train_partial.tsv.gz") masked=() more=() ;;
  imdb)
    source=(--set "data.train=$DATA/imdb/train.tsv.gz")
    masked=(--set "adaptation.texts.0.source=$DATA/imdb/unsup.tsv.gz")
    more=(--set "transfer.texts.0.source=$DATA/imdb/unsup.tsv.gz")
    ;;
esac

teach() {
  "$PYTHON" -m export teach "export/recipes/$task-few-teacher.toml" --out "$WORK/$name-minilm" \
    --set "teacher.model=$TEACHER" "${source[@]}" "${masked[@]}"
}

student() { # what it is called, and what differs from the recipe
  "$PYTHON" -m export distill "export/recipes/mukherjee2020-$task.toml" --work "$WORK" --models "$MODELS" \
    --set "teacher.model=$WORK/$name-minilm" --set "seed=$SEED" --set "name=$name-$1-$SEED" "${source[@]}" "${more[@]}" "${@:2}"
}

few="epochs=40, batch_size=64, learning_rate=1e-3, evaluations_per_epoch=1" # of labelled rows

alone_random() { student alone-random --set student.embeddings=random --set "stages=[{labels=1, $few}]"; }
alone() { student alone --set "stages=[{labels=1, $few}]"; }
hard() { student hard --set "stages=[{labels=1}]" --set objective.argmax=true; }
soft() { student soft --set "stages=[{logits=1}]"; }
soft_labels() { student soft-labels --set "stages=[{logits=1}, {labels=1, $few}]"; }                  # no representation
joint() { student joint --set "stages=[{representation=1, logits=1, labels=1}]"; }                    # D2 of the paper
both() { student both --set "stages=[{representation=1}, {logits=1, labels=1, unfreeze=true}]"; }     # D3.2
frozen() { student staged-at-once --set stages.1.unfreeze=false --set stages.2.unfreeze=false; }      # D4.1
staged() { student staged; }                                                                          # D4.2

score() { # the test split, once, when everything is chosen: the teacher, and each student that there is
  local test=$DATA/$task/test.tsv.gz student
  # A teacher's bundle selects nothing, so what it is measured on as it is adopted may be the test split at once.
  "$PYTHON" -m export adopt "$WORK/$name-minilm" --name "$name-minilm" --models "$MODELS" --dev "$test"
  for student in "$MODELS/$name"-*/1; do
    [ "$student" = "$MODELS/$name-minilm/1" ] || "$PYTHON" -m export evaluate "$student" "$test"
  done
}

shift
for what in "${@:-teach alone_random alone hard soft joint frozen staged}"; do
  for step in $what; do "$step"; done
done
[ ! -e "$MODELS" ] || "$PYTHON" -m export results "$MODELS"
