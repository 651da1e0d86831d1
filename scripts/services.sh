# shellcheck shell=bash
# Starts a worker and a notifier with everything they need, for the demo, the
# smoke test and the browser test. Sourced after lib.sh; sets $root and $run.
#
# $run is a folder of this run's own: logs, process ids, a secret and the private
# broker. `stop_services` ends what was started and removes the folder, unless
# KEEP=1.

# shellcheck disable=SC2154 # whoever sources this knows where it is
root=$(cd "$here/.." && pwd)
cd "$root" || exit

# The caller's settings are for the caller's services, and a service refuses
# those that it does not know. Only the webhook is taken over.
webhook=${BELLHOP_MATTERMOST__WEBHOOK_URL:-}
while read -r name; do unset "$name"; done < <(compgen -e BELLHOP_)

new_run() {
    run=$(mktemp -d "${TMPDIR:-/tmp}/bellhop-$1.XXXXXX")
    trap stop_services EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

stop_services() {
    local began
    began=$(now_ms)
    # A second Ctrl-C must not leave half of it running.
    trap '' HUP INT TERM
    end_process "$run/flower.pid" 0
    end_process "$run/open.pid" 10
    end_process "$run/notifier.pid" 10
    end_process "$run/worker.pid" 10
    if [ -d "$run/broker" ]; then
        # Its data is thrown away, so there is no need to wait for its own end.
        "$here/rabbitmq" kill "$run/broker" >/dev/null 2>&1 || true
        "$here/rabbitmq" stop "$run/broker" || true
    fi
    if [ -f "$run/compose-project" ]; then
        docker compose -p "$(<"$run/compose-project")" down --volumes >/dev/null 2>&1 || true
    fi
    if [ -n "${KEEP:-}" ]; then
        say "kept $run"
    else
        rm -rf "$run"
    fi
    say "everything that was started has ended ($(took "$began"))"
}

# --- the broker ------------------------------------------------------------------

private_broker() {
    "$here/rabbitmq" start "$run/broker"
    BELLHOP_AMQP__URL=$("$here/rabbitmq" env "$run/broker" | sed -n 's/^AMQP_URL=//p')
    export BELLHOP_AMQP__URL
}

# host:port of an AMQP address.
amqp_endpoint() {
    local rest=${1#*://} port=5672
    case $1 in amqps:*) port=5671 ;; esac
    rest=${rest##*@}
    rest=${rest%%[/?]*}
    case $rest in
    *:*) printf '%s' "$rest" ;;
    *) printf '%s:%s' "$rest" "$port" ;;
    esac
}

amqp_reachable() {
    local endpoint
    endpoint=$(amqp_endpoint "$1")
    port_open "${endpoint%:*}" "${endpoint##*:}"
}

# --- foreign clients -------------------------------------------------------------

# prepare_python NAME REQUIREMENTS WHY: sets $python to a Python with these
# packages, kept in .run/NAME for the next time.
prepare_python() {
    local venv=$root/.run/$1 wanted=$2
    python=$venv/bin/python
    if [ -x "$python" ] && cmp -s "$wanted" "$venv/requirements.txt"; then return; fi
    need python3 "$3" python3 python3-venv
    if ! python3 -c 'import ensurepip' 2>/dev/null; then
        can_apt || die 'the Python module venv is missing: install it, on Debian or Ubuntu: sudo apt-get install python3-venv'
        apt_install python3-venv
    fi
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$python" -m pip install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" "$venv/requirements.txt"
}

# --- the binaries ----------------------------------------------------------------

# Sets $bin to the folder of the built binaries.
build_services() {
    have cargo || die 'cargo is missing: install Rust from https://rustup.rs'
    need cc 'links Rust programs' gcc libc6-dev
    cargo build --workspace --bins
    bin=$(cargo metadata --format-version 1 --no-deps |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/debug
}

# start_services FILES_ROOT [NOTIFIER FLAGS]: both services, with the demo's
# configuration, ready to work; worker_flags are the worker's. Sets $url to where
# the notifier is.
worker_flags=()
start_services() {
    local port=8080 worker_port files=$1
    shift
    worker_port=$(free_port)
    if port_open 127.0.0.1 "$port"; then port=$(free_port); fi
    # shellcheck disable=SC2034 # for whoever sources this
    url=http://127.0.0.1:$port
    (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$run/secret")
    export BELLHOP_LOG__FORMAT=text BELLHOP_SHUTDOWN__DEADLINE=1s
    worker=(--config deploy/demo/worker.toml
        --set "http.listen=127.0.0.1:$worker_port" --set "files.root=$files" "${worker_flags[@]}")
    notifier=(--config deploy/demo/notifier.toml --set websocket.drain_window=0s
        --set "http.listen=127.0.0.1:$port" --set "auth.secret_file=$run/secret"
        --set "store.path=$run/store.db" "$@")
    launch worker "$bin/worker" run "${worker[@]}"
    launch notifier env ${webhook:+BELLHOP_MATTERMOST__WEBHOOK_URL="$webhook"} \
        "$bin/notifier" run "${notifier[@]}"
    until_ready worker "$worker_port"
    until_ready notifier "$port"
}

# A notifier where nobody has to log in, at the address of the fourth of the
# documents that the project began with, if it is free; open_flags are its own.
# Sets $open_url.
open_flags=()
start_open_notifier() {
    local port=8000
    if port_open 127.0.0.1 "$port"; then port=$(free_port); fi
    # shellcheck disable=SC2034 # for whoever sources this
    open_url=http://localhost:$port
    # Apart from the other one, which keeps the events in a file that only one notifier can have.
    launch open "$bin/notifier" run --set "http.listen=127.0.0.1:$port" --set auth.mode=none \
        --set amqp.prefix=open. --set store.kind=none --set websocket.drain_window=0s "${open_flags[@]}"
    until_ready open "$port"
}

# In a session of its own, so that Ctrl-C reaches it only through stop_services.
launch() {
    local name=$1
    shift
    setsid "$@" </dev/null >"$run/$name.log" 2>&1 &
    remember $! "$run/$name.pid"
    disown $!
}

until_ready() {
    local until=$((SECONDS + 30))
    until is_ready "$2"; do
        alive "$run/$1.pid" || show_log_and_die "$1" "the $1 ended while starting"
        [ "$SECONDS" -lt "$until" ] || show_log_and_die "$1" "the $1 was not ready after 30 s"
        sleep 0.05
    done
}

is_ready() {
    local answer
    answer=$(
        exec 2>/dev/null
        exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
        printf 'GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n' >&3
        timeout 3 head -n 1 <&3
    ) || return 1
    [[ $answer == 'HTTP/1.1 200'* ]]
}

show_log_and_die() {
    warn "--- the end of the $1's log"
    tail -n 20 "$run/$1.log" >&2
    warn '---'
    die "$2"
}

token() { "$bin/notifier" token --user "$1" "${notifier[@]}"; }
enqueue() { "$bin/worker" enqueue "$@" "${worker[@]}"; }
