#!/usr/bin/env bash
# Makes every model behind docs/results/ner.md, from the repository's root:
#   docs/results/ner.sh teach | distill [SEED…] | publish | ablation [SEED…] | score | joint_teach | joint_distill | joint_ablation | joint_table | joint_score
# (joint_* in this order)
# DATA holds conll2003_en/{train,dev}.conll.gz, ag_news/train_partial.tsv.gz, wiki_en/paragraphs.tsv.gz (column text) and, for
# joint_*, wikiann, uner and masakhaner2 with LANGUAGE.{train,dev,test}.conll.gz; TEACHER is all-MiniLM-L6-v2. Models go to MODELS,
# all else to RUNS. Without local files, leave the --set options out: the recipes name hub data and weights.
# Dev selects; `score` and `joint_score` alone open test splits (conll2003_en/test.conll.gz and those of each language).
set -euo pipefail
DATA=${DATA:-data} TEACHER=${TEACHER:-teachers/all-MiniLM-L6-v2} PYTHON=${PYTHON:-.venv-dev/bin/python} RUNS=${RUNS:-runs}
MODELS=${MODELS:-models} ROWS=${ROWS:-60000} HIDDEN=${HIDDEN:-128}

conll=$DATA/conll2003_en
labelled=(--set "data.train=$conll/train.conll.gz" --set "data.dev=$conll/dev.conll.gz" --set data.text=text)
labelled+=(--set data.label=label)
texts=(--set "transfer.texts.0.source=$DATA/ag_news/train_partial.tsv.gz")
texts+=(--set "transfer.texts.1.source=$DATA/wiki_en/paragraphs.tsv.gz" --set transfer.texts.1.documents=20000)
no_texts=(--set "transfer.texts=[]")

teach() {
  "$PYTHON" -m export teach export/recipes/conll2003-teacher.toml --out "$RUNS/conll2003-minilm" \
    --set "teacher.model=$TEACHER" "${labelled[@]}"
  "$PYTHON" -m export adopt "$RUNS/conll2003-minilm" --name conll2003-minilm --dev "$conll/dev.conll.gz" --models "$MODELS"
}

student() { # where to publish, the bundle's name, and what differs from the recipe
  "$PYTHON" -m export distill export/recipes/tang2019-conll2003.toml --models "$1" --work "$RUNS" --set "name=$2" \
    --set "teacher.model=$RUNS/conll2003-minilm" "${labelled[@]}" "${@:3}"
}

publish() { # the one that the repository brings, with MODELS=models: like the first seed's
  student "$MODELS" tagger-conll2003 "${texts[@]}" --set seed=1 --set version=1
}

distill() {
  for seed in "${@:-1}"; do
    student "$MODELS" conll2003-bilstm "${texts[@]}" --set "seed=$seed" --set "version=$seed"
  done
}

score() { # the test split of CoNLL, once, when everything is chosen
  for bundle in "$MODELS"/conll2003-minilm/1 "$MODELS"/conll2003-bilstm/* "$RUNS"/ner-ablation/*/*; do
    "$PYTHON" -m export evaluate "$bundle" "$conll/test.conll.gz"
  done
}

few=(--set training.epochs=30 --set training.patience=20) # fewer texts: more epochs, and none is stopped early

ablation() {
  for seed in "${@:-1}"; do
    student "$RUNS/ner-ablation" labels-alone "${no_texts[@]}" "${few[@]}" --set objective.alpha=1 \
      --set "seed=$seed" --set "version=$seed"
    student "$RUNS/ner-ablation" logits "${no_texts[@]}" "${few[@]}" --set "seed=$seed" --set "version=$seed"
  done
  "$PYTHON" -m export results "$RUNS/ner-ablation"
}

# Joint training: every data set that has a train split, one set of labels; what has others (OTH, DATE) is read as O.
# ROWS sentences lend their tags, the others are unlabelled text.
shopt -s extglob nullglob
languages='*' # joint_ablation takes some

