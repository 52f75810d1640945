#!/usr/bin/env bash
# Makes every model behind docs/results/chen2021.md, from the repository's root:
#   docs/results/chen2021.sh encoders | curves | tasks [SEED…] | score [SEED…]
# DATA holds wiki_en/paragraphs.tsv.gz and imdb/unsup.tsv.gz (column text), sst2/{train,dev}, sick/{train,dev,test},
# stsb/{train,dev,test} and tweeteval_emotion/{train,dev,test} (.tsv.gz: text, text2 of pairs, label); TEACHER is
# all-MiniLM-L6-v2. OBJECTIVES and TASKS may name some. Dev selects. `score` opens the test splits: once, when all is chosen.
set -euo pipefail
DATA=${DATA:-data} TEACHER=${TEACHER:-teachers/all-MiniLM-L6-v2} PYTHON=${PYTHON:-.venv-dev/bin/python}
RUNS=${RUNS:-runs} SHAPE=${SHAPE:-3x192x6x768} WHAT=$1
SEEDS=("${@:2}")
[ ${#SEEDS[@]} -gt 0 ] || SEEDS=(1 2 3)
OBJECTIVES=(${OBJECTIVES:-minilm tinybert}) BEGINNINGS=(nothing chance importance) TASKS=(${TASKS:-sst2 sick stsb emotion})

encoders() { # each objective from random weights, from a random extract (ETD-Rand) and from an important one (ETD-Impt)
  local texts='texts=[{source="", sentences=true, min_words=5, max_words=64, documents=12000}, {source="", sentences=true, min_words=5, max_words=64, documents=2500}]'
  for objective in "${OBJECTIVES[@]}"; do
    for beginning in "${BEGINNINGS[@]}"; do
      [ -e "$RUNS/etd/$objective-$beginning/cost.json" ] || "$PYTHON" -m export pretrain export/recipes/chen2021-minilm.toml \
        --out "$RUNS/etd/$objective-$beginning" --work "$RUNS" --set "name=$objective-$beginning" --set "student=$SHAPE" \
        --set "teacher.model=$TEACHER" --set "comparing.by=$objective" --set "extraction.by=$beginning" --set "$texts" \
        --set "texts.0.source=$DATA/wiki_en/paragraphs.tsv.gz" --set "texts.1.source=$DATA/imdb/unsup.tsv.gz" \
        --set judging=500 --set training.evaluations_per_epoch=40 --set training.patience=99
    done
  done
}

curves() { # computing that extraction saved, by the loss on texts that were held out
  for objective in "${OBJECTIVES[@]}"; do
    "$PYTHON" -m export saving "$RUNS/etd/$objective-nothing" "$RUNS/etd/$objective-chance" "$RUNS/etd/$objective-importance" \
      --plot "docs/results/chen2021-$objective.svg"
  done
}

described() { # a task's options: sets `of` to its recipe and what is set in it, `columns` to what evaluate needs
  folder=$DATA/$1 columns=()
  case $1 in
    sick | stsb) columns=(--pair text2) ;;
    emotion) folder=$DATA/tweeteval_emotion ;;
  esac
  of=(export/recipes/$1-teacher.toml --set "data.train=$folder/train.tsv.gz" --set data.text=text)
  of+=(--set "data.dev=$folder/dev.tsv.gz")
  [ "$1" = emotion ] || of+=(--set adaptation=) # its recipe has none
  [ ${#columns[@]} -eq 0 ] || of+=(--set data.pair=text2)
}

tasks() { # each encoder fine-tuned like any BERT, and published as a small student
  for task in "${TASKS[@]}"; do
    described "$task"
    for seed in "${SEEDS[@]}"; do
      for objective in "${OBJECTIVES[@]}"; do
        for beginning in "${BEGINNINGS[@]}"; do
          local name=$task-$objective-$beginning
          [ -e "$RUNS/etd/models/$name/$seed" ] && continue
          [ -e "$RUNS/etd/$name-$seed/recipe.toml" ] || "$PYTHON" -m export teach "${of[@]}" --out "$RUNS/etd/$name-$seed" --set "seed=$seed" \
            --set "teacher.model=$RUNS/etd/$objective-$beginning" --set training.learning_rate=3e-4
          "$PYTHON" -m export adopt "$RUNS/etd/$name-$seed" --role student --name "$name" --version "$seed" \
            --dev "$folder/dev.tsv.gz" "${columns[@]}" --models "$RUNS/etd/models"
        done
      done
    done
  done
  "$PYTHON" -m export results "$RUNS/etd/models"
}

score() { # SST-2 has no test split here
  for task in "${TASKS[@]}"; do
    described "$task"
    [ -e "$folder/test.tsv.gz" ] || continue
    for seed in "${SEEDS[@]}"; do
      for bundle in "$RUNS"/etd/models/"$task"-*/"$seed"; do
        "$PYTHON" -m export evaluate "$bundle" "$folder/test.tsv.gz" "${columns[@]}"
      done
    done
  done
}

"$WHAT"
