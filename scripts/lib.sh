# shellcheck shell=bash
# What the scripts in this folder share. Sourced, never run.

# Debian puts nginx and HAProxy where only root looks.
PATH=$PATH:/usr/sbin

say() { printf "%s\n" "$@"; }
warn() { printf '%s\n' "$*" >&2; }
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Milliseconds since the epoch.
now_ms() {
    local t=${EPOCHREALTIME/[.,]/}
    printf '%s' "$((t / 1000))"
}

# "1.2 s" since START, which came from now_ms.
took() {
    local ms=$(($(now_ms) - $1))
    printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

# step NAME COMMAND...: runs it, and says what it is and how long it took.
step() {
    local name=$1 began
    shift
    say "── $name"
    began=$(now_ms)
    "$@"
    say "── $name: $(took "$began")"
}

# --- Debian packages ---------------------------------------------------------

can_apt() { [ "$(id -u)" = 0 ] && have apt-get; }

# Installs Debian packages without letting any of them start a service: what
# runs here is started by these scripts, and a broker that the machine already
# runs stays as it is.
apt_install() {
    local policy=/usr/sbin/policy-rc.d made='' status=0
    say "installing $* with apt-get"
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        made=yes
    fi
    apt_quiet install -y --no-install-recommends "$@" || {
        # The package lists of a fresh image are missing or old.
        apt_quiet update && apt_quiet install -y --no-install-recommends "$@"
    } || status=$?
    if [ -n "$made" ]; then rm -f "$policy"; fi
    [ "$status" = 0 ] || die "apt-get could not install $*; its last words are above"
}

apt_quiet() {
    local log status=0
    log=$(mktemp)
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$@" \
        </dev/null >"$log" 2>&1 || status=$?
    if [ "$status" != 0 ]; then tail -n 5 "$log" >&2; fi
    rm -f "$log"
    return "$status"
}

# need COMMAND WHY PACKAGE...: makes COMMAND available, or says how to.
need() {
    local command=$1 why=$2
    shift 2
    have "$command" && return
    can_apt || die "$command is missing ($why): install it, on Debian or Ubuntu: sudo apt-get install $*"
    apt_install "$@"
    have "$command" || die "$command is still missing after installing $*"
}

# --- ports and processes -----------------------------------------------------

port_open() { (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; }

# A free loopback port, below the range from which outgoing connections take
# theirs, so that a stopped service finds its port free when it comes back.
free_port() {
    local port
    for _ in {1..200}; do
        port=$((15000 + RANDOM % 16000))
        if ! port_open 127.0.0.1 "$port"; then
            printf '%s' "$port"
            return
        fi
    done
    die 'found no free port between 15000 and 31000'
}

# A process is named by its id and its start time, because ids are used again.
# Prints the start time, or nothing when there is no such living process.
birth_of() {
    local stat fields
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 0
    read -ra fields <<<"${stat##*) }"
    # Its first thread may have ended before the others, which still hold its sockets.
    local threads=("/proc/$1/task/"*)
    if [ "${fields[0]}" != Z ] || [ "${#threads[@]}" -gt 1 ]; then printf '%s' "${fields[19]}"; fi
}

# remember PID FILE: writes down a process for alive, pid_in and end_process.
remember() { printf '%s %s\n' "$1" "$(birth_of "$1")" >"$2"; }

pid_in() {
    local pid birth
    [ -s "$1" ] && read -r pid birth <"$1" && [ -n "$birth" ] || return 1
    [ "$(birth_of "$pid")" = "$birth" ] && printf '%s' "$pid"
}

alive() { pid_in "$1" >/dev/null; }

# end_process FILE SECONDS: asks with SIGTERM, insists with SIGKILL after SECONDS
# (at once when 0), and returns when the process is gone.
end_process() {
    local pid polls=$(($2 * 20))
    pid=$(pid_in "$1") || {
        rm -f "$1"
        return 0
    }
    if [ "$polls" != 0 ]; then kill -TERM "$pid" 2>/dev/null || true; fi
    while alive "$1"; do
        if [ $((polls--)) -le 0 ]; then kill -KILL "$pid" 2>/dev/null || true; fi
        sleep 0.05
    done
    rm -f "$1"
}
