#!/bin/sh
# Stands in for tpu_mlir's npz_tool.py, which its own tools start by this name from PATH.
# "compare" goes to scripts/npz_compare.py: same arguments and verdicts, a tenth of the time.
# Everything else goes to the real one.
set -eu

if [ "${1-}" = compare ]; then
    shift
    # Both are meant for the toolchain's Python and would break that of the helpers.
    unset LD_LIBRARY_PATH PYTHONPATH
    # model_deploy holds the emulator's results to a tolerance that it has built in. Where a stanza
    # names another one, that comes last and wins.
    case "${1-}:${TPUMAKE_MODEL_TOLERANCE-}" in
        *_model_outputs.npz:?*) set -- "$@" --tolerance "$TPUMAKE_MODEL_TOLERANCE" ;;
    esac
    # For the BM1684X, softmax over two dimensions in INT8 becomes one over four and a reshape, which
    # then is the network's output: without its old name nothing was compared.
    exec "${TPUMAKE_PYTHON:?}" "${TPUMAKE_SCRIPTS:?}/npz_compare.py" "$@" --renamed __softmax_reshape
fi
exec python3 "${TPUC_ROOT:?}/python/tools/npz_tool.py" "$@"
