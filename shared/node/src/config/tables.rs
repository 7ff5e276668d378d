//! The tables that several programs have: `[node]`, `[send]`, `[listen]`, `[spool]`.

use super::{ByteSize, Interval, rules};
use crate::settings;
use std::collections::HashSet;
use std::path::PathBuf;

settings! {
    /// `[node]`: what every program has.
    pub struct NodeSettings {
        /// Name of this node in packs and on the monitor's page; empty: the host name.
        pub name: String = String::new() => rules::node_name,
        /// Folder of checkpoint, journal, spool and quarantine; one process at a time.
        pub var_dir: PathBuf = PathBuf::from("var"),
        /// Most bytes of packs that could not be delivered and are set aside; then they are not acknowledged.
        pub quarantine_max: ByteSize = ByteSize::gib(1),
        /// Address of /metrics, /healthz and /readyz; "" is off.
        pub admin: String = String::new() => rules::address_or_empty,
        /// File whose first line is the token that requests to do something (repull, audit) must bring; empty: such requests are
        /// taken only at an admin address of this machine (127.0.0.1, ::1).
        pub token_file: String = String::new(),
        /// Address of the monitor; "" is none. It may be away at any time: nothing waits for it.
        pub monitor: String = String::new() => rules::address_or_empty,
        /// File whose first line is the token that the monitor wants of its nodes ([access] nodes_token_file there); empty: none.
        pub monitor_token_file: String = String::new(),
        /// Address that answers the monitor's probes; "" is none.
        pub heartbeat: String = String::new() => rules::address_or_empty,
        /// Time between two heartbeats to the monitor.
        pub heartbeat_interval: Interval = Interval::secs(10) => rules::between(Interval::ms(100), Interval::secs(3600)),
        /// Priority for the processor, -20 to 19 (19 leaves it to all others); 0: as it was started.
        pub nice: i32 = 0 => rules::between(-20, 19),
        /// Priority for the disk: "idle", "best-effort:0" to "best-effort:7"; empty: as it was started.
        pub ioprio: String = String::new() => rules::io_priority,
        /// Time zone of hours: "Local" or an IANA name.
        pub time_zone: String = "Local".to_owned() => rules::time_zone,
        /// Log format: "text" or "json".
        pub log_format: String = "text".to_owned() => rules::one_of(&["text", "json"]),
        /// Log filter as of tracing-subscriber's EnvFilter, "info" or "info,logferry_link=debug".
        pub log_level: String = "info".to_owned() => rules::log_filter,
    }
}
settings! {
    /// `[send]`: the next tier.
    pub struct SendSettings {
        /// Targets, "host:port".
        pub to: Vec<String> = Vec::new() => rules::addresses,
        /// How targets are used: "single" (the one that is named), "failover" (the first that answers, in this order) or "load_balance"
        /// (all, each source of a host with a target of its own).
        pub mode: Mode = Mode::Single,
        /// What the targets speak: "v2" (nodes of Logferry) or "v1" (legacy nodes).
        pub protocol: Protocol = Protocol::V2,
        /// Connections to a target with protocol "v1": each has one pack on its way.
        pub v1_connections: u64 = 4 => rules::between(1, 64),
        /// Time a write may stand still with protocol "v1"; legacy senders allow as much.
        pub v1_write_timeout: Interval = Interval::secs(300) => rules::at_least(Interval::ms(1)),
        /// Time to wait for the answer to a pack with protocol "v1"; legacy senders wait as long.
        pub v1_answer_timeout: Interval = Interval::secs(480) => rules::at_least(Interval::ms(1)),
        /// Bytes in flight, not acknowledged yet.
        pub window: ByteSize = ByteSize::mib(16) => rules::at_least(ByteSize(1)),
        /// Time to connect and to exchange HELLO.
        pub connect_timeout: Interval = Interval::secs(5) => rules::at_least(Interval::ms(1)),
        /// Time a write may stand still.
        pub write_timeout: Interval = Interval::secs(30) => rules::at_least(Interval::ms(1)),
        /// Time to wait for a pack's ack before the connection counts as broken.
        pub ack_timeout: Interval = Interval::secs(60) => rules::at_least(Interval::ms(1)),
        /// Silence after which a PING is sent; twice that without any frame and the connection counts as broken.
        pub ping_interval: Interval = Interval::secs(15) => rules::at_least(Interval::ms(1)),
        /// First wait after a failed connection; doubles, with jitter.
        pub backoff_min: Interval = Interval::ms(200) => rules::at_least(Interval::ms(1)),
        /// Longest wait between connection attempts.
        pub backoff_max: Interval = Interval::secs(10) => rules::at_least(Interval::ms(1)),
    }
}

