#!/usr/bin/env bash
# Measures what README's table says, with the peer in the same run, and prints that table's rows.
# Called by `./dev bench [NAME]`, which builds everything first. Names: line, decode.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/flowmesh
BENCH=$PWD/build/release/bench
export FLOWMESH_BIN_DIR=$PWD/build/release/bin FLOWMESH_SOURCE_DIR=$PWD
ROUNDS=3

say() { printf '%s\n' "$*" >&2; }

# The Python that the peers run in: FLOWMESH_BENCH_PYTHON, else an environment of its own.
python() {
  if [ -n "${FLOWMESH_BENCH_PYTHON:-}" ]; then
    "$FLOWMESH_BENCH_PYTHON" "$@"
    return
  fi
  local venv=$CACHE/bench-venv
  if ! cmp -s tests/bench/requirements.txt "$venv/installed.txt"; then
    say "== installing the peers (Transformers, about 5 GB) into $venv"
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

line() {
  local work url
  work=$(mktemp -d)
  redis-server --port 0 --unixsocket "$work/redis.sock" --save "" --daemonize yes --pidfile "$work/redis.pid" >/dev/null
  # The pid file's own process and nothing else.
  trap 'kill "$(cat "$work/redis.pid")" 2>/dev/null || true; rm -rf "$work"' RETURN
  until [ -S "$work/redis.sock" ]; do sleep 0.05; done
  url=unix://$work/redis.sock
  # In memory: ext4 looks long for free inodes while thousands were deleted a few minutes ago, so that each
  # run would slow the next. One run shows the disk.
  local round
  "$BENCH/line_bench" >"$work/disk"
  for round in $(seq $ROUNDS); do
    TMPDIR=/dev/shm "$BENCH/line_bench" >>"$work/ours"
    TMPDIR=/dev/shm python tests/bench/peer_echo.py --redis "$url" --tasks 3000 >>"$work/peer"
  done
  local echo peer
  echo=$(value "$work/ours" echo)
  peer=$(value "$work/peer" echo)
  row "sidecar, idle, resident" "$(value "$work/ours" "sidecar idle") MB" "" ""
  row "sidecar after the echo tasks, resident" "$(value "$work/ours" "sidecar after") MB" "" ""
  row "executor, idle, resident" "$(value "$work/ours" "executor idle") MB" "" ""
  row "sidecar, exec to IDLE in Redis" "$(value "$work/ours" start) ms" "" ""
  row "PUBLISH to TASK_STARTED" "$(value "$work/ours" latency) ms" "" ""
  row "echo tasks back to back, results in memory (tmpfs)" "$echo/s" "bare redis-py loop: $peer/s" "$(ratio "$echo" "$peer")"
  row "the same, results on disk" "$(value "$work/disk" echo)/s" "" ""
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

say "measuring on: $(nproc) x $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1), $(awk '/MemTotal/ {printf "%.0f GB", $2 / 1e6}' /proc/meminfo)"
printf '| what | ours | peer | ratio |\n| --- | --- | --- | --- |\n'
case "${1:-all}" in
  line) line ;;
  decode) decode ;;
  all) line; decode ;;
  *) say "bench: unknown name $1; names: line, decode"; exit 2 ;;
esac