splits() { # the train splits of these languages
  printf '%s\n' "$DATA"/{wikiann,uner,masakhaner2}/$languages.train.conll.gz
}

listed() { # the same as a TOML array
  local file found=()
  for file in $(splits); do found+=("\"$file\""); done
  (IFS=,; echo "[${found[*]}]")
}

joint_dev() { # 300 sentences of each dev split: what selects
  mkdir -p "$RUNS"
  for file in $(splits); do
    zcat "${file/.train./.dev.}" | awk -v RS= -v ORS='\n\n' 'NR <= 300'
  done > "$RUNS/$dev"
}

dev=joint-dev.conll
joint=(--set data.text=text --set data.label=label --set data.relabel.DATE=O --set data.relabel.OTH=O --set data.repair=true)

joint_teach() {
  joint_dev
  "$PYTHON" -m export teach export/recipes/wikiann-teacher.toml --out "$RUNS/joint-minilm" --set name=joint-minilm \
    --set "teacher.model=$TEACHER" --set "data.train=$(listed)" --set "data.dev=$RUNS/$dev" "${joint[@]}" \
    --set "data.rows=$ROWS" --set training.learning_rate=2e-4
}

joint_student() { # the bundle's name, and what differs from the recipe
  "$PYTHON" -m export distill export/recipes/mukherjee2020-wikiann.toml --models "$RUNS/joint" --work "$RUNS" \
    --set "name=$1" --set "teacher.model=$RUNS/joint-minilm" --set teacher.hidden.layer=4 --set student.dense=384 \
    --set "data.train=$(listed)" --set "data.dev=$RUNS/$dev" "${joint[@]}" --set "data.rows=$ROWS" --set student.embedding=128 \
    --set "student.hidden=$HIDDEN" --set training.batch_size=128 --set training.epochs=6 --set training.patience=3 "${@:2}"
}

once="epochs=2" # of the stages that are not the logits'

joint_distill() { # in stages, all layers at once (D4.1 of the paper)
  joint_student joint-bilstm --set "stages=[{representation=1.0, $once}, {logits=1.0}, {labels=1.0, $once}]"
}

joint_ablation() { # as in the paper; of six languages, with the labels of a quarter of their sentences and the teacher of all
  languages='@(hau|ibo|kin|lug|swa|yor)' ROWS=10000 dev=six-dev.conll
  joint_dev
  joint_student six-d0 --set 'stages=[{labels=1.0, epochs=20}]'                                 # labels alone (D0-S)
  joint_student six-d1 --set 'stages=[{logits=1.0, labels=1.0}]'                                # with logits
  joint_student six-d2 --set 'stages=[{representation=1.0, logits=1.0, labels=1.0}]'            # with hidden states, all at once
  joint_student six-d41 --set "stages=[{representation=1.0, $once}, {logits=1.0}, {labels=1.0, $once}]" # one after the other
  joint_student six-d42 --set "stages=[{representation=1.0, $once}, {logits=1.0, unfreeze=true, $once}, {labels=1.0, unfreeze=true, $once}]" # and unfrozen one by one
  "$PYTHON" -m export results "$RUNS/joint"
}

joint_table() { # the dev split of each language by itself: teacher, then student
  [ -e "$RUNS/joint/joint-minilm" ] || "$PYTHON" -m export adopt "$RUNS/joint-minilm" --name joint-minilm \
    --models "$RUNS/joint" --relabel DATE=O --relabel OTH=O --repair --dev "$RUNS/joint-dev.conll"
  joint_each dev
}

joint_score() { # the same of the test splits, once, when everything is chosen
  joint_each test
}

joint_each() {
  for bundle in joint-minilm joint-bilstm; do
    "$PYTHON" -m export evaluate "$RUNS/joint/$bundle/1" "$DATA"/{wikiann,uner,masakhaner2}/*."$1".conll.gz \
      --relabel DATE=O --relabel OTH=O --repair
  done
}

"$@"
