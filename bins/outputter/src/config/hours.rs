//! `[hours]` and `[repull]`.

use logferry_node::config::{ByteSize, Interval, rules};
use std::collections::BTreeMap;
use std::path::PathBuf;

logferry_node::settings! {
    /// `[hours]`: the completeness books, their marks under `received/`, and hooks.
    pub struct HoursSettings {
        /// Command and arguments run for each complete hour, at least once; its facts are in LOGFERRY_… variables. Empty: none.
        pub on_complete: Vec<String> = Vec::new(),
        /// URL that gets a POST with the hour's facts as JSON for each complete hour, at least once: "http://…". "" is none.
        pub webhook: String = String::new(),
        /// Longest that a command or webhook may take; then it has failed, and is run again later.
        pub hook_timeout: Interval = Interval::secs(300) => rules::at_least(Interval::ms(1)),
        /// Commands that run at a time, and webhooks, and hours that are put into the queue of [etl].
        pub hooks_at_once: u64 = 4 => rules::between(1, 64),
        /// How long an hour is remembered after its last pack. One that is not complete by then expires with a warning.
        pub keep: Interval = Interval::secs(4 * 24 * 3600) => rules::at_least(Interval::secs(1)),
        /// Memory of the books; about 1 KiB an hour of a source of a host. Above it, complete hours are forgotten first.
        pub memory: ByteSize = ByteSize::mib(64) => rules::at_least(ByteSize::mib(1)),
        /// Time zones of hosts whose clocks show another time than this node's, { "web-1" = "Asia/Tokyo" }: for the marks of days.
        pub zones: BTreeMap<String, String> = BTreeMap::new() => known_zones,
    }
}

logferry_node::settings! {
    /// `[repull]`: asking tailers for what is missing.
    pub struct RepullSettings {
        /// How long packs of an hour may be missing, with nothing of it coming, before a repull is wanted. Twice as long after each time.
        pub wait: Interval = Interval::secs(900) => rules::at_least(Interval::ms(1)),
        /// Admin endpoints of tailers by host, { "web-1" = "web-1:9311" }. Of other hosts it is only said what is missing.
        pub hosts: BTreeMap<String, String> = BTreeMap::new() => addresses_by_host,
        /// File whose first line is the token that the tailers ask for (their node.token_file); "" is none.
        pub token_file: PathBuf = PathBuf::new(),
    }
}

fn known_zones(zones: &BTreeMap<String, String>) -> Result<(), String> {
    zones.values().try_for_each(rules::time_zone)
}

fn addresses_by_host(hosts: &BTreeMap<String, String>) -> Result<(), String> {
    hosts.values().try_for_each(rules::address)
}

impl HoursSettings {
    pub(super) fn validate(&self) -> Result<(), String> {
        if !self.webhook.is_empty() && !self.webhook.starts_with("http://") {
            return Err(format!(
                "hours.webhook is {:?}: it must begin with http:// (for https put a proxy on this machine)",
                self.webhook
            ));
        }
        Ok(())
    }
}
