#!/usr/bin/env bash
# install_test.sh SOURCE BUILD: installs a build into a temporary prefix and uses what is there as a stranger would. TAP.
set -uo pipefail
source=$1 build=$2
work=$(mktemp -d "${TMPDIR:-/tmp}/ptier-test-install.XXXXXX") || exit 1
prefix=$work/prefix daemon='' helper=''
finish() {
    for pid in $daemon $helper; do kill "$pid" && wait "$pid"; done 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM HUP
cd "$work" || exit 1
export LC_ALL=C
number=0
cases=(
    a_build_in_part_installs_nothing
    everything_is_installed
    the_libraries_export_what_is_on_their_lists
    every_function_of_the_headers_is_on_a_list
    the_soname_has_the_version
    public_headers_compile_alone_in_c11_and_cxx17
    examples_build_with_find_package
    examples_build_with_pkg_config
    examples_build_with_the_static_libraries
    an_older_minor_version_is_not_found
    examples_run
    the_cure_for_nng_acts_in_every_form
    cut_connections_are_survived_with_the_shared_library
    cut_connections_are_survived_with_the_static_library
)

# ---- helpers ----

fail() {
    echo "$*"
    return 1
}
compile() { gcc -std=gnu11 -Wall -Wextra -Werror "$@"; }
config() { PKG_CONFIG_PATH=$libdir/pkgconfig pkg-config "$@"; }
client_examples=(quickstart event_logger bulk_loader rotator)
sources_of() { find "$source/examples/$1" -name '*.c'; }

# link OUTPUT EXAMPLE PACKAGE HOW: HOW is shared or static.
link() {
    local output=$1 example=$2 package=$3 how=$4 libraries extra=()
    [ "$example" != rotator ] || extra=(-lpopt -pthread)
    if [ "$how" = shared ]; then
        libraries=$(config --libs "$package") || return
    else # the archive itself, and what it needs
        libraries="$libdir/lib$package.a $(config --static --libs "$package" | sed "s/-l$package\\b//")" || return
    fi
    # shellcheck disable=SC2046,SC2086
    compile $(config --cflags "$package") $(sources_of "$example") -o "$output" $libraries "${extra[@]}"
}

link_all() {
    local example
    mkdir -p "$1"
    for example in "${client_examples[@]}"; do link "$1/$example" "$example" proxytier "$1" || return; done
    link "$1/embedded" embedded proxytier-tiers "$1"
}

# Seconds are tenths: within SECONDS COMMAND…
within() {
    local tenths=$(($1 * 10))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $((tenths -= 1)) -gt 0 ] || return 1
        sleep 0.1
    done
}

start_daemon() {
    [ -z "$daemon" ] || return 0
    export PROXYTIER_URL=ipc://$work/rpc.sock
    "$prefix/bin/proxytierd" --data-dir "$work/data" --listen "$PROXYTIER_URL" --events "ipc://$work/events.sock" \
        >daemon.log 2>&1 &
    daemon=$!
    within 20 "$prefix/bin/proxytier" info || fail "$(cat daemon.log)"
}

# ---- cases ----

a_build_in_part_installs_nothing() {
    local half=$work/half
    cmake -G Ninja -S "$source" -B "$half" -DPTIER_TESTS=OFF >half.log 2>&1 || fail "$(cat half.log)" || return
    mkdir -p "$half/bin" && cp "$build"/bin/proxytier{,d} "$half/bin" # as after `./dev run`
    ! cmake --install "$half" --prefix "$work/nothing" >half.log 2>&1 || fail "it says that it did" || return
    grep -q 'dev build' half.log || fail "no advice: $(cat half.log)" || return
    [ ! -e "$work/nothing" ] || fail "something is there: $(find "$work/nothing")"
}

everything_is_installed() {
    local file missing=0
    for file in bin/proxytierd bin/proxytier include/proxytier/{client,async,status,types,statistics,cache,entry,import}.h; do
        [ -f "$prefix/$file" ] || fail "no $file" || missing=1
    done
    for file in lib{proxytier,proxytier-tiers}.{a,so} pkgconfig/{proxytier,proxytier-tiers}.pc cmake/proxytier/proxytier-config.cmake; do
        [ -f "$libdir/$file" ] || fail "no $file" || missing=1
    done
    [ "$(find "$prefix/include" -type f | wc -l)" -eq 8 ] || fail "headers that nobody expects" || missing=1
    return $missing
}

the_libraries_export_what_is_on_their_lists() {
    nm -D --defined-only "$libdir/libproxytier.so" | awk '{ print $3 }' | sort | diff -u "$source/client/libproxytier.symbols" - &&
        nm -D --defined-only "$libdir/libproxytier-tiers.so" | awk '{ print $3 }' | sort | diff -u "$source/tiers/libproxytier-tiers.symbols" -
}

