#!/usr/bin/env bash
# The main jobs on real input, each a workflow that goes through a real Redis, the local
# orchestrator, the sidecar, a CPU executor and its rank, and comes back over HTTP: first three
# stages of answers, then an adapter that is trained, uploaded, and fetched by the stage that uses it.
# Called by `./dev demo`, which builds everything first. Stops all that it started, also on Ctrl-C.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage="./dev demo [--keep] [--model PATH] [--all]
  --keep        leave everything running until Ctrl-C
  --model PATH  a model folder or a GGUF file instead of Gemma 3 270M
  --all         then the examples of clients/examples that need no other server"
model=
default_model=
encoder=
keep=no
all=no
while [ $# -gt 0 ]; do
  case "$1" in
    --default-model) default_model=$2; shift ;;
    --model) model=${2:?--model needs a path}; shift ;;
    --encoder) encoder=$2; shift ;;
    --keep) keep=yes ;;
    --all) all=yes ;;
    -h | --help) echo "$usage"; exit 0 ;;
    *) echo "demo: unknown option $1" >&2; echo "$usage" >&2; exit 2 ;;
  esac
  shift
done
if [ -n "$model" ]; then
  [ -e "$model" ] || { echo "demo: --model $model: no such file or folder" >&2; exit 2; }
  model=$(realpath "$model")
  targets=all-linear  # whatever this family calls its layers
else
  model=$default_model
  targets="[q_proj, v_proj]"
fi

bold= plain=
if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); fi
jq() { command jq --arg bold "$bold" --arg plain "$plain" "$@"; }
bin=$PWD/build/release/bin
work=$(mktemp -d "${TMPDIR:-/tmp}/flowmesh-demo-XXXXXX")
pids=()

