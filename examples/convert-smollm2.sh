#!/usr/bin/env bash
# From nothing to a model whose tokens choose their depth: SmolLM2-135M-Instruct, converted, tuned towards itself, measured, with a page about it.
#   examples/convert-smollm2.sh                        on text that the model writes itself
#   examples/convert-smollm2.sh --data FILE_OR_FOLDER  on that and yours; may be given several times
#   examples/convert-smollm2.sh --tokens N             tokens to tune on (default 600k: under an hour on 2 cores)
#   examples/convert-smollm2.sh --out FOLDER           where everything goes (default smollm2-out)
#   examples/convert-smollm2.sh --chat                 ends with a chat
# Every step that is done stays done: the same command goes on where it was.
set -euo pipefail
from=$PWD
cd "$(dirname "$0")/.."
tokens=600k out=smollm2-out chat="" data=()
while [ $# -gt 0 ]; do
  case $1 in
    --data|--tokens|--out)
      [ $# -ge 2 ] || { echo "convert-smollm2: $1 needs a value" >&2; exit 2; }
      value=$2
      case $1 in --data|--out) [[ $value = /* ]] || value=$from/$value ;; esac  # as seen from where it was typed
      if [ "$1" = --data ]; then data+=(--data "$value"); else declare "${1#--}=$value"; fi
      shift 2 ;;
    --chat) chat=yes; shift ;;
    -h|--help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "convert-smollm2: unknown option '$1' (--help)" >&2; exit 2 ;;
  esac
done
begin=$SECONDS
say() { printf '\n── %s  (%dm%02ds)\n' "$*" $(((SECONDS - begin) / 60)) $(((SECONDS - begin) % 60)); }

say "Set-up and build"
scripts/setup
scripts/build build/release -- fathom fathom-train
fathom=build/release/fathom
source=$(scripts/get-smollm2)
mkdir -p "$out"

say "Conversion: routers and light paths in closed form"
[ -d "$out/converted" ] || $fathom convert "$source" "$out/converted" --data self ${data[@]+"${data[@]}"}

say "Tuning towards the dense model"
if [ ! -f "$out/run/config.json" ]; then
  rm -rf "$out/run"  # stopped before it began
  $fathom tune "$out/converted" --teacher "$source" --data self ${data[@]+"${data[@]}"} --tokens "$tokens" --self-tokens 200k --out "$out/run"
elif [ ! -f "$out/run/summary.json" ]; then
  $fathom tune --resume "$out/run"
fi

say "The curve: what each dial gives and costs, on the held-out text that set the dial"
[ -f "$out/curve.html" ] || $fathom dial "$out/run/model" --data "$out/run/data" --against "$source" --context 512 --dials 1,0.85,0.75,0.65 --out "$out/curve.html"

say "Done"
echo "The page: $out/curve.html"
echo "A chat:   $fathom chat $out/run/model --dial 0.75"
[ -z "$chat" ] || exec $fathom chat "$out/run/model" --dial 0.75