every_function_of_the_headers_is_on_a_list() {
    local header name missing=0 seen=0
    for header in "$prefix"/include/proxytier/*.h; do
        # Declarations outside of comments: a name of ours before a parenthesis, but for types of functions and what is inline.
        while read -r name; do
            seen=$((seen + 1))
            grep -qx "$name" "$source/client/libproxytier.symbols" "$source/tiers/libproxytier-tiers.symbols" ||
                fail "$(basename "$header"): $name is exported by no library" || missing=1
        done < <(gcc -E -P -include "$header" -x c /dev/null -I"$prefix/include" | tr '\n' ' ' | tr ';{}' '\n\n\n' |
            grep -v 'static inline\|typedef' | grep -oE '\bptier_[a-z0-9_]+ *\(' | tr -d ' (' | sort -u |
            grep -vxE "$(grep -hoE '^ptier_[a-z_]+\(' "$header" | tr -d '(' | paste -sd'|' | sed 's/^$/none/')")
    done
    [ $seen -ge 80 ] || fail "only $seen functions found" || missing=1
    return $missing
}

the_soname_has_the_version() {
    local version library
    version=$(config --modversion proxytier) || return
    for library in proxytier proxytier-tiers; do
        readelf -d "$libdir/lib$library.so" | grep -q "SONAME.*\[lib$library.so.${version%.*}\]" || fail "$library: $version" || return
        [ -f "$libdir/lib$library.so.$version" ] || fail "no lib$library.so.$version" || return
    done
}

public_headers_compile_alone_in_c11_and_cxx17() {
    local header strict=(-Wall -Wextra -Wpedantic -Werror -fsyntax-only -I"$prefix/include")
    for header in "$prefix"/include/proxytier/*.h; do
        gcc -x c -std=c11 "${strict[@]}" -include "$header" /dev/null || return
        g++ -x c++ -std=c++17 "${strict[@]}" -include "$header" /dev/null || return
    done
}

examples_build_with_find_package() {
    local example
    for example in "${client_examples[@]}" embedded; do
        cmake -S "$source/examples/$example" -B "cmake/$example" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Release &&
            cmake --build "cmake/$example" || return
        readelf -d "cmake/$example/$example" | grep -q 'NEEDED.*libproxytier' || fail "$example is not linked with what is installed" || return
    done
}

examples_build_with_pkg_config() { link_all shared; }
examples_build_with_the_static_libraries() {
    link_all static || return
    ! readelf -d static/* | grep 'NEEDED.*proxytier'
}

an_older_minor_version_is_not_found() {
    mkdir -p older
    printf '%s\n' 'cmake_minimum_required(VERSION 3.18)' 'project(older LANGUAGES C)' \
        'find_package(proxytier 0.0.9 QUIET)' 'if(proxytier_FOUND)' 'message(FATAL_ERROR found)' 'endif()' \
        'find_package(proxytier 0.1 REQUIRED)' >older/CMakeLists.txt
    cmake -S older -B older/build -DCMAKE_PREFIX_PATH="$prefix"
}

# run_examples FOLDER SUFFIX: the programs are FOLDER/NAME or FOLDER/NAME/NAME.
run_examples() {
    local of=$1 found log=$work/events.$RANDOM.log
    program() { if [ -d "$of/$1" ]; then echo "$of/$1/$1"; else echo "$of/$1"; fi; }
    "$(program event_logger)" >"$log" &
    helper=$!
    within 10 grep -q following "$log" || fail "event_logger does not follow: $(cat "$log")" || return
    for found in bulk_loader event_logger; do
        [[ $("$(program $found)" --help </dev/null 2>&1) == usage:* ]] || fail "$found takes --help as an address" || return
        [[ $("$(program $found)" list.txt </dev/null 2>&1) == usage:* ]] || fail "$found takes a file as an address" || return
    done
    found=$({ seq -f "http://10.1.0.%g:8080" 1 250 && seq -f "http://10.1.1.%g:8080" 1 250 && echo nonsense; } | "$(program bulk_loader)") ||
        fail "bulk_loader: $found" || return
    [ "$found" = "500 stored, 1 rejected, 0 batches failed" ] || fail "$found" || return
    "$prefix/bin/proxytier" clear --yes >/dev/null || return
    within 10 grep -q CLEARED "$log" || fail "event_logger: $(tail -n 3 "$log")" || return
    kill "$helper" && wait "$helper" || fail "event_logger did not end well" || return
    helper=''
    "$prefix/bin/proxytier" put http://10.2.0.1:8080 >/dev/null && found=$("$(program quickstart)") || fail "quickstart" || return
    [ "$found" = http://10.2.0.1:8080 ] || fail "quickstart: $found" || return
    found=$("$(program embedded)" "$work/embedded") || fail "embedded: $found" || return
    found=$("$(program embedded)" "$work/embedded") && grep -q '^removed while it was open: 1$' <<<"$found" || fail "embedded: $found" || return
    rm -r "$work/embedded"
    run_rotator "$(program rotator)"
}

# Over one proxy on this machine, which is the target itself.
run_rotator() {
    local output port
    rm -f target.log # the last one's port
    "$build/bin/target_server" >target.log 2>&1 &
    helper=$!
    within 10 grep -qE '[0-9]{4,5}' target.log || return
    port=$(grep -oE '[0-9]{4,5}' target.log | head -n 1)
    "$prefix/bin/proxytier" put "http://127.0.0.1:$port" --source here >/dev/null || return
    output=$("$1" --target "http://127.0.0.1:$port/" --source here --seconds 2) || fail "rotator: $output" || return
    kill "$helper" && wait "$helper"
    helper=''
    grep -qE 'rotator: [1-9][0-9]* requests, 0 failed' <<<"$output" || fail "$output"
}

examples_run() {
    local of
    start_daemon || return
    for of in cmake shared static; do run_examples "$of" || fail "(built with: $of)" || return; done
}

the_cure_for_nng_acts_in_every_form() {
    local cured=$source/tests/install/cured.c shared
    shared=$(config --libs proxytier)
    # shellcheck disable=SC2046,SC2086
    {
        compile "$cured" $(config --cflags proxytier) -o cured_shared $shared && ./cured_shared || fail "shared" || return
        compile "$cured" $(config --cflags proxytier) -o cured_static "$libdir/libproxytier.a" $(config --static --libs proxytier | sed 's/-lproxytier//') &&
            ./cured_static || fail "static" || return
        compile -DWITH_NNG "$cured" $(config --cflags proxytier) -o cured_before $shared -lnng && ./cured_before || fail "before nng" || return
        compile -DWITHOUT_LIBRARY "$cured" $(config --cflags proxytier) -o cured_loaded && ./cured_loaded "$libdir/libproxytier.so" ||
            fail "loaded" || return
        # And where it cannot act it says so.
        compile -DWITH_NNG "$cured" $(config --cflags proxytier) -o cured_behind -lnng $shared || return
        ! ./cured_behind || fail "behind nng it cannot act"
    }
}

# The integration test of calls over connections that are cut, against what is installed. Without the cure it hangs.
build_cut() {
    local output=$1 tests=$source/tests protocol=$build/proto support file
    shift
    for file in cut_proxy daemon raw_client tap_output; do support+=" $tests/support/$file.c"; done
    # shellcheck disable=SC2046,SC2086
    gcc -std=gnu11 -D_GNU_SOURCE -DPTIER_BIN_DIR="\"$prefix/bin\"" -I"$prefix/include" -I"$tests" -I"$source/proto" -I"$protocol/generated" \
        "$tests/integration/retry_test.c" $support -o "$output" "$@" "$protocol"/libproxytier_{proto,messages,vocabulary}.a \
        -lprotobuf-c -lnng -lcmocka -pthread
}
run_cut() { PTIER_CALLS=5000 PTIER_CASE='calls_over_cut*' CMOCKA_MESSAGE_OUTPUT=STDOUT timeout 60 "$1" 2>&1 && [ "$(nm -D "$1" | grep -c ' U ptier_put$')" -eq "$2" ]; }

cut_connections_are_survived_with_the_shared_library() { build_cut cut_shared "$libdir/libproxytier.so" && run_cut ./cut_shared 1; }
cut_connections_are_survived_with_the_static_library() { build_cut cut_static "$libdir/libproxytier.a" -lxxhash -ldl && run_cut ./cut_static 0; }

# ---- run ----

echo "1..${#cases[@]}"
if ! cmake --install "$build" --prefix "$prefix" >install.log 2>&1; then
    sed 's/^/# /' install.log
    exit 1
fi
libdir=$(dirname "$(find "$prefix" -name libproxytier.so | head -n 1)")
export LD_LIBRARY_PATH=$libdir
code=0
for name in "${cases[@]}"; do
    number=$((number + 1))
    # In this shell: the daemon is shared.
    if "$name" >case.log 2>&1 </dev/null; then
        echo "ok $number - $name"
    else
        echo "not ok $number - $name"
        tail -n 40 case.log | sed 's/^/# /'
        code=1
    fi
done
exit $code
