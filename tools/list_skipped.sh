#!/usr/bin/env bash
# Says loudly which tests of the last ctest run skipped, and why.
#
#   tools/list_skipped.sh BUILD_FOLDER
set -euo pipefail
log=$1/Testing/Temporary/LastTest.log
# Every gtest binary lists its skipped tests once more at its end; the summary line is the one with a time-free name.
names=$(grep -ohE '^\[  SKIPPED \] [A-Za-z0-9_]+\.[A-Za-z0-9_/]+$' "$log" | sort -u || true)
[[ -z $names ]] && exit 0
echo "*** SKIPPED TESTS: $(wc -l <<<"$names") ***"
echo "${names//\[  SKIPPED \]/   }"
grep -ohE '\*\*\* SKIPPED: .*' "$log" | sort | uniq -c | sort -rn
