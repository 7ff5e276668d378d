//! Configuration: TOML files read into structs that [`settings!`](crate::settings) declares, so that name, type,
//! default and help of a setting stand in one place.

use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One declared setting, for help, documentation and the nearest-key hint.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Key.
    pub name: &'static str,
    /// Rust type, which carries the unit (`ByteSize`, `Interval`).
    pub kind: &'static str,
    /// Default as TOML.
    pub default: fn() -> String,
    /// Help text: the doc comment.
    pub help: &'static str,
}

/// A table of settings.
pub trait Settings {
    /// Declared settings, in order.
    const SETTINGS: &'static [Setting];
}

/// Declares a table of settings once: doc comment = help, type = unit, value = default.
///
/// ```
/// logferry_node::settings! {
///     /// Table `[x]`.
///     pub struct XSettings {
///         /// How much.
///         pub bytes_max: logferry_node::config::ByteSize = logferry_node::config::ByteSize::mib(1),
///     }
/// }
/// assert_eq!(XSettings::default().bytes_max.0, 1 << 20);
/// ```
#[macro_export]
macro_rules! settings {
    ($(#[doc = $struct_doc:literal])* pub struct $name:ident {
        $($(#[doc = $doc:literal])* pub $field:ident : $kind:ty = $default:expr,)*
    }) => {
        $(#[doc = $struct_doc])*
        #[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name { $($(#[doc = $doc])* pub $field: $kind,)* }
        impl Default for $name {
            fn default() -> Self { $name { $($field: $default,)* } }
        }
        impl $crate::config::Settings for $name {
            const SETTINGS: &'static [$crate::config::Setting] = &[$(
                $crate::config::Setting {
                    name: stringify!($field),
                    kind: stringify!($kind),
                    default: || { let value: $kind = $default; $crate::config::as_toml(&value) },
                    help: concat!($($doc, "\n"),*),
                },
            )*];
        }
    };
}

/// A default as TOML text.
pub fn as_toml<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Bytes, written `"16MiB"`, `"1GiB"`, `"512KiB"`, `"100B"` or a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ByteSize(pub u64);
impl ByteSize {
    /// MiB.
    pub const fn mib(n: u64) -> ByteSize {
        ByteSize(n << 20)
    }
    /// KiB.
    pub const fn kib(n: u64) -> ByteSize {
        ByteSize(n << 10)
    }
    /// GiB.
    pub const fn gib(n: u64) -> ByteSize {
        ByteSize(n << 30)
    }
}
/// A duration, written `"200ms"`, `"10s"`, `"5m"`, `"1h"`, `"30d"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Interval(pub Duration);
impl Interval {
    /// Milliseconds.
    pub const fn ms(n: u64) -> Interval {
        Interval(Duration::from_millis(n))
    }
    /// Seconds.
    pub const fn secs(n: u64) -> Interval {
        Interval(Duration::from_secs(n))
    }
}
macro_rules! todo_serde {
    ($($t:ident)*) => {$(
        impl serde::Serialize for $t {
            fn serialize<S: serde::Serializer>(&self, _s: S) -> Result<S::Ok, S::Error> { todo!() }
        }
        impl<'de> serde::Deserialize<'de> for $t {
            fn deserialize<D: serde::Deserializer<'de>>(_d: D) -> Result<Self, D::Error> { todo!() }
        }
    )*};
}
todo_serde!(ByteSize Interval);

settings! {
    /// `[node]`: what every program has.
    pub struct NodeSettings {
        /// Name of this node in packs and on the monitor's page; empty: the host name.
        pub name: String = String::new(),
        /// Folder of checkpoint, journal, spool and quarantine; one process at a time.
        pub var_dir: PathBuf = PathBuf::from("var"),
        /// Address of /metrics, /healthz and /readyz; "" is off.
        pub admin: String = String::new(),
        /// Address of the monitor; "" is none.
        pub monitor: String = String::new(),
        /// Address that answers the monitor's probes; "" is none.
        pub heartbeat: String = String::new(),
        /// Time zone of hours: "Local" or an IANA name.
        pub time_zone: String = "Local".to_owned(),
        /// Log format: "text" or "json".
        pub log_format: String = "text".to_owned(),
        /// Log filter as of tracing-subscriber's EnvFilter, "info" or "info,logferry_link=debug".
        pub log_level: String = "info".to_owned(),
    }
}
settings! {
    /// `[send]`: the next tier.
    pub struct SendSettings {
        /// Targets, "host:port".
        pub to: Vec<String> = Vec::new(),
        /// How targets are used.
        pub mode: Mode = Mode::Single,
        /// Protocol.
        pub protocol: Protocol = Protocol::V2,
        /// Bytes in flight, not acknowledged yet.
        pub window: ByteSize = ByteSize::mib(16),
        /// Time to connect and to exchange HELLO.
        pub connect_timeout: Interval = Interval::secs(5),
        /// Time a write may stand still.
        pub write_timeout: Interval = Interval::secs(30),
        /// Time to wait for a pack's ack before the connection counts as broken.
        pub ack_timeout: Interval = Interval::secs(60),
        /// Silence after which a PING is sent; twice that without any frame and the connection counts as broken.
        pub ping_interval: Interval = Interval::secs(15),
        /// First wait after a failed connection; doubles, with jitter.
        pub backoff_min: Interval = Interval::ms(200),
        /// Longest wait between connection attempts.
        pub backoff_max: Interval = Interval::secs(10),
    }
}
settings! {
    /// `[listen]`: where packs come in.
    pub struct ListenSettings {
        /// Address, "host:port".
        pub addr: String = String::new(),
        /// Largest header of a pack.
        pub header_max: ByteSize = ByteSize::kib(64),
        /// Largest pack.
        pub pack_max: ByteSize = ByteSize::mib(16),
        /// Largest decompressed body.
        pub raw_max: ByteSize = ByteSize::mib(64),
        /// Most connections at a time.
        pub connections_max: u64 = 4096,
        /// Bytes a connection may have in flight.
        pub window: ByteSize = ByteSize::mib(16),
        /// Memory for packs read and not answered, over all connections.
        pub memory: ByteSize = ByteSize::mib(24),
        /// Time a new connection has for its HELLO.
        pub hello_timeout: Interval = Interval::secs(5),
        /// Silence after which a connection is closed.
        pub idle_timeout: Interval = Interval::secs(60),
        /// Slowest a frame may arrive, once begun: time for a whole frame.
        pub frame_timeout: Interval = Interval::secs(60),
    }
}
settings! {
    /// `[spool]`: the disk-spill cache.
    pub struct SpoolSettings {
        /// Cap for all segments together.
        pub max_bytes: ByteSize = ByteSize::gib(20),
        /// Size of a segment file.
        pub segment_bytes: ByteSize = ByteSize::mib(64),
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
    /// Streams spread over the healthy ones by rendezvous hashing.
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

/// What is wrong with a configuration, with file, line and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// A program's whole configuration.
pub trait ProgramConfig: DeserializeOwned {
    /// Tables and their settings: `("node", NodeSettings::SETTINGS)`, `("[source]", …)` for an array of tables.
    fn tables() -> Vec<(&'static str, &'static [Setting])>;
    /// Checks that need more than one setting; errors name the key and say what to do.
    fn validate(&self) -> Result<(), String>;
}

/// Reads and checks a configuration file. Unknown keys name the file, the line and the nearest known key.
pub fn load<C: ProgramConfig>(path: &Path) -> Result<C, ConfigError> {
    todo!("{path:?}")
}
