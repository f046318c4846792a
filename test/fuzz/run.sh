#!/bin/sh
# What `make fuzz` does: builds the targets by clang, and lets each look for
# inputs that break it for TIME seconds, from its corpus on, as many at a time
# as there are processors.  What is new is kept in build/fuzz/found/TARGET for
# the next time, unless SEED says where chance begins: then every run is the
# same one.  What breaks a target is in build/fuzz/broken.
set -u
cd "$(dirname "$0")/../.." || exit 1

build=build/fuzz
most_mb=1024 # of memory
input_s=10   # an input may take

case ${TIME:-60} in
*[!0-9]*)
	echo "fuzz: TIME is '$TIME', and not a number of seconds"
	exit 2
	;;
esac

# able: whether the compiler is there, with libFuzzer.
able() {
	mkdir -p "$build"
	echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n)
	{ return n && d[0] == 1; }' >"$build/able.c"
	$CC -fsanitize=fuzzer,address,undefined "$build/able.c" \
		-o "$build/able" 2>/dev/null
}

# fuzz TARGET: in its own process.
fuzz() {
	target=$1
	found=$build/found/$target
	broken=$build/broken/$target-
	log=$build/$target.log
	[ -z "${SEED:-}" ] || {
		found=$build/seeded/$target
		rm -rf "$found"
	}
	mkdir -p "$found" "$build/broken"
	set -- -max_total_time="${TIME:-60}" -rss_limit_mb=$most_mb \
		-timeout=$input_s -artifact_prefix="$broken" \
		-print_final_stats=1 -seed="${SEED:-0}"
	[ ! -e "test/fuzz/$target.dict" ] ||
		set -- "$@" -dict="test/fuzz/$target.dict"
	if "$build/fuzz/$target" "$@" "$found" "test/fuzz/corpus/$target" \
		>"$log" 2>&1; then
		awk -v target="$target" '
			/^stat::number_of_executed_units/ { runs = $2 }
			/^stat::average_exec_per_sec/ { rate = $2 }
			/^stat::peak_rss_mb/ { mb = $2 }
			/ cov: / { for (i = 1; i < NF; i++)
				if ($i == "cov:") edges = $(i + 1) }
			END { printf "%-10s %9d inputs, %6d/s, %5d edges, %4d MB\n",
				target, runs, rate, edges, mb }' "$log"
		return
	fi
	tail -n 60 "$log"
	input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
	echo "fuzz: $target: again: $build/fuzz/$target ${input:-...}"
	return 1
}

[ "${1:-}" != --one ] || {
	fuzz "$2"
	exit
}

able || {
	echo "fuzz: $CC does not have libFuzzer (Debian: clang, libclang-rt-14-dev)"
	exit 1
}
targets=
for file in test/fuzz/*.c; do
	name=$(basename "$file" .c)
	[ "$name" = fuzz ] || targets="$targets $name"
done
[ -z "${TARGET:-}" ] || {
	case " $targets " in
	*" $TARGET "*) targets=$TARGET ;;
	*)
		echo "fuzz: TARGET is one of:$targets"
		exit 2
		;;
	esac
}
programs=
for name in $targets; do
	programs="$programs $build/fuzz/$name"
done
# shellcheck disable=SC2086
$MAKE --no-print-directory VARIANT=fuzz TABLE=1 PORTABLE= BUILD=$build CC="$CC" \
	$programs || exit

# What is freed is kept for a while, 256 MB of it by default.
export ASAN_OPTIONS="${ASAN_OPTIONS-detect_leaks=1:quarantine_size_mb=16}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS-print_stacktrace=1}"
export TIME SEED
echo "$targets" | xargs -n 1 \
	-P "$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)" "$0" --one || {
	echo 'fuzz: something has broken'
	exit 1
}
