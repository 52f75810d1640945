#!/usr/bin/env bash
# Makes every model behind docs/results/pairs.md and tasks.md, from the repository's root, and scores them:
#   docs/results/tasks.sh teach | alone | students | ablation | publish | score  mrpc | sick | rte | stsb | reuters | clinc150 | emotion  [SEED…]
# and those behind docs/results/wu2020.md, in this order, after `teach`:
#   docs/results/tasks.sh encoder; docs/results/tasks.sh begun | begun_distilled  mrpc | sick | rte | stsb | sst2 | few-100 | few-500  [SEED…]
# DATA holds mrpc/{glue_train,glue_dev,tokenised_test}, {sick,stsb,clinc150,tweeteval_emotion}/{train,dev,test}, rte/{train,dev}
# and reuters21578_90cat/{train,test}.tsv.gz (columns text, text2 of pairs, label; of Reuters text, topics), sst2/{train,dev};
# TEACHER is all-MiniLM-L6-v2. SST-2's teacher is the bundle that the repository brings; of few-N, which has so many of its
# labels a class and nothing else, `teach` makes one. Without local files, leave the --set options out: the recipes name the same on the hub.
# Dev selects. `score` opens the test split: once, when everything is chosen.
set -euo pipefail
DATA=${DATA:-data} TEACHER=${TEACHER:-teachers/all-MiniLM-L6-v2} PYTHON=${PYTHON:-.venv-dev/bin/python}
RUNS=${RUNS:-runs} MODELS=${MODELS:-runs/tasks} WHAT=$1 NAME=${2-}
SEEDS=("${@:3}")
[ ${#SEEDS[@]} -gt 0 ] || SEEDS=(1 2 3)

folder=$DATA/$NAME columns=() recipe=export/recipes/tang2019-$NAME.toml teacher=export/recipes/$NAME-teacher.toml
case $NAME in
  mrpc | sick | rte | stsb) columns=(--pair text2) ;;
  emotion) folder=$DATA/tweeteval_emotion ;;
  reuters) folder=$DATA/reuters21578_90cat columns=(--label topics) ;;
  sst2 | few-*) folder=$DATA/sst2 recipe=export/recipes/tang2019-sst2.toml teacher=export/recipes/sst2-teacher.toml ;;
  clinc150) recipe=$RUNS/clinc150.toml teacher=$RUNS/clinc150-teacher.toml ;;
esac
train=$folder/train.tsv.gz dev=$folder/dev.tsv.gz test=$folder/test.tsv.gz
case $NAME in
  mrpc) train=$folder/glue_train.tsv.gz dev=$folder/glue_dev.tsv.gz test=$folder/tokenised_test.tsv.gz ;; # in GLUE's spelling
  reuters) # has no dev split: every tenth row
    mkdir -p "$RUNS"
    dev=$RUNS/reuters-dev.tsv && zcat "$train" | awk 'NR == 1 || NR % 10 == 0' > "$dev"
    zcat "$train" | awk 'NR == 1 || NR % 10' > "$RUNS/reuters-train.tsv" && train=$RUNS/reuters-train.tsv
    ;;
esac
case $NAME in
  few-*) # the first rows of each label
    mkdir -p "$RUNS"
    zcat "$train" | awk -F'\t' -v most="${NAME#few-}" 'NR == 1 { print; for (i = 1; i <= NF; i++) if ($i == "label") at = i; next } seen[$at]++ < most' > "$RUNS/$NAME.tsv"
    train=$RUNS/$NAME.tsv
    ;;
esac
taught=$RUNS/$NAME-minilm
[ "$NAME" != sst2 ] || taught=models/sst2-minilm/1
labelled=(--set "data.train=$train" --set "data.dev=$dev" --set data.text=text)
case $NAME in
  mrpc | sick | rte | stsb) labelled+=(--set data.pair=text2) ;;
  clinc150) [ -e "$recipe" ] || "$PYTHON" -m export init "$train" --dev "$dev" --name clinc150 --into "$RUNS" ;;
esac
# A tenth of the rows or fewer: more epochs, and stopped later, for an epoch has some 30 steps.
no_copies=(--set transfer.augment.copies=0 --set training.epochs=60 --set training.evaluations_per_epoch=1)
no_copies+=(--set training.patience=20)

narrow=() # what differs from the recipe in all of a task's students
adapted=() # teachers of pairs read pairs of three data sets before they learn; the same for all, so it is done once
case $NAME in
  mrpc | sick | rte | stsb)
    number=0
    for source in mrpc/glue_train sick/train stsb/train; do
      adapted+=(--set "adaptation.texts.$number.source=$DATA/$source.tsv.gz")
      adapted+=(--set "adaptation.texts.$number.column=text" --set "adaptation.texts.$number.pair=text2")
      number=$((number + 1))
    done
    for other in "$RUNS"/{mrpc,sick,rte,stsb}-minilm.adapted; do
      [ ! -e "$other/tokenizer.json" ] || [ -e "$RUNS/$NAME-minilm.adapted" ] || cp -r "$other" "$RUNS/$NAME-minilm.adapted"
    done
    ;;
  reuters) # 128 pieces and four epochs instead of 256 and five: what a core can train in an hour or so
    adapted=(--set training.epochs=4)
    labelled+=(--set teacher.max_tokens=128)
    narrow=(--set student.max_tokens=128 --set student.hidden=128)
    ;;
  few-*) adapted=(--set adaptation= --set training.epochs=15 --set training.batch_size=16 --set training.learning_rate=1e-4) ;;
