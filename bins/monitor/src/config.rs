//! Configuration of the monitor.

use crate::database::Url;
use logferry_node::config::{ByteSize, Interval, NodeSettings, ProgramConfig, Setting, Settings as _, rules};

logferry_node::settings! {
    /// `[listen]`: where nodes and people come in.
    pub struct ListenSettings {
        /// Address for the messages of nodes, "host:port".
        pub addr: String = String::new() => rules::address_or_empty,
        /// Address of the page, /api and /metrics; "" is off. Whoever reaches it may read all of it.
        pub http: String = "127.0.0.1:8080".to_owned() => rules::address_or_empty,
        /// Most connections of nodes at a time.
        pub connections_max: u64 = 4096 => rules::at_least(1),
        /// Silence after which a node's connection is closed.
        pub idle_timeout: Interval = Interval::secs(4000) => rules::at_least(Interval::ms(1)),
    }
}
logferry_node::settings! {
    /// `[database]`: where the registry and the error log are kept.
    pub struct DatabaseSettings {
        /// "mysql://user:password@host:3306/database" (MariaDB too) or "sqlite:///path/of/file.db"; empty: monitor.db in var_dir.
        pub url: String = String::new() => database_url,
        /// Longest wait for an answer of the database; then it counts as away.
        pub timeout: Interval = Interval::secs(10) => rules::at_least(Interval::ms(100)),
        /// Most bytes that wait in var_dir, fsynced, while the database is away; then nodes are told to keep theirs.
        pub queue_max: ByteSize = ByteSize::mib(32) => rules::between(ByteSize::kib(64), ByteSize::mib(48)),
        /// How long errors are kept.
        pub keep_errors: Interval = Interval::secs(30 * 24 * 3600) => rules::at_least(Interval::secs(60)),
    }
}
logferry_node::settings! {
    /// `[check]`: how nodes are looked after.
    pub struct CheckSettings {
        /// Time between two probes of a node.
        pub interval: Interval = Interval::secs(30) => rules::at_least(Interval::ms(100)),
        /// Longest wait for a probe's answer.
        pub probe_timeout: Interval = Interval::secs(10) => rules::at_least(Interval::ms(10)),
        /// Errors and warnings of one node that are stored in a minute; more are counted and left out.
        pub errors_per_minute: u64 = 60 => rules::at_least(1),
        /// Errors and warnings that the page and /api show; the database has more.
        pub errors_shown: u64 = 5000 => rules::between(1, 100_000),
        /// Most nodes.
        pub nodes_max: u64 = 20_000 => rules::at_least(1),
        /// How long a node that left or is silent stays in the list.
        pub forget_after: Interval = Interval::secs(30 * 24 * 3600) => rules::at_least(Interval::secs(1)),
    }
}

/// `monitor.toml`.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MonitorConfig {
    /// `[node]`
    pub node: NodeSettings,
    /// `[listen]`
    pub listen: ListenSettings,
    /// `[database]`
    pub database: DatabaseSettings,
    /// `[check]`
    pub check: CheckSettings,
}

#[expect(clippy::ptr_arg, reason = "a rule takes a reference to the declared type")]
fn database_url(value: &String) -> Result<(), String> {
    if value.is_empty() { Ok(()) } else { Url::parse(value).map(drop) }
}

impl ProgramConfig for MonitorConfig {
    fn tables() -> Vec<(&'static str, &'static [Setting])> {
        vec![
            ("node", NodeSettings::SETTINGS),
            ("listen", ListenSettings::SETTINGS),
            ("database", DatabaseSettings::SETTINGS),
            ("check", CheckSettings::SETTINGS),
        ]
    }

    fn validate(&self) -> Result<(), String> {
        if self.listen.addr.is_empty() {
            return Err(
                "listen.addr is missing: set the address to take messages of nodes on, such as \"0.0.0.0:4040\"".into(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logferry_node::config;

    #[test]
    fn a_wrong_database_is_told_with_its_line() {
        let text = "[listen]\naddr = \"127.0.0.1:4040\"\n[database]\nurl = \"postgres://x\"\n";
        let error = config::parse::<MonitorConfig>("monitor.toml", text).expect_err("a mistake").to_string();
        assert!(error.starts_with("monitor.toml:4") && error.contains("mysql://"), "{error}");
    }

    #[test]
    fn an_address_for_nodes_is_all_it_needs() {
        let config = config::parse::<MonitorConfig>("monitor.toml", "[listen]\naddr = \"0.0.0.0:4040\"\n");
        let config = config.expect("a good file");
        assert_eq!(config.listen.http, "127.0.0.1:8080");
        assert!(config::parse::<MonitorConfig>("monitor.toml", "").is_err());
    }
}
