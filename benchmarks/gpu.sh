#!/usr/bin/env bash
# Everything that needs a GPU, in one run of less than nine minutes: every step ends at its timeout, or is killed after a
# grace, and writes what it has measured until then. Works from the checkout alone. Exits with 1 where a step failed.
#
#   benchmarks/gpu.sh                    tests, kernels, a split of COCO 5K's size, a training step, speed, compilation
#   benchmarks/gpu.sh photos STORE       trains tshsr-flickr8k-photos at full width on a store of Flickr8k, dev figures;
#                                        with TOY=1 a tiny network on a CPU, one epoch of a hundredth of the captions
#   TOY=1 benchmarks/gpu.sh              the first at a tiny size on a CPU, the kernels in Triton's interpreter, without
#                                        speed, which has a size of its own for CPUs
#
# Results go to benchmarks/results; with OUT=DIR they, the profiles and the log of the tests are copied there too.
set -u
refuse() { # sentence: an error of the caller
  echo "benchmarks/gpu.sh: $1" >&2
  exit 2
}
case "${1:-} $#" in
  " 0" | "photos 2") ;;
  photos*) refuse "photos expects one store of Flickr8k; name its folder: benchmarks/gpu.sh photos STORE" ;;
  *) refuse "expected nothing, or photos STORE; got $*" ;;
esac
out=${OUT:-/tmp/tshsr-gpu} store=${2:-/}
[ "${out#/}" != "$out" ] || out=$PWD/$out
[ "${store#/}" != "$store" ] || store=$PWD/$store
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
export PYTHONPATH=src${PYTHONPATH:+:$PYTHONPATH}
mkdir -p "$out"
device=cuda
if [ -n "${TOY:-}" ]; then
  device=cpu
  export TRITON_INTERPRET=1
else
  export TRITON_INTERPRET=0
  "$PYTHON" -c 'import torch' 2>"$out/python.log" || refuse "$PYTHON cannot import torch ($out/python.log); name another one by PYTHON=..."
  "$PYTHON" -c 'import torch; print(torch.cuda.get_device_name(0), torch.__version__)' 2>"$out/python.log" ||
    refuse "no CUDA device is here ($out/python.log); TOY=1 rehearses on a CPU"
fi
failed=0 grace=1
step() { # seconds, name, command: its last lines, and its whole output in $out/NAME.log
  local seconds=$1 name=$2 began=$SECONDS code
  shift 2
  timeout --kill-after="$grace" "$seconds" "$@" >"$out/$name.log" 2>&1
  code=$?
  [ "$code" = 0 ] || failed=1
  echo "== $name: exit $code, $((SECONDS - began)) s of at most $seconds" && tail -n 6 "$out/$name.log"
}
if [ "${1:-}" = photos ]; then
  sizes=(--training.epochs 6 --model.encoder.dim 1024 --model.similarity-dim 256 --model.comparison-dim 256)
  [ -n "${TOY:-}" ] && sizes=(--training.epochs 1 --training.captions-share 0.01 --training.dev-images 100 --model.streams word --model.reasoning.levels 0 --model.encoder.dim 16 --model.similarity-dim 8 --model.comparison-dim 8 --device cpu)
  grace=30 # training saves its state
  step 480 photos "$PYTHON" -m tshsr train tshsr-flickr8k-photos --data "$store" --out "$out/photos" "${sizes[@]}"
  exit "$failed"
fi
ways=(--device "$device" --out benchmarks/results)
if [ -n "${TOY:-}" ]; then
  step 400 tests "$PYTHON" -m pytest -q -k cuda tests/models tests/scoring/test_fused.py -p no:cacheprovider
  step 600 kernels "$PYTHON" -m benchmarks.kernels "${ways[@]}" --toy --images 1 --captions 1 --repeats 1 --seconds 500 --ways eager fused "fused, CUDA graph"
  step 600 scale "$PYTHON" -m benchmarks.gpu --device cpu --seconds 500 --images 1 --dim 16 --width 8 --budgets 1048576 --toy
  step 300 train-step "$PYTHON" -m benchmarks.gpu_step --device cpu --dim 16 --batch 6 --repeats 1 --seconds 5
  step 300 compiled "$PYTHON" -m benchmarks.kernels "${ways[@]}" --toy --images 2 --captions 2 --repeats 1 --ways compiled --backend eager
else
  step 100 tests "$PYTHON" -m pytest -q -k cuda tests/models tests/scoring/test_fused.py -p no:cacheprovider
  step 110 kernels "$PYTHON" -m benchmarks.kernels "${ways[@]}" --seconds 90
  step 155 scale "$PYTHON" -m benchmarks.gpu --seconds 140
  step 40 train-step "$PYTHON" -m benchmarks.gpu_step
  step 65 speed "$PYTHON" -m benchmarks.speed --device cuda --captions 500 --repeats 3
  step 60 compiled "$PYTHON" -m benchmarks.kernels "${ways[@]}" --ways compiled
fi
mv -f benchmarks/results/profile-*.trace.gz benchmarks/results/profile-*.json "$out"/ 2>/dev/null
cp -f benchmarks/results/{kernels,scale,step,speed}-"$device".json "$out"/
exit "$failed"