esac

teach() {
  "$PYTHON" -m export teach "$teacher" --out "$RUNS/$NAME-minilm" --set "teacher.model=$TEACHER" "${labelled[@]}" \
    "${adapted[@]}"
  "$PYTHON" -m export adopt "$RUNS/$NAME-minilm" --name "$NAME-minilm" --dev "$dev" "${columns[@]}" --models "$MODELS"
}

student() { # the bundle's name, its seed, which is also its version, and what differs from the recipe; none is made twice
  [ ! -e "$MODELS/$1/$2" ] || return 0
  "$PYTHON" -m export distill "$recipe" --work "$RUNS" --models "$MODELS" \
    --set "name=$1" --set "version=$2" --set "seed=$2" --set "teacher.model=$taught" "${labelled[@]}" "${narrow[@]}" \
    "${@:3}"
}

alone() { # the network from the labels alone
  for seed in "${SEEDS[@]}"; do
    student "$NAME-alone" "$seed" "${no_copies[@]}" --set objective.alpha=1
  done
}

students() { # the same, and distilled
  alone
  for seed in "${SEEDS[@]}"; do
    student "$NAME-distilled" "$seed"
  done
  "$PYTHON" -m export results "$MODELS"
}

encoder() { # wu2020's, of news, film reviews and Wikipedia, with which students may begin
  local texts='texts=[{source="", sentences=true, min_words=4, max_words=64}, {source="", sentences=true, min_words=4, max_words=64, documents=9000}'
  "$PYTHON" -m export pretrain export/recipes/wu2020-minilm.toml --out "$RUNS/wu2020" --work "$RUNS" \
    --set "teacher.model=$TEACHER" --set training.epochs=5 --set training.batch_size=128 \
    --set "$texts, {source=\"\", sentences=true, min_words=4, max_words=64, documents=28000}]" \
    --set "texts.0.source=$DATA/ag_news/train_partial.tsv.gz" --set "texts.1.source=$DATA/imdb/unsup.tsv.gz" \
    --set "texts.2.source=$DATA/wiki_en/paragraphs.tsv.gz"
}

wide=(--set student.architecture=encoder --set student.embedding=128 --set student.hidden=256 --set student.dense=384)
wide+=(--set student.activation=linear --set student.pooling=max)
begins=(--set "student.begins=$RUNS/wu2020")

described() { # what differs from a task's recipe in students of the encoder's network: from the labels alone, and distilled
  from_labels=("${no_copies[@]}" --set objective.alpha=1) distilled=(--set transfer.augment.copies=4)
  case $NAME in
    sst2) # no film reviews beside its own texts, and no copies of them: the encoder has read reviews
      wide+=(--set "transfer.texts=[]" --set transfer.augment.copies=0 --set training.epochs=4 --set training.batch_size=128)
      from_labels=(--set objective.alpha=1) distilled=()
      ;;
    few-*)
      wide+=(--set "transfer.texts=[]" --set training.batch_size=32 --set training.epochs=30 --set training.evaluations_per_epoch=1)
      from_labels=(--set transfer.augment.copies=0 --set objective.alpha=1) distilled=(--set transfer.augment.copies=10)
      ;;
  esac
}

begun() { # the encoder's network from the labels alone, and beginning with its weights
  described
  for seed in "${SEEDS[@]}"; do
    student "$NAME-wide" "$seed" "${wide[@]}" "${from_labels[@]}"
    student "$NAME-begun" "$seed" "${wide[@]}" "${begins[@]}" "${from_labels[@]}"
  done
  "$PYTHON" -m export results "$MODELS"
}

begun_distilled() { # both of them distilled
  described
  for seed in "${SEEDS[@]}"; do
    student "$NAME-wide-distilled" "$seed" "${wide[@]}" "${distilled[@]}"
    student "$NAME-begun-distilled" "$seed" "${wide[@]}" "${begins[@]}" "${distilled[@]}"
  done
  "$PYTHON" -m export results "$MODELS"
}

publish() { # the one that the repository brings, with MODELS=models: CLINC150's, like its first seed's
  student voice-intents 1
}

ablation() { # distilled without augmented rows
  for seed in "${SEEDS[@]}"; do
    student "$NAME-logits" "$seed" "${no_copies[@]}"
  done
  "$PYTHON" -m export results "$MODELS"
}

score() { # once, when everything is chosen; of pairs also those rows that no teacher of pairs has read (overlap.py)
  local splits=("$test")
  case $NAME in
    mrpc | sick | stsb)
      local split=${test#"$DATA"/}
      DATA=$DATA "$PYTHON" docs/results/overlap.py "${split%.tsv.gz}" > "$RUNS/$NAME-unread.tsv"
      splits+=("$RUNS/$NAME-unread.tsv")
      ;;
  esac
  "$PYTHON" -m export evaluate "$MODELS/$NAME-minilm/1" "${splits[@]}" "${columns[@]}"
  for seed in "${SEEDS[@]}"; do
    for kind in alone distilled wide begun wide-distilled begun-distilled; do
      [ ! -e "$MODELS/$NAME-$kind/$seed" ] || "$PYTHON" -m export evaluate "$MODELS/$NAME-$kind/$seed" "${splits[@]}" "${columns[@]}"
    done
  done
}

"$WHAT"
