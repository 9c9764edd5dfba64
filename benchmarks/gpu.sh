#!/usr/bin/env bash
# Everything that needs a GPU, in one bounded run of about six minutes: tests, speed, a split of COCO 5K's size.
# Results go to benchmarks/results; with OUT=DIR they and the log of the tests are copied there too.
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
export PYTHONPATH=src${PYTHONPATH:+:$PYTHONPATH}
out=${OUT:-/tmp/tshsr-gpu}
mkdir -p "$out"
"$PYTHON" -c 'import torch; assert torch.cuda.is_available(), "no CUDA device is here"; print(torch.cuda.get_device_name(0), torch.__version__)' || exit 2
timeout 90 "$PYTHON" -m pytest -q -k cuda tests/models -p no:cacheprovider 2>&1 | tee "$out/tests.log" | tail -5
timeout 120 "$PYTHON" -m benchmarks.speed --device cuda --captions 500 --repeats 3 2>&1 | tail -5
timeout 300 "$PYTHON" -m benchmarks.gpu "$@" 2>&1 | tail -12
cp -f benchmarks/results/speed-cuda.json benchmarks/results/scale-cuda.json "$out"/
