# Starts, watches and stops a relay of three real processes, and a monitor. Sourced after common.sh; needs $work (the folder of the
# run) and $bin (the folder of the programs).

host=demo-host
declare -A pid_of=()

# A port from $1 on that nobody listens on.
free_port() {
    local port=$1
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
    echo "$port"
}

# write_configs SOURCES: SOURCES is the TOML text of the [[source]] tables. $codec is zlib unless set.
write_configs() {
    local collector_port outputter_port
    # LOGFERRY_DEMO_PORTS, "COLLECTOR OUTPUTTER", says where to look first.
    read -r collector_port outputter_port <<<"${LOGFERRY_DEMO_PORTS:-1302 1306}"
    collector_port=$(free_port "$collector_port")
    outputter_port=$(free_port "$outputter_port")
    [ "$outputter_port" != "$collector_port" ] || outputter_port=$(free_port $((collector_port + 1)))
    mkdir -p "$work/etc"
    # Without nodes' port: they speak to the monitor, which need not probe them.
    cat >"$work/etc/monitor.toml" <<TOML
[node]
name = "demo-monitor"
var_dir = "$work/monitor"
admin = "127.0.0.1:0"
[listen]
addr = "127.0.0.1:0"
http = "127.0.0.1:${LOGFERRY_DEMO_HTTP:-$(free_port 8080)}"
TOML
    cat >"$work/etc/outputter.toml" <<TOML
[node]
name = "demo-outputter"
var_dir = "$work/outputter"
admin = "127.0.0.1:0"
[listen]
addr = "127.0.0.1:$outputter_port"
[file]
dir = "$work/store"
TOML
    cat >"$work/etc/collector.toml" <<TOML
[node]
name = "demo-collector"
var_dir = "$work/collector"
admin = "127.0.0.1:0"
[listen]
addr = "127.0.0.1:$collector_port"
[send]
to = ["127.0.0.1:$outputter_port"]
[spool]
max_bytes = "1GiB"
TOML
    cat >"$work/etc/tailer.toml" <<TOML
[node]
name = "$host"
var_dir = "$work/tailer"
admin = "127.0.0.1:0"
[pack]
codec = "${codec:-zlib}"
[send]
to = ["127.0.0.1:$collector_port"]
$1
TOML
}

# start_program ROLE: starts it and waits until its admin endpoint is up.
start_program() {
    local role=$1
    rm -f "$work/$role/admin.addr"
    # A session of its own: Ctrl-C reaches the script alone, which then stops the programs one after another.
    setsid "$bin/logferry-$role" --config "$work/etc/$role.toml" >>"$work/$role.log" 2>&1 &
    pid_of[$role]=$!
    for _ in {1..200}; do
        [ -s "$work/$role/admin.addr" ] && return
        kill -0 "${pid_of[$role]}" 2>/dev/null || break
        sleep 0.05
    done
    cat "$work/$role.log" >&2
    die "$role did not start; its log is above"
}

# With $with_monitor the monitor first: its port, which the system chooses, goes into the other configurations.
start_relay() {
    local role
    [ -z "${with_monitor:-}" ] || start_program monitor
    for role in outputter collector tailer; do
        [ -z "${with_monitor:-}" ] || sed -i "s/^admin = .*/&\nmonitor = \"$(cat "$work/monitor/listen.addr")\"\nheartbeat_interval = \"2s\"/" "$work/etc/$role.toml"
        start_program "$role"
    done
}

# Stops the programs that run, in the direction of the data, and waits for each.
stop_relay() {
    local role
    for role in tailer collector outputter monitor; do
        [ -n "${pid_of[$role]:-}" ] || continue
        kill -TERM "${pid_of[$role]}" 2>/dev/null || true
        wait "${pid_of[$role]}" || echo "$role ended with status $?; see $work/$role.log"
        unset "pid_of[$role]"
    done
}

# Bytes stored of a source, over all its hours.
stored_bytes() {
    local files=("$work/store/log_data/$1/${host}"_*)
    [ -e "${files[0]}" ] || { echo 0; return; }
    cat "${files[@]}" | wc -c
}

# wait_stored SOURCE BYTES SECONDS: waits until the store holds that many bytes of the source.
wait_stored() {
    local deadline=$((SECONDS + $3)) role
    while [ "$(stat -c %s "$work/store/log_data/$1/${host}"_* 2>/dev/null | awk '{n += $1} END {print n + 0}')" -lt "$2" ]; do
        for role in "${!pid_of[@]}"; do
            kill -0 "${pid_of[$role]}" 2>/dev/null || { tail -n 20 "$work/$role.log" >&2; die "$role died; the end of its log is above"; }
        done
        [ "$SECONDS" -lt "$deadline" ] || die "$1: $(stored_bytes "$1") of $2 bytes arrived in $3 s; logs: $work/*.log"
        sleep 0.02
    done
}

# CPU seconds (user and system) of a running process, and its peak resident memory in MB.
cpu_seconds() { awk -v hz="$(getconf CLK_TCK)" '{sub(/^.*\) /, ""); printf "%.2f", ($12 + $13) / hz}' "/proc/$1/stat"; }
memory_peak() { awk '/^VmHWM/ {printf "%.1f", $2 / 1024}' "/proc/$1/status"; }
now() { date +%s.%N; }
