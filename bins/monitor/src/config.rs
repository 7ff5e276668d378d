//! Configuration of the monitor.

use crate::access;
use crate::alerts::AlertSettings;
use crate::database::Url;
use anyhow::Context;
use logferry_node::config::{ByteSize, Interval, NodeSettings, ProgramConfig, Setting, Settings as _, rules};
use std::net::IpAddr;

/// Name of the SQLite file in `var_dir` when no database is configured.
const DATABASE_FILE: &str = "monitor.db";

logferry_node::settings! {
    /// `[listen]`: where nodes and people come in.
    pub struct ListenSettings {
        /// Address for the messages of nodes, "host:port".
        pub addr: String = String::new() => rules::address_or_empty,
        /// Address of the page, /api and /metrics; "" is off. One that other machines reach needs a login ([access]).
        pub http: String = "127.0.0.1:8080".to_owned() => rules::address_or_empty,
        /// Most connections of nodes at a time.
        pub connections_max: u64 = 4096 => rules::at_least(1),
        /// Most of them from one address: raise it where many nodes are behind one.
        pub connections_per_address: u64 = 1024 => rules::at_least(1),
        /// Longest time for a whole message, once begun.
        pub frame_timeout: Interval = Interval::secs(30) => rules::at_least(Interval::ms(1)),
        /// Most bytes of messages that have begun and are not whole; further large ones wait.
        pub unfinished_max: ByteSize = ByteSize::mib(32) => rules::between(ByteSize::mib(1), ByteSize::gib(1)),
        /// Silence after which a node's connection is closed.
        pub idle_timeout: Interval = Interval::secs(4000) => rules::at_least(Interval::ms(1)),
    }
}
logferry_node::settings! {
    /// `[access]`: who may read the page, /api and /metrics, and which nodes are listened to. Tokens and logins travel as they are: put
    /// TLS before `listen.http`, by a reverse proxy, where the way is not yours.
    pub struct AccessSettings {
        /// Name of the login of people.
        pub user: String = String::new() => user_name,
        /// Its password as `ferryctl hash-password` makes it: "$argon2id$…".
        pub password_hash: String = String::new() => password_hash,
        /// File whose first line is the token of tools ("Authorization: Bearer TOKEN"); empty: none.
        pub token_file: String = String::new(),
        /// File whose first line is the token that each message of a node must bring ([node] monitor_token_file there). Legacy nodes
        /// cannot bring one. Empty: whoever reaches `listen.addr` is listened to.
        pub nodes_token_file: String = String::new(),
        /// Addresses and networks ("10.0.0.7", "10.1.0.0/16") from where legacy nodes register, unregister and log without the token; what
        /// comes from there is believed. Nothing else is taken without it.
        pub legacy_from: Vec<String> = Vec::new() => networks,
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
        /// Most hours of hosts' sources; of more the oldest are forgotten.
        pub hours_max: u64 = 100_000 => rules::between(100, 2_000_000),
        /// How long hours are kept.
        pub keep_hours: Interval = Interval::secs(30 * 24 * 3600) => rules::at_least(Interval::secs(24 * 3600)),
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
    /// `[access]`
    pub access: AccessSettings,
    /// `[database]`
    pub database: DatabaseSettings,
    /// `[check]`
    pub check: CheckSettings,
    /// `[alert]`
    pub alert: AlertSettings,
}

#[expect(clippy::ptr_arg, reason = "a rule takes a reference to the declared type")]
fn user_name(value: &String) -> Result<(), String> {
    // what is before the colon of a basic login
    match value.contains(|c: char| c == ':' || c.is_control()) || value.len() > 255 {
        true => Err("a name of up to 255 bytes without \":\" is expected".into()),
        false => Ok(()),
    }
}

#[expect(clippy::ptr_arg, reason = "a rule takes a reference to the declared type")]
fn password_hash(value: &String) -> Result<(), String> {
    if value.is_empty() { Ok(()) } else { access::check_hash(value) }
}

#[expect(clippy::ptr_arg, reason = "a rule takes a reference to the declared type")]
fn networks(value: &Vec<String>) -> Result<(), String> {
    access::networks(value).map(drop)
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
            ("access", AccessSettings::SETTINGS),
            ("database", DatabaseSettings::SETTINGS),
            ("check", CheckSettings::SETTINGS),
            ("alert", AlertSettings::SETTINGS),
        ]
    }

    fn validate(&self) -> Result<(), String> {
        rules::all([
            rules::ensure(!self.listen.addr.is_empty(), || {
                "listen.addr is missing: set the address to take messages of nodes on, such as \"0.0.0.0:4040\"".into()
            }),
            self.access.validate(),
            self.alert.validate(),
            rules::ensure(self.access.has_login() || is_of_this_machine(&self.listen.http), || {
                "listen.http can be reached by other machines, so it needs a login: set access.user and \
                 access.password_hash (`ferryctl hash-password` makes one), or access.token_file, or listen on 127.0.0.1"
                    .into()
            }),
        ])
    }
}

