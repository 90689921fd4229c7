#!/usr/bin/env bash
# What `./dev check` checks, from the top of the repository; build/release is configured and its generated headers exist.
# Every check says how many files it looked at, and one that matched none fails: a pattern that rots is noticed.
set -uo pipefail
jobs=$(nproc)
generated=build/release/proto/generated
failures=()

# files PATTERN…: tracked files and new ones that are not ignored; in a tree without git, all outside build/.
files() {
    if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git ls-files -co --exclude-standard -- "$@" | while read -r file; do [ ! -e "$file" ] || echo "$file"; done
    else
        local patterns=() pattern
        for pattern in "$@"; do patterns+=(-o -path "./$pattern"); done
        find . -path ./build -prune -o -type f \( "${patterns[@]:1}" \) -printf '%P\n'
    fi
}

# check NAME COUNT COMMAND…
check() {
    local name=$1 count=$2 start=$SECONDS
    shift 2
    if [ "$count" -eq 0 ]; then
        echo "$name: matched no file"
        failures+=("$name")
    elif "$@"; then
        echo "$name: ok ($count files, $((SECONDS - start)) s)"
    else
        echo "$name: failed"
        failures+=("$name")
    fi
}

mapfile -t sources < <(files '*.c')
mapfile -t headers < <(files '*.h')
mapfile -t public < <(files '*/include/proxytier/*.h')
mapfile -t scripts < <(files '*.sh' dev .ci/run)
includes=(-I proto/include -I proto -isystem "$generated" -I tiers/include -I tiers -I access -I client/include -I client -I server -I tests)

format() { printf '%s\0' "${sources[@]}" "${headers[@]}" | xargs -0 clang-format --dry-run -Werror; }

tidy() {
    # Only what the build compiles has flags: a source that no CMakeLists.txt lists is an error of its own.
    local source missing=0
    for source in "${sources[@]}"; do
        grep -qF "$PWD/$source\"" build/release/compile_commands.json || {
            echo "$source is in no CMakeLists.txt"
            missing=1
        }
    done
    # Asserts are on (-UNDEBUG): they tell the analyzer what cannot be. The analyzer's path notes would drown the findings: clang-tidy --quiet FILE shows them.
    printf '%s\0' "${sources[@]}" |
        xargs -0 -n 4 -P "$jobs" clang-tidy -p build/release --quiet --extra-arg=-UNDEBUG 2>/dev/null | grep -E '(error|warning):'
    [ "${PIPESTATUS[1]}" -eq 0 ] && [ $missing -eq 0 ]
}

analyse() {
    cppcheck --quiet --error-exitcode=1 --std=c11 --enable=warning,performance,portability --inline-suppr -j "$jobs" \
        --suppress=missingInclude --suppress=missingIncludeSystem --suppress=legacyUninitvar --suppress='*:*/generated/*' -D__linux__ -D__GNUC__=12 \
        -I proto/include -I proto -I tiers/include -I tiers -I client/include "${sources[@]}"
}

# cmocka.h wants these before it, so a test's header need not bring them.
before_cmocka=(-include stdarg.h -include stddef.h -include setjmp.h -include stdint.h)
self_contained() {
    local header tests=() ours=()
    for header in "${headers[@]}"; do
        case $header in tests/*) tests+=("$header") ;; *) ours+=("$header") ;; esac
    done
    local compile=(gcc -x c -std=gnu11 -fsyntax-only -Wall -Wextra -Werror "${includes[@]}")
    printf '%s\0' "${ours[@]}" | xargs -0 -n 1 -P "$jobs" "${compile[@]}" &&
        { [ ${#tests[@]} -eq 0 ] || printf '%s\0' "${tests[@]}" | xargs -0 -n 1 -P "$jobs" "${compile[@]}" "${before_cmocka[@]}"; }
}
cxx_clean() {
    printf '%s\0' "${public[@]}" |
        xargs -0 -n 1 -P "$jobs" g++ -x c++ -std=c++17 -fsyntax-only -Wall -Wextra -Wpedantic -Werror "${includes[@]}"
}
readme_example() {
    diff -u <(awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' README.md) examples/quickstart/quickstart.c
}
script_syntax() {
    local script
    for script in "${scripts[@]}"; do bash -n "$script" || return 1; done
}

check "clang-format" $((${#sources[@]} + ${#headers[@]})) format
check "headers compile by themselves in C" "${#headers[@]}" self_contained
check "public headers compile in C++" "${#public[@]}" cxx_clean
check "scripts parse" "${#scripts[@]}" script_syntax
check "README's example is examples/quickstart/quickstart.c" "$(grep -c '^```c$' README.md)" readme_example
check "cppcheck" "${#sources[@]}" analyse
check "clang-tidy" "${#sources[@]}" tidy
if [ ${#failures[@]} -gt 0 ]; then
    printf 'check: failed: %s\n' "${failures[@]}"
    exit 1
fi
echo "check: everything is fine"
