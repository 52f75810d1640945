#!/usr/bin/env bash
# Makes every model behind docs/results/sst2.md, from the repository's root: docs/results/sst2.sh teach | distill | alone | ablation | widths | widths_small
# DATA holds sst2/{train,dev}.tsv.gz and imdb/{train,unsup}.tsv.gz (columns text, label); TEACHER is all-MiniLM-L6-v2.
# Without local files, leave the --set options out: the recipes name the same data and weights on the Hugging Face hub.
set -euo pipefail
DATA=${DATA:-data} TEACHER=${TEACHER:-teachers/all-MiniLM-L6-v2} PYTHON=${PYTHON:-.venv-dev/bin/python}

taught=runs/sst2-minilm
[ -e "$taught" ] || taught=models/sst2-minilm/1 # the same teacher as it is served

labelled=(--set "data.train=$DATA/sst2/train.tsv.gz" --set "data.dev=$DATA/sst2/dev.tsv.gz" --set data.text=text)
films=(--set "transfer.texts.0.source=$DATA/imdb/unsup.tsv.gz" --set "transfer.texts.1.source=$DATA/imdb/train.tsv.gz")
no_films=(--set "transfer.texts=[]")
no_copies=(--set transfer.augment.copies=0)

teach() {
  "$PYTHON" -m export teach export/recipes/sst2-teacher.toml --out runs/sst2-minilm \
    --set "teacher.model=$TEACHER" "${labelled[@]}" --set "adaptation.texts.0.source=$DATA/imdb/unsup.tsv.gz"
  "$PYTHON" -m export adopt runs/sst2-minilm --name sst2-minilm --dev "$DATA/sst2/dev.tsv.gz"
}

student() { # where to publish, the bundle's name, and what differs from the recipe
  "$PYTHON" -m export distill export/recipes/tang2019-sst2.toml --models "$1" --set "name=$2" --set "teacher.model=$taught" "${labelled[@]}" "${@:3}"
}

distill() { student models sst2-bilstm "${films[@]}"; }

alone() { # no texts but SST-2's own: more epochs, and stopped late
  few=("${no_films[@]}" "${no_copies[@]}" --set training.epochs=12 --set training.patience=24)
  student runs/ablation labels-alone "${few[@]}" --set objective.alpha=1
  student runs/ablation logits "${few[@]}"
}

ablation() { # the last row is the committed student
  alone
  student runs/ablation logits-augmented "${no_films[@]}" --set training.epochs=6
  student runs/ablation logits-unlabelled "${films[@]}" "${no_copies[@]}"
  "$PYTHON" -m export results runs/ablation
  "$PYTHON" -m export results models
}

widths() { # the committed student's texts, epochs and average
  student runs/trial w128-e3 "${films[@]}"
  student runs/trial w256-128-256 "${films[@]}" --set student.embedding=256 --set student.dense=256
  "$PYTHON" -m export results runs/trial
}

widths_small() { # tried first, on a smaller transfer set, 551,593 texts, before the weights were averaged
  small=(--set transfer.texts.0.documents=25000 --set training.epochs=4 --set training.average=0)
  small+=(--set training.evaluations_per_epoch=2)
  student runs/widths bilstm-128-128-128 "${films[@]}" "${small[@]}"
  student runs/widths bilstm-256-128-256 "${films[@]}" "${small[@]}" --set student.embedding=256 --set student.dense=256
  "$PYTHON" -m export results runs/widths
}

"$@"