stop_all() {
  trap - EXIT INT TERM
  local i
  # The sidecar first (it drains and unregisters), Redis last.
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    kill -TERM "${pids[i]}" 2>/dev/null || true
    wait "${pids[i]}" 2>/dev/null || true
  done
}
finish() {
  local status=$?
  if [ $status -eq 130 ]; then
    echo "demo: interrupted; stopping what was started" >&2
  elif [ $status -ne 0 ]; then
    echo "demo: failed (status $status); the logs are in $work:" >&2
    tail -n 5 "$work"/*.log >&2 || true
  fi
  stop_all
  exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

# start NAME COMMAND...: in the background, with its output in $work/NAME.log. Ctrl-C reaches this
# script only, which then stops the programs in order.
start() {
  local name=$1
  shift
  (cd "$work" && exec setsid "$@") >"$work/$name.log" 2>&1 &
  pids+=($!)
}
wait_for() {  # wait_for WHAT COMMAND...: until the command succeeds, at most 20 s
  local what=$1 tries=0
  shift
  until "$@" >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 400 ] || { echo "demo: $what does not come up" >&2; return 1; }
    sleep 0.05
  done
}
free_port() {
  local port
  while true; do
    port=$((20000 + RANDOM % 30000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo $port; return; }
  done
}

redis_port=$(free_port)
metrics_port=$(free_port)
export REDIS_URL=redis://127.0.0.1:$redis_port/0
unset ORCHESTRATOR_TOKEN AGENT_CONFIG_DIR

start redis redis-server --port "$redis_port" --bind 127.0.0.1 --save "" --appendonly no
wait_for redis-server redis-cli -p "$redis_port" ping
start orchestrator env ORCHESTRATOR_LISTEN=127.0.0.1:0 RESULTS_DIR="$work/results_host" "$bin/flowmesh-orchestrator"
wait_for "the orchestrator" grep -q '^listening on ' "$work/orchestrator.log"
url=$(sed -n 's/^listening on //p' "$work/orchestrator.log" | head -n 1)
start executor env EXECUTOR_LISTEN="unix:$work/executor.sock" EXECUTOR_DEVICES=cpu "$bin/flowmesh-executor"
start sidecar env EXECUTOR_ENDPOINTS="e0=unix:$work/executor.sock" WORKER_ID=demo-worker DRAIN_TIMEOUT_SEC=2 \
  SIDECAR_LISTEN="unix:$work/sidecar.sock" METRICS_LISTEN="127.0.0.1:$metrics_port" \
  ORCHESTRATOR_BASE_URL="$url" RESULTS_DIR="$work/results_worker" STATE_DIR="$work/state" "$bin/flowmesh-sidecar"
wait_for "the worker" sh -c "redis-cli -p $redis_port hget worker:demo-worker status | grep -qx IDLE"

ctl() { "$bin/flowmeshctl" "$@"; }
# filled FILE: a workflow of this folder with this run's model, data and addresses, in $work.
filled() {
  sed -e "s|\$MODEL|$model|; s|\$RESULTS_URL|$url/api/v1/results|" \
    -e "s|\$TARGETS|$targets|; s|\$DATA|$PWD/clients/demo/parrot.jsonl|" "clients/demo/$1" >"$work/$1"
  echo "$work/$1"
}
task_of() { jq -r --arg name "$1" '.[] | select(.graph_node_name == $name) | .task_id' <<<"$tasks"; }
result_of() { curl -fsS "$url/api/v1/results/$(task_of "$1")"; }

echo "Model: $model"
if [ "$model" = "$default_model" ]; then
  echo "       Gemma 3 270M, under the Gemma Terms of Use (https://ai.google.dev/gemma/terms)"
fi
echo "Line:  $url -> Redis :$redis_port -> sidecar -> executor -> rank"
echo
echo "== First act: three stages of answers"
ctl submit "$(filled workflow.yaml)" --orchestrator "$url" --watch --fail-fast

tasks=$(curl -fsS "$url/api/v1/tasks")
echo
for stage in ask follow-up; do
  echo "Stage $stage:"
  result_of $stage | jq -r '.result.items[] | "  \(.prompt | gsub("\n"; "\n  "))\($bold)\(.output)\($plain)\n"'
done
echo "Stage report, through the echo task:"
result_of report | jq -c '.result.echo.data.items'
echo
result_of ask | jq -r '.result.usage | "Tokens: \(.prompt_tokens) in, \(.completion_tokens) out, \(.latency_sec * 1000 | round) ms"'
answers=$work/results_host/$(task_of ask)/responses.json

cat <<TEXT

== Second act: the model learns to talk like a ship's parrot
Data:  clients/demo/parrot.jsonl, $(wc -l <clients/demo/parrot.jsonl) questions and answers, for about a minute
       (stages before, train and after; the adapter goes to the last one by URL)

TEXT
ctl submit "$(filled training.yaml)" --orchestrator "$url"
tasks=$(curl -fsS "$url/api/v1/tasks")
for stage in before train after; do
  wait_for "stage $stage" ctl show "$(task_of $stage)" --sidecar "unix:$work/sidecar.sock"
  ctl watch "$(task_of $stage)" --sidecar "unix:$work/sidecar.sock" >"$work/$stage.out"
done
wait_for "the end of the last stage" sh -c "$bin/flowmeshctl show $(task_of after) --orchestrator $url | grep -q DONE"

echo
jq -rn --slurpfile before <(result_of before) --slurpfile after <(result_of after) '
  [$before[0].result.items, $after[0].result.items] | transpose[] |
  "  \(.[0].prompt | sub("\nAnswer:$"; ""))\n    \(.[0].output + " " * 24 | .[:24]) -> \($bold)\(.[1].output)\($plain)\n"'
first_loss=$(head -n 1 "$work/results_worker/$(task_of train)/artifacts/metrics.jsonl" | jq .loss)
result_of train | jq -r --argjson first "$first_loss" '.result | "Trained: \(.global_steps) steps, \(.num_tokens) tokens in " +
  "\(.training_time_seconds | round) s, loss \($first * 100 | round / 100) to \(.metrics.loss * 100 | round / 100)\n" +
  "Adapter: \(.final_lora_path) (\(.final_lora_archive_bytes) bytes packed with its tokenizer),\n         \(.final_lora_archive_url)"'

# example NAME JQ: runs an example as a person would, with this run's models, and shows its result.
example() {
  printf '\nclients/examples/%s:\n' "$1"
  sed -e "s|sentence-transformers/all-MiniLM-L6-v2|$encoder|; s|\./results_workers/handbook\.db|$work/handbook.db|" \
    -e "s|~/\.cache/flowmesh/models/gemma.*\.gguf|$default_model|" "clients/examples/$1" >"$work/$1"
  ctl run "$work/$1" --json 2>"$work/$1.log" | jq -rs "last | .result | $2"
}
if [ $all = yes ]; then
  printf '\n== Third act: one task each by flowmeshctl run, without Redis and orchestrator\n'
  mkdir "$work/configurations"
  sed -e "s|~/\.cache/flowmesh/models/gemma.*\.gguf|$default_model|" clients/examples/configurations/local.yaml \
    >"$work/configurations/local.yaml"
  example rag_embedded.yaml '.queries[] | "  \(.query)\n    \(.answer // "" | gsub("\n"; " "))",
    (.items[] | "    [\(.score * 100 | round / 100)] \(.payload.text | gsub("\n"; " ") | .[:90])")'
  example agent_local.yaml '.metadata.batch_summary, (.items[] | "  \(.output)")'
fi

cat <<TEXT

Files:   $answers   (what the orchestrator stored)
         $work/results_worker/$(task_of train)/               (the worker's task folder: manifest, logs)
         $work/*.log
TEXT
look=$(cat <<TEXT
  $bin/flowmeshctl worker --sidecar unix:$work/sidecar.sock
  $bin/flowmeshctl list --orchestrator $url
  grpcurl -plaintext -unix $work/sidecar.sock flowmesh.v1.Sidecar/ListTasks
  redis-cli -p $redis_port hgetall worker:demo-worker
  curl -s http://127.0.0.1:$metrics_port/metrics
TEXT
)
if [ $keep = yes ]; then
  printf '\nLook further from another terminal:\n%s\n\nRunning until Ctrl-C.\n' "$look"
  trap 'echo; exit 0' INT TERM
  while sleep 1; do :; done
else
  printf '\nTo look further, run `./dev demo --keep`; it prints these commands with live addresses:\n%s\n' "$look"
fi
