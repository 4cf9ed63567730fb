#!/usr/bin/env bash
# From nothing to a model whose tokens choose their depth: SmolLM2-135M-Instruct, converted, tuned towards itself, measured, with a page about it.
#   examples/convert-smollm2.sh                        on text that the model writes itself
#   examples/convert-smollm2.sh --data FILE_OR_FOLDER  on that and yours; may be given several times
#   examples/convert-smollm2.sh --tokens N             tokens to tune on (default 600k)
#   examples/convert-smollm2.sh --self-tokens N        tokens that the model writes for it (default 200k)
#   examples/convert-smollm2.sh --source MODEL         another dense model than SmolLM2, a folder or a .gguf file
#   examples/convert-smollm2.sh --out FOLDER           where everything goes (default smollm2-out)
#   examples/convert-smollm2.sh --build FOLDER         the program that is there, without set-up and build (default: made in build/release)
#   examples/convert-smollm2.sh --chat                 ends with a chat
# Every step that is done stays done, and tuning goes on behind its last checkpoint: the same command goes on where it was.
set -euo pipefail
from=$PWD
cd "$(dirname "$0")/.."
tokens=600k self_tokens=200k out=smollm2-out chat="" source="" build="" data=()
while [ $# -gt 0 ]; do
  case $1 in
    --data|--tokens|--self-tokens|--out|--source|--build)
      [ $# -ge 2 ] || { echo "convert-smollm2: $1 needs a value" >&2; exit 2; }
      value=$2
      case $1 in --tokens|--self-tokens) ;; *) [[ $value = /* ]] || value=$from/$value ;; esac  # as seen from where it was typed
      if [ "$1" = --data ]; then data+=(--data "$value"); else name=${1#--}; declare "${name/-/_}=$value"; fi
      shift 2 ;;
    --chat) chat=yes; shift ;;
    -h|--help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "convert-smollm2: unknown option '$1' (--help)" >&2; exit 2 ;;
  esac
done
begin=$SECONDS
say() { printf '\n── %s  (%dm%02ds)\n' "$*" $(((SECONDS - begin) / 60)) $(((SECONDS - begin) % 60)); }

if [ -z "$build" ]; then
  say "Set-up and build"
  build=build/release
  scripts/setup
  scripts/build $build -- fathom fathom-train
fi
fathom=$build/fathom
[ -n "$source" ] || source=$(scripts/get-smollm2)
mkdir -p "$out"
settings="source $source, tokens $tokens, of its own $self_tokens, data self ${data[*]-}"
[ -f "$out/settings" ] || printf '%s\n' "$settings" > "$out/settings"
if [ "$(cat "$out/settings")" != "$settings" ]; then
  printf 'convert-smollm2: %s was begun with: %s\n  and is asked for now with: %s\n  give the same words to go on, or another --out\n' "$out" "$(cat "$out/settings")" "$settings" >&2
  exit 2
fi

say "Conversion: routers and light paths in closed form"
[ -d "$out/converted" ] || $fathom convert "$source" "$out/converted" --data self ${data[@]+"${data[@]}"}

say "Tuning towards the dense model"
if [ ! -f "$out/run/config.json" ]; then
  rm -rf "$out/run"  # stopped before it began
  $fathom tune "$out/converted" --teacher "$source" --data self ${data[@]+"${data[@]}"} --tokens "$tokens" --self-tokens "$self_tokens" --validation-share 0.05 --checkpoint-seconds 120 --out "$out/run"
elif [ ! -f "$out/run/summary.json" ]; then
  $fathom tune --resume "$out/run"
fi

say "The curve: what each dial gives and costs, on the held-out text that set the dial"
[ -f "$out/curve.html" ] || $fathom dial "$out/run/model" --data "$out/run/data" --against "$source" --dials 1,0.85,0.75,0.65 --out "$out/curve.html"

say "Done"
echo "The page: $out/curve.html"
echo "A chat:   $fathom chat $out/run/model --dial 0.75"
[ -z "$chat" ] || exec "$fathom" chat "$out/run/model" --dial 0.75
