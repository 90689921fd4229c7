#!/usr/bin/env bash
# The main job, live: a daemon with three tiers, a proxy list, real local proxies, and a rotator that lives from the
# cache. `./dev run` builds what it needs and calls it: demo.sh BIN_DIR [--once] [LIST…]
#
# Everything listens on ipc or loopback. Proxies of LIST are cached and served, never contacted: the rotator picks with
# the filter source=local, which only the proxies started here have, and refuses any that is not on a loopback address.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=$(cd "$1" && pwd) || exit 1
shift

proxies_wanted=4
once='' lists=()
for argument in "$@"; do
    case $argument in
    --once) once=yes ;;
    *) lists+=("$argument") ;;
    esac
done
[ ${#lists[@]} -gt 0 ] || lists=("$here/../data/sample-proxies.json" "$here/../data/sample-proxies.txt")

work=$(mktemp -d "${TMPDIR:-/tmp}/proxytier-demo.XXXXXX") || exit 1
data=$work/data
[ -n "$once" ] || data=$bin/../../run-data # stays, so that the next run starts with what this one had
export PROXYTIER_URL=ipc://$work/rpc.sock
user=demo password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')

daemon='' rotator='' tee='' target='' trap_server='' target_port='' ended=''
proxy_pids=() proxy_ports=()
problems=()

say() { printf '%s\n' "$*"; }
problem() {
    problems+=("$*")
    say "PROBLEM: $*"
}
expect() { # expect "what" command…
    local what=$1
    shift
    if "$@"; then say "ok: $what"; else problem "not so: $what"; fi
}

# ---- processes ------------------------------------------------------------------------------------------------------

# start LOG PROGRAM…: in the background, pid in $started. A session of its own keeps the terminal's Ctrl-C from it, so that
# we end things in order; and where there is setpriv, it ends with us even if we are killed.
with_us=(setsid)
if command -v setpriv >/dev/null; then with_us=(setpriv --pdeathsig TERM setsid); fi
start() {
    local log=$1
    shift
    "${with_us[@]}" "$@" >"$log" 2>&1 </dev/null &
    started=$!
}
alive() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }

# stop PID: SIGTERM, SIGKILL after 10 s. Returns its exit code.
stop() {
    local pid=$1 tries=0
    kill -TERM "$pid" 2>/dev/null
    while alive "$pid" && [ $((tries += 1)) -le 200 ]; do sleep 0.05; done
    kill -KILL "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
}

# wait_until SECONDS COMMAND…
wait_until() {
    local tries=$(($1 * 20))
    shift
    until "$@"; do
        [ $((tries -= 1)) -gt 0 ] || return 1
        sleep 0.05
    done
}

cleanup() {
    local pid
    trap '' INT TERM HUP
    [ -z "$ended" ] || return 0
    ended=yes
    for pid in $rotator $tee $trap_server $target $daemon "${proxy_pids[@]}"; do
        alive "$pid" && stop "$pid"
    done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP # until the rotator runs; then the end is an orderly one
interrupted=

# Sleeps until SECONDS after the rotator's start, or until interrupted.
until_second() {
    while [ -z "$interrupted" ] && [ $((${EPOCHREALTIME/[.,]/} - rotator_start)) -lt $(($1 * 1000000)) ]; do sleep 0.1; done
}

# ---- pieces ---------------------------------------------------------------------------------------------------------

thousands() { sed -E ':a; s/([0-9])([0-9]{3})($|,)/\1,\2\3/; ta' <<<"$1"; }

# Entries of the whole cache, from the statistics (the tiers, which have entries of their own, are left out).
entries() {
    "$bin/proxytier" stats --json | sed -E 's/"tiers": ?\[[^]]*\]//' | grep -oE '"entries": ?"?[0-9]+' | grep -oE '[0-9]+$'
}
removed_for_health() {
    "$bin/proxytier" stats --json | grep -oE '"reason": ?"[A-Z_]*HEALTH", ?"count": ?"?[0-9]+' | grep -oE '[0-9]+$'
}

start_daemon() {
    mkdir -p "$data" && chmod 700 "$data"
    start "$work/daemon.log" "$bin/proxytierd" --data-dir "$data" --listen "$PROXYTIER_URL" --events "ipc://$work/events.sock"
    daemon=$started
    answers() { ! alive "$daemon" || "$bin/proxytier" info >/dev/null 2>&1; }
    if ! wait_until 20 answers || ! alive "$daemon"; then
        cat "$work/daemon.log" >&2
        say "demo: proxytierd did not start" >&2
        exit 1
    fi
    say "proxytierd serves at $PROXYTIER_URL, data in $(realpath --relative-base="$PWD" "$data")"
    local kept
    kept=$(entries)
    [ "${kept:-0}" -eq 0 ] || say "$(thousands "$kept") records are there from an earlier run"
}

load_lists() {
    # The progress bar is on stderr, the summary on stdout.
    "$bin/proxytier" warm "${lists[@]}" | tee "$work/warm.log"
    if [ "${PIPESTATUS[0]}" -ne 0 ]; then
        say "demo: not all of ${lists[*]} could be loaded" >&2
        exit 1
    fi
    loaded=$(entries)
    loaded=${loaded:-0}
    say "loaded $(thousands "$loaded") records"
}

# Records of the lists are read by key, twice: from whatever tier has them, then from L1. Nobody connects to them.
serve_records() {
    local keys
    mapfile -t keys < <("$bin/proxytier" pick --count 200 --json | grep -oE '"key": ?"[^"]*"' | cut -d'"' -f4)
    say "three of them, served from the cache and not contacted:"
    "$bin/proxytier" get "${keys[@]:0:3}"
    expect "${#keys[@]} random records were read twice by their keys" \
        eval '"$bin/proxytier" get "${keys[@]}" >/dev/null && "$bin/proxytier" get "${keys[@]}" >/dev/null'
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

start_target() {
    start "$work/target.log" "$bin/target_server"
    target=$started
    wait_until 5 grep -q '^port ' "$work/target.log" || { cat "$work/target.log" >&2; exit 1; }
    target_port=$(sed -n 's/^port //p' "$work/target.log")
}

# start_proxy INDEX: a tinyproxy on a free port, put into the cache as a proxy of source "local" with credentials.
start_proxy() {
    local index=$1 port config=$work/proxy$1.conf
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        port=$((20000 + (RANDOM << 15 | RANDOM) % 12000)) # below the range that the kernel gives to outgoing connections
        if listens "$port"; then continue; fi
        printf '%s\n' "Port $port" 'Listen 127.0.0.1' 'Allow 127.0.0.1' 'Timeout 10' 'MaxClients 50' 'LogLevel Error' \
            "BasicAuth $user $password" >"$config"
        (umask 077 && : >"$work/proxy$index.log")
        start "$work/proxy$index.log" tinyproxy -d -c "$config"
        up() { ! alive "$started" || listens "$port"; }
        if wait_until 5 up && alive "$started"; then break; fi # else: somebody was faster on that port
        port=
    done
    if [ -z "$port" ]; then
        cat "$work/proxy$index.log" >&2
        say "demo: tinyproxy did not start" >&2
        exit 1
    fi
    proxy_pids[index]=$started
    proxy_ports[index]=$port
    printf '%s\n' "$password" | "$bin/proxytier" put "http://127.0.0.1:$port" --user "$user" --password - --source local \
        >"$work/put.log" 2>&1 || { cat "$work/put.log"; problem "putting the proxy on port $port"; }
}

# Takes the local proxies out of a cache that stays.
forget_proxies() {
    local port
    for port in "${proxy_ports[@]}"; do
        "$bin/proxytier" delete "http://$user@127.0.0.1:$port" >/dev/null 2>&1 || : # an evicted one is not there any more
    done
}

start_rotator() {
    exec 3> >(trap '' INT && exec tee "$work/rotator.log") # deaf to Ctrl-C: the closing lines still come through
    tee=$!
    rotator_start=${EPOCHREALTIME/[.,]/}
    start /dev/fd/3 "$bin/rotator" --target "http://127.0.0.1:$target_port/" --source local --proxies "$proxies_wanted"
    rotator=$started
    exec 3>&-
}

# kill_proxy INDEX: SIGKILL, then waits for the rotator's line about its eviction.
kill_proxy() {
    local index=$1 port=${proxy_ports[$1]}
    say "demo: killing the proxy on port $port"
    kill -KILL "${proxy_pids[$index]}" 2>/dev/null || return
    wait "${proxy_pids[$index]}" 2>/dev/null
    evicted() { [ -n "$interrupted" ] || grep -q "^event: REMOVED/HEALTH http://127.0.0.1:$port " "$work/rotator.log"; }
    wait_until 10 evicted
}

# ---- the two ways to run --------------------------------------------------------------------------------------------

watch_once() {
    local port victim=1
    until_second 3
    expect "the killed proxy was evicted with reason HEALTH, and the rotator heard of it by the event" kill_proxy $victim
    port=${proxy_ports[$victim]}
    # A listener takes the dead one's place: whoever still used it would be counted there.
    start "$work/trap.log" "$bin/target_server" --port "$port"
    trap_server=$started
    wait_until 5 grep -q '^port ' "$work/trap.log" || problem "listening in the killed proxy's place: $(cat "$work/trap.log")"
    until_second 8
}

watch_live() {
    local victim=0
    say "demo: Ctrl-C ends it. Every 12 s a proxy is killed, and later replaced by a new one."
    while [ -z "$interrupted" ] && alive "$rotator"; do
        rotator_start=${EPOCHREALTIME/[.,]/}
        until_second 6
        [ -n "$interrupted" ] || kill_proxy $victim || [ -n "$interrupted" ] || problem "the killed proxy was not evicted"
        until_second 12
        [ -n "$interrupted" ] || start_proxy $victim
        [ -n "$interrupted" ] || say "demo: put a new proxy on port ${proxy_ports[$victim]}"
        victim=$(((victim + 1) % proxies_wanted))
    done
}

close_down() {
    local code
    kill -TERM "$rotator" 2>/dev/null
    stop "$rotator"
    code=$?
    rotator=
    [ "$code" -eq 0 ] || problem "the rotator ended with exit code $code"
    wait "$tee" 2>/dev/null
    tee=
    say
    "$bin/proxytier" stats || problem "statistics"
    say
    [ -n "$once" ] || forget_proxies
}

stop_daemon() {
    local code
    stop "$daemon"
    code=$?
    daemon=
    expect "the daemon shut down cleanly" [ "$code" -eq 0 ]
}

check_once() {
    local line port=${proxy_ports[1]}
    line=$(grep '^rotator: ' "$work/rotator.log" | tail -n 1)
    expect "the third reported failure evicted it" \
        grep -q "^failure 3 of http://127.0.0.1:$port: .*; evicted$" "$work/rotator.log"
    expect "exactly one eviction, and no proxy came back" \
        grep -q ', 1 evictions received, 0 proxies came back' <<<"$line"
    expect "the statistics count one removal for HEALTH" [ "$(removed_for_health)" = 1 ]
    expect "the cache holds the loaded records and the $((proxies_wanted - 1)) proxies that live" \
        [ "$(entries)" = $((loaded + proxies_wanted - 1)) ]
    stop "$trap_server"
    trap_server=
    expect "nobody used the killed proxy after the event" grep -qx 'served 0' "$work/trap.log"
    stop "$target"
    target=
    expect "the target was reached through the proxies" grep -qx 'served [1-9][0-9]*' "$work/target.log"
}

check_secrets() {
    expect "the key file was made with mode 0600" [ "$(stat -c %a "$data/key" 2>/dev/null)" = 600 ]
    expect "no password in plain text in the data directory or the daemon's log" \
        eval '! grep -rqaF "$password" "$data" "$work/daemon.log"'
}

# ---- main -----------------------------------------------------------------------------------------------------------

start_daemon
load_lists
[ -z "$once" ] || expect "the statistics have the number that warm says it created" grep -q " created $loaded," "$work/warm.log"
serve_records
start_target
for ((i = 0; i < proxies_wanted; i++)); do start_proxy "$i"; done
say "$proxies_wanted proxies (tinyproxy) on 127.0.0.1, ports ${proxy_ports[*]}; target http://127.0.0.1:$target_port/"
trap 'interrupted=yes' INT TERM HUP
start_rotator
if [ -n "$once" ]; then watch_once; else watch_live; fi
close_down
[ -z "$once" ] || [ -n "$interrupted" ] || check_once
stop_daemon
[ -z "$once" ] || check_secrets
if [ ${#problems[@]} -gt 0 ]; then
    say "demo: ${#problems[@]} problem(s):"
    printf '  %s\n' "${problems[@]}"
    say "-- end of the daemon's log:"
    tail -n 30 "$work/daemon.log"
    exit 1
fi
[ -z "$interrupted" ] || [ -z "$once" ] || exit 130
say "demo: every step worked"