impl MonitorConfig {
    /// Where the registry and the error log are kept.
    ///
    /// # Errors
    /// There is no such database, or no folder to be in.
    pub fn database_url(&self) -> anyhow::Result<Url> {
        let file = self.node.var_dir.join(DATABASE_FILE);
        match self.database.url.as_str() {
            "" => std::path::absolute(&file).map(Url::Sqlite).with_context(|| file.display().to_string()),
            text => Url::parse(text).map_err(anyhow::Error::msg),
        }
    }
}

impl AccessSettings {
    /// Whether the page asks who reads it.
    pub fn has_login(&self) -> bool {
        !self.password_hash.is_empty() || !self.token_file.is_empty()
    }

    fn validate(&self) -> Result<(), String> {
        if self.nodes_token_file.is_empty() && !self.legacy_from.is_empty() {
            return Err(
                "access.legacy_from has no effect without access.nodes_token_file: all nodes are listened to"
                    .into(),
            );
        }
        match (self.user.is_empty(), self.password_hash.is_empty()) {
            (false, true) => {
                Err("access.password_hash is missing: `ferryctl hash-password` makes one".into())
            }
            (true, false) => Err("access.user is missing: the login has a password, but no name".into()),
            _ => Ok(()),
        }
    }
}

/// Whether only this machine reaches the address. Of a name it is not known, but for `localhost`.
fn is_of_this_machine(addr: &str) -> bool {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |ip: IpAddr| ip.is_loopback();
    addr.is_empty() || host == "localhost" || host.parse().is_ok_and(is_loopback)
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
    fn a_page_that_other_machines_reach_needs_a_login() {
        let hash = access::hash_password("secret").expect("hashed");
        let checked = |http: &str, access: &str| {
            let text = format!("[listen]\naddr = \"0.0.0.0:4040\"\nhttp = \"{http}\"\n[access]\n{access}\n");
            config::parse::<MonitorConfig>("monitor.toml", &text).map(drop).map_err(|error| error.to_string())
        };
        let login = format!("user = \"ops\"\npassword_hash = \"{hash}\"");
        for http in
            ["0.0.0.0:8080", "[::]:8080", "10.0.0.7:8080", "monitor-1:8080", "localhost.evil.example:80"]
        {
            let error = checked(http, "").expect_err(http);
            assert!(
                error.starts_with("monitor.toml:3") && error.contains("ferryctl hash-password"),
                "{error}"
            );
            assert_eq!(checked(http, &login), Ok(()), "{http}");
            assert_eq!(checked(http, "token_file = \"/etc/logferry/token\""), Ok(()), "{http}");
        }
        for http in ["", "127.0.0.1:8080", "127.8.8.8:1", "[::1]:8080", "localhost:8080"] {
            assert_eq!(checked(http, ""), Ok(()), "{http}");
        }
        assert!(checked("", "user = \"ops\"").expect_err("no password").contains("access.password_hash"));
        assert!(
            checked("", "password_hash = \"secret\"").expect_err("no hash").starts_with("monitor.toml:5")
        );
    }

    #[test]
    fn addresses_of_legacy_nodes_are_checked_and_need_a_token_of_the_others() {
        let checked = |access: &str| {
            let text = format!("[listen]\naddr = \"0.0.0.0:4040\"\n[access]\n{access}\n");
            config::parse::<MonitorConfig>("monitor.toml", &text).map(drop).map_err(|error| error.to_string())
        };
        let with_token = "nodes_token_file = \"/etc/logferry/nodes.token\"\nlegacy_from = ";
        assert_eq!(checked(&format!("{with_token}[\"10.0.0.7\", \"10.1.0.0/16\"]")), Ok(()));
        let error = checked(&format!("{with_token}[\"web-1\"]")).expect_err("a name");
        assert!(error.starts_with("monitor.toml:5") && error.contains("10.1.0.0/16"), "{error}");
        assert!(checked("legacy_from = [\"10.0.0.7\"]").expect_err("no token").contains("nodes_token_file"));
    }

    #[test]
    fn an_address_for_nodes_is_all_it_needs() {
        let config = config::parse::<MonitorConfig>("monitor.toml", "[listen]\naddr = \"0.0.0.0:4040\"\n");
        let config = config.expect("a good file");
        assert_eq!(config.listen.http, "127.0.0.1:8080");
        assert!(config::parse::<MonitorConfig>("monitor.toml", "").is_err());
    }
}
