#!/bin/sh
# Checks this machine's GPU: proofs first, then speeds. Needs Python 3.11 or newer with torch and numpy, nothing else.
#   ./run.sh                          25 minutes at most; call it again to go on where it stopped
#   MINUTES=9 ./run.sh                where a command may take ten minutes
#   ./run.sh --device cpu --quick     anywhere, in a minute
# Results: the folder results, copied to $OUT at the end where that is set. Packages: wheels/, see WHEELS.txt.
cd "$(dirname "$0")" || exit 2
PYTHON=${PYTHON:-python3}
mkdir -p results
if ls wheels/*.whl >/dev/null 2>&1 && [ ! -e packages/.done ]; then
  for wheel in wheels/*.whl; do # one by one: a wheel for another Python must not keep the others out
    case $wheel in wheels/torch-*|wheels/numpy-*) continue ;; esac # the machine's own
    "$PYTHON" -m pip install -q --no-index --no-deps --target packages "$wheel" || echo "left out: $wheel"
  done
  mkdir -p packages && touch packages/.done
fi
export PYTHONPATH="$PWD/packages${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
finish() {
  ls results/*.jsonl >/dev/null 2>&1 || return
  "$PYTHON" scripts/gpu_report.py results/*.jsonl >/dev/null || echo "no report; the rows are in results"
  if [ -n "$OUT" ]; then cp results/*.* "$OUT"; fi
}
"$PYTHON" scripts/gpu_check.py --minutes "${MINUTES:-25}" --out results "$@" &
check=$!
trap 'kill $check; wait $check; finish; exit 143' TERM INT
wait $check
status=$?
finish
[ $status != 3 ] || echo "time is up and not all is done: call it again"
exit $status