impl SendSettings {
    /// What single settings cannot say of each other.
    ///
    /// # Errors
    /// What is wrong, with the key and what to do.
    pub fn validate(&self) -> Result<(), String> {
        let mut known = HashSet::new();
        let twice = self.to.iter().find(|addr| !known.insert(*addr));
        let targets = self.to.len();
        rules::all([
            rules::ensure(targets > 0, || {
                r#"send.to is missing: name at least one target, such as ["collector-a:1302"]"#.to_owned()
            }),
            twice.map_or(Ok(()), |twice| Err(format!("send.to names {twice:?} twice: leave one out"))),
            rules::ensure(self.mode != Mode::Single || targets <= 1, || {
                format!(
                    r#"send.mode is "single" but send.to names {targets} targets: use "failover" or "load_balance""#
                )
            }),
            rules::ensure(self.backoff_min <= self.backoff_max, || {
                format!(
                    "send.backoff_min ({}) is longer than send.backoff_max ({})",
                    self.backoff_min, self.backoff_max
                )
            }),
        ])
    }
}

settings! {
    /// `[listen]`: where packs come in.
    pub struct ListenSettings {
        /// Address, "host:port".
        pub addr: String = String::new() => rules::address_or_empty,
        /// Largest header of a pack.
        pub header_max: ByteSize = ByteSize::kib(64) => rules::between(ByteSize::kib(1), ByteSize::mib(1)),
        /// Largest pack.
        pub pack_max: ByteSize = ByteSize::mib(16) => rules::between(ByteSize::kib(4), ByteSize::gib(1)),
        /// Largest decompressed body.
        pub raw_max: ByteSize = ByteSize::mib(64) => rules::between(ByteSize::kib(4), ByteSize::gib(1)),
        /// Most connections at a time.
        pub connections_max: u64 = 4096 => rules::at_least(1),
        /// Bytes a connection may have in flight.
        pub window: ByteSize = ByteSize::mib(16) => rules::at_least(ByteSize(1)),
        /// Memory for packs read and not answered, over all connections.
        pub memory: ByteSize = ByteSize::mib(24) => rules::at_least(ByteSize::kib(64)),
        /// Time a new connection has for its HELLO; with v1 = true from its first byte on.
        pub hello_timeout: Interval = Interval::secs(5) => rules::at_least(Interval::ms(1)),
        /// Silence after which a connection is closed.
        pub idle_timeout: Interval = Interval::secs(60) => rules::at_least(Interval::ms(1)),
        /// Take packs of legacy nodes (protocol v1) on the same port.
        pub v1: bool = false,
        /// "footprint.json" of a legacy node whose place this one takes: packs that it had seen are not stored again. Read at the first start
        /// only; empty: the one in node.var_dir, if there is one.
        pub v1_footprint: String = String::new(),
        /// Silence after which a connection of a legacy node is closed: it gives no sign of life between packs.
        pub v1_idle_timeout: Interval = Interval::secs(3600) => rules::at_least(Interval::ms(1)),
        /// Slowest a pack of a legacy node may arrive, once begun: legacy senders take up to five minutes.
        pub v1_pack_timeout: Interval = Interval::secs(300) => rules::at_least(Interval::ms(1)),
        /// Slowest a frame may arrive, once begun.
        pub frame_timeout: Interval = Interval::secs(60) => rules::at_least(Interval::ms(1)),
    }
}
settings! {
    /// `[spool]`: the disk-spill cache.
    pub struct SpoolSettings {
        /// Cap for all segments together.
        pub max_bytes: ByteSize = ByteSize::gib(20),
        /// Size of a segment file; its room comes back when all packs in it have arrived.
        pub segment_bytes: ByteSize = ByteSize::mib(8) => rules::at_least(ByteSize::kib(4)),
    }
}

/// How targets are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The one target.
    Single,
    /// The first healthy one in the order given; back to an earlier one when it is healthy again.
    Failover,
    /// Sources of hosts spread over the healthy ones by rendezvous hashing.
    LoadBalance,
}
/// Protocol to send with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Ours.
    V2,
    /// The legacy one.
    V1,
}

impl NodeSettings {
    /// The time zone of hours; the machine's own for `"Local"`.
    pub fn zone(&self) -> Result<jiff::tz::TimeZone, jiff::Error> {
        match self.time_zone.as_str() {
            "Local" => Ok(jiff::tz::TimeZone::system()),
            name => jiff::tz::TimeZone::get(name),
        }
    }
}
