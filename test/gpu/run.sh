#!/usr/bin/env bash
# Builds the engine libraries for CUDA from their sources and our native library, runs the device tests and measures
# loads to the device, in one call of at most ten minutes. Bash and not Node: a bare machine with a GPU has no Node. The
# last line of standard output is one JSON object. Exit status: 0 all well, 1 something failed, 2 wrong arguments, 77
# skipped. README.md has the rest.
set -uo pipefail

usage="usage: bash test/gpu/run.sh [--arch <90>] [--mebibytes <4096>] [--rounds <5>] [--folder <path>] [--minutes <9>]"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
arch="" mebibytes=4096 rounds=5 folder="" minutes=9

# What the engine libraries call themselves; the release's own build has it from git, which an archive has not.
ggml_commit=0ad4a86

say() { echo "gpu: $*" >&2; }
# Text of the machine's tools as a JSON string.
quoted() { printf '"%s"' "$(printf '%s' "$1" | tr -d '\000-\037' | sed 's/[\\"]/\\&/g')"; }
finish() { # status, fields of the object
  echo "{$2}"
  exit "$1"
}
skip() {
  say "skipped: $1"
  finish 77 "\"skipped\":$(quoted "$1")"
}
wrong() {
  echo "$1" >&2
  echo "$usage" >&2
  exit 2
}

while [ $# -gt 0 ]; do
  case "$1" in
    --arch | --mebibytes | --rounds | --minutes)
      [[ "${2:-}" =~ ^[1-9][0-9]{0,5}$ ]] || wrong "$1 takes a positive whole number"
      printf -v "${1#--}" %s "$2" ;;
    --folder)
      [ -d "${2:-}" ] || wrong "--folder takes a folder that is there"
      folder=$2 ;;
    *) wrong "unknown argument $1" ;;
  esac
  shift 2
done

command -v nvidia-smi >/dev/null || skip "no NVIDIA GPU: nvidia-smi was not found"
gpu=$(nvidia-smi --query-gpu=name,compute_cap,driver_version --format=csv,noheader 2>/dev/null | head -n 1)
[ -n "$gpu" ] || skip "no NVIDIA GPU: nvidia-smi lists none"
PATH=$PATH:/usr/local/cuda/bin
for tool in nvcc cmake c++ tar; do
  command -v "$tool" >/dev/null || skip "$tool was not found; it is needed to build"
done
[ -n "$arch" ] || arch=$(echo "$gpu" | cut -d, -f2 | tr -d ' .')

cache=$root/test/.cache/gpu
archive=$cache/source.tar.gz
if [ ! -e "$archive" ]; then
  command -v node >/dev/null || skip "no $archive: run node test/gpu/prepare.mjs where the npm registry can be reached"
  node "$root/test/gpu/prepare.mjs" >/dev/null || finish 1 '"failed":"prepare"'
fi

source=$cache/source engine=$cache/engine-$arch native=$cache/native-$arch
folder=${folder:-$cache}
deadline=$((SECONDS + minutes * 60))
facts="\"gpu\":$(quoted "$gpu"),\"arch\":$arch,\"nvcc\":$(quoted "$(nvcc --version | grep release)")"
generator="Unix Makefiles"
command -v ninja >/dev/null && generator=Ninja

# Runs a stage within what is left of the time, its output in a log; its failure ends the run. What was built is kept,
# so that another call goes on from there.
stage() { # name, command...
  local name=$1 began=$SECONDS log=$cache/$1.log
  shift
  say "$name"
  if ! timeout $((deadline > SECONDS ? deadline - SECONDS : 1)) "$@" >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    finish 1 "$facts,\"failed\":\"$name\",\"seconds\":$SECONDS"
  fi
  facts+=",\"${name}_s\":$((SECONDS - began))"
}

unpack() {
  [ ! -e "$source/.complete" ] || return 0
  rm -rf "$source" && mkdir -p "$source" && tar -xzf "$archive" -C "$source" && touch "$source/.complete"
}

configure_engine() {
  cmake -S "$source" -B "$engine" -G "$generator" -DCMAKE_BUILD_TYPE=Release -DCMAKE_BUILD_RPATH_USE_ORIGIN=ON \
    -DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES="$arch" -DGGML_BACKEND_DL=ON -DGGML_NATIVE=OFF \
    -DLLAMA_BUILD_COMMIT=$ggml_commit -DGIT_EXE=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_COMMON=ON \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF \
    -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF
}

build_engine() {
  cmake --build "$engine" --parallel "$(nproc)" --target ggml-cuda ggml-cpu ggml llama llama-common || return 1
  # Under the names that the released packages give them.
  ln -sf libllama.so "$engine/bin/libllama.cuda.v0.5.0.so" && ln -sf libggml.so "$engine/bin/libggml.cuda.v0.5.0.so"
}

build_native() {
  cmake -S "$root/native" -B "$native" -G "$generator" -DSLLM_LLAMA_HEADERS="$source" -DSLLM_DEVICE_KIND=cuda \
    -DSLLM_DEVICE_LIBRARIES="$engine/bin" &&
    cmake --build "$native" --parallel "$(nproc)" --target sllm sllm_llama stream_test upload_test device_test \
      sllm_bench_device
}

run_tests() { ctest --test-dir "$native" -R '^(device|stream): ' --timeout 120 --output-on-failure; }

# Medians of one way to bring weights in; with a variable of the environment or without.
bench() {
  env "$@" "$native/sllm_bench_device" "$folder" "$mebibytes" "$rounds"
}

# Stages run under timeout, which starts programs: functions go through a shell of their own.
export root cache archive source engine native folder generator arch ggml_commit mebibytes rounds
export -f unpack configure_engine build_engine build_native run_tests bench
stage unpack bash -c unpack
stage configure_engine bash -c configure_engine
stage build_engine bash -c build_engine
stage build_native bash -c build_native
stage tests bash -c run_tests
passed=$(grep -c ' Passed ' "$cache/tests.log")
skipped=$(grep -c 'Skipped ' "$cache/tests.log")
facts+=",\"tests\":{\"passed\":$passed,\"skipped\":$skipped}"
stage bench_staged bash -c 'bench SLLM_GPU_BENCH=staged'
stage bench_registered bash -c 'bench GGML_CUDA_REGISTER_HOST=1'
facts+=",\"staged\":$(tail -n 1 "$cache/bench_staged.log")"
facts+=",\"registered\":$(tail -n 1 "$cache/bench_registered.log")"
finish 0 "$facts"
