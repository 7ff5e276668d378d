//! Configuration of the collector: the shared tables and `[relay]`.

use logferry_node::config::{
    ByteSize, Interval, ListenSettings, NodeSettings, ProgramConfig, SendSettings, Setting, Settings as _,
    SpoolSettings, rules,
};

logferry_node::settings! {
    /// `[relay]`: when packs go to the spool, and what is remembered of them.
    pub struct RelaySettings {
        /// How long no target may be up, or none may answer, before packs go to the spool. Shorter outages stay in memory.
        pub spool_after: Interval = Interval::secs(1),
        /// Age at which a pack goes to the spool although its target is up and answers others.
        pub slow_after: Interval = Interval::secs(10),
        /// How long a pack waits for room in a full or failing spool before its sender is told to come back later.
        pub busy_after: Interval = Interval::secs(5),
        /// How long packs in flight may take to be answered when the node stops; what is left then is spooled.
        pub stop_grace: Interval = Interval::secs(5),
        /// Memory of what is remembered of streams. Above it, packs are forgotten, then streams, those first that were quiet for longest: then the next tier tells duplicates.
        pub footprint_memory: ByteSize = ByteSize::mib(16) => rules::at_least(ByteSize::kib(64)),
        /// How long a stream is remembered after its last pack, to tell duplicates.
        pub footprint_keep: Interval = Interval::secs(30 * 24 * 3600),
    }
}

/// Largest pack that may be allowed: a record of the spool holds 64 MiB, and headers grow by a hop at each node.
const PACK_MAX_MAX: ByteSize = ByteSize::mib(48);

/// `collector.toml`.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct CollectorConfig {
    /// `[node]`
    pub node: NodeSettings,
    /// `[listen]`: packs from tailers and other collectors.
    pub listen: ListenSettings,
    /// `[send]`: to outputters or other collectors.
    pub send: SendSettings,
    /// `[spool]`
    pub spool: SpoolSettings,
    /// `[relay]`
    pub relay: RelaySettings,
}

impl ProgramConfig for CollectorConfig {
    fn tables() -> Vec<(&'static str, &'static [Setting])> {
        vec![
            ("node", NodeSettings::SETTINGS),
            ("listen", ListenSettings::SETTINGS),
            ("send", SendSettings::SETTINGS),
            ("spool", SpoolSettings::SETTINGS),
            ("relay", RelaySettings::SETTINGS),
        ]
    }

    fn validate(&self) -> Result<(), String> {
        rules::all([
            rules::ensure(!self.listen.addr.is_empty(), || {
                "listen.addr is missing: set the address to take packs on, such as \"0.0.0.0:1302\"".into()
            }),
            self.send.validate(),
            self.validate_sizes(),
            self.validate_times(),
        ])
    }
}

impl CollectorConfig {
    fn validate_sizes(&self) -> Result<(), String> {
        let (pack_max, header_max) = (self.listen.pack_max, self.listen.header_max);
        let not_zero = [
            ("listen.memory", self.listen.memory),
            ("listen.window", self.listen.window),
            ("send.window", self.send.window),
            ("spool.max_bytes", self.spool.max_bytes),
            ("spool.segment_bytes", self.spool.segment_bytes),
        ]
        .map(|(name, size)| rules::ensure(size.0 > 0, || format!("{name} is 0: nothing could pass")));
        let relations = [
            rules::ensure(pack_max <= PACK_MAX_MAX, || {
                "listen.pack_max is larger than 48MiB, which is what the spool takes with room to spare"
                    .into()
            }),
            rules::ensure(header_max <= pack_max, || {
                "listen.header_max is larger than listen.pack_max, which includes the header".into()
            }),
            rules::ensure(pack_max <= self.listen.memory, || {
                "listen.pack_max is larger than listen.memory: one pack must fit into the memory for packs"
                    .into()
            }),
        ];
        rules::all(not_zero.into_iter().chain(relations))
    }

    fn validate_times(&self) -> Result<(), String> {
        let relay = &self.relay;
        let not_zero = [
            ("spool_after", relay.spool_after),
            ("slow_after", relay.slow_after),
            ("busy_after", relay.busy_after),
        ]
        .map(|(name, time)| {
            rules::ensure(!time.0.is_zero(), || format!("relay.{name} is 0: give a time such as \"1s\""))
        });
        let relations = [
            rules::ensure(relay.slow_after >= relay.spool_after, || {
                "relay.slow_after is shorter than relay.spool_after: it is the longer patience".into()
            }),
            rules::ensure(relay.stop_grace <= Interval::secs(8), || {
                "relay.stop_grace is longer than 8s: a node must be able to stop within 10s".into()
            }),
        ];
        rules::all(not_zero.into_iter().chain(relations))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logferry_node::config::Mode;

    fn good() -> CollectorConfig {
        let mut config = CollectorConfig::default();
        config.listen.addr = "127.0.0.1:0".into();
        config.send.to = vec!["127.0.0.1:1306".into()];
        config
    }

    #[test]
    fn defaults_with_addresses_are_valid() {
        assert_eq!(good().validate(), Ok(()));
    }

    type Spoil = fn(&mut CollectorConfig);

    #[test]
    fn each_mistake_names_its_key() {
        let mistakes: [(&str, Spoil); 10] = [
            ("listen.addr", |c| c.listen.addr.clear()),
            ("send.to", |c| c.send.to.clear()),
            ("send.mode", |c| c.send.to.push("b:1".into())),
            ("twice", |c| {
                c.send.mode = Mode::Failover;
                c.send.to.push(c.send.to[0].clone());
            }),
            ("send.backoff_min", |c| c.send.backoff_min = Interval::secs(60)),
            ("listen.memory", |c| c.listen.memory = ByteSize::kib(64)),
            ("listen.pack_max", |c| {
                c.listen.memory = ByteSize::mib(100);
                c.listen.pack_max = ByteSize::mib(100);
            }),
            ("spool.max_bytes", |c| c.spool.max_bytes = ByteSize(0)),
            ("relay.slow_after", |c| c.relay.slow_after = Interval::ms(10)),
            ("relay.stop_grace", |c| c.relay.stop_grace = Interval::secs(60)),
        ];
        for (key, spoil) in mistakes {
            let mut config = good();
            spoil(&mut config);
            let error = config.validate().expect_err(key);
            assert!(error.contains(key), "{key}: {error}");
        }
    }
}
