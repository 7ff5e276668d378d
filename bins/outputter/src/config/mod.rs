//! Configuration of the outputter: `outputter.toml`.

mod etl;
mod file;
mod hours;
mod mongodb;

pub use etl::EtlSettings;
pub use file::FileSettings;
pub use hours::{HoursSettings, RepullSettings};
pub use mongodb::MongodbSettings;

use crate::file::archive::Form;
use crate::finish::{FinishSettings, Plan, RetentionSettings};
use logferry_node::config::{
    ByteSize, ListenSettings, NodeSettings, ProgramConfig, Setting, Settings, rules,
};
use logferry_spool::SpoolOptions;
use serde::Deserialize;
use std::time::Duration;

/// Longest that a held pack waits for its answer: well below a sender's `ack_timeout` (60 s by default), so
/// that waiting for a gap never looks like a broken connection. Longer waits go on across resends.
pub const HOLD_ANSWER_MAX: Duration = Duration::from_secs(20);

logferry_node::settings! {
    /// `[spool]`: packs on disk for an output that is away, while the others go on.
    pub struct SpoolSettings {
        /// Cap of the packs kept on disk for an output that is away; each output has a spool of its own. Those of [file] go there where there is another output; else senders are told to come again later, and keep them.
        pub max_bytes: ByteSize = ByteSize::gib(20),
        /// Size of a segment file.
        pub segment_bytes: ByteSize = ByteSize::mib(8) => rules::at_least(ByteSize::kib(4)),
    }
}

/// The whole of `outputter.toml`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputterConfig {
    /// `[node]`.
    pub node: NodeSettings,
    /// `[listen]`.
    pub listen: ListenSettings,
    /// `[spool]`: for an output that is away.
    pub spool: SpoolSettings,
    /// `[file]`.
    pub file: Option<FileSettings>,
    /// `[hours]`.
    pub hours: HoursSettings,
    /// `[repull]`.
    pub repull: RepullSettings,
    /// `[finish]`.
    pub finish: FinishSettings,
    /// `[retention]`.
    pub retention: RetentionSettings,
    /// `[etl]`.
    pub etl: Option<EtlSettings>,
    /// `[mongodb]`.
    pub mongodb: Option<MongodbSettings>,
}

impl SpoolSettings {
    /// Of one spool.
    pub(crate) fn options(&self) -> SpoolOptions {
        SpoolOptions { bytes_max: self.max_bytes.0, segment_bytes: self.segment_bytes.0 }
    }
}

impl ProgramConfig for OutputterConfig {
    fn tables() -> Vec<(&'static str, &'static [Setting])> {
        vec![
            ("node", NodeSettings::SETTINGS),
            ("listen", ListenSettings::SETTINGS),
            ("spool", SpoolSettings::SETTINGS),
            ("file", FileSettings::SETTINGS),
            ("hours", HoursSettings::SETTINGS),
            ("repull", RepullSettings::SETTINGS),
            ("finish", FinishSettings::SETTINGS),
            ("retention", RetentionSettings::SETTINGS),
            ("etl", EtlSettings::SETTINGS),
            ("mongodb", MongodbSettings::SETTINGS),
        ]
    }

    fn validate(&self) -> Result<(), String> {
        rules::all([
            rules::ensure(!self.listen.addr.is_empty(), || {
                "listen.addr is not set: say where packs come in, such as addr = \"0.0.0.0:1306\"".into()
            }),
            self.hours.validate(),
            self.validate_ages(),
            rules::ensure(self.file.is_some() || self.mongodb.is_some(), || {
                "no output is configured: add a [file] table with dir = \"…\", or [mongodb]".into()
            }),
            self.file.as_ref().map_or(Ok(()), |file| self.validate_file(file)),
            self.mongodb.as_ref().map_or(Ok(()), |mongodb| mongodb.validate(&self.listen, &self.node)),
            self.etl.as_ref().map_or(Ok(()), |etl| self.validate_etl(etl)),
            self.validate_effects(),
        ])
    }

    #[cfg(feature = "etl")]
    fn check(&self) -> Result<(), String> {
        self.etl.as_ref().map_or(Ok(()), |etl| crate::etl::check(etl, &self.node.time_zone))
    }
}

impl OutputterConfig {
    fn validate_ages(&self) -> Result<(), String> {
        let age = self.retention.age.0;
        rules::ensure(age.is_zero() || age >= self.hours.keep.0, || {
            format!(
                "retention.age ({}) is below hours.keep ({}): an hour must not be removed while lines of it are waited for",
                self.retention.age, self.hours.keep
            )
        })
    }

    fn validate_file(&self, file: &FileSettings) -> Result<(), String> {
        let finish = Plan::new(&self.finish, &file.dir.join("log_data"), Form::of(&file.archive));
        rules::all([file.validate(&self.listen), finish.map(drop)])
    }

    fn validate_etl(&self, etl: &EtlSettings) -> Result<(), String> {
        let has_files = rules::ensure(self.file.is_some(), || {
            "etl.dir takes tables that are made of the log files: add a [file] table with dir = \"…\"".into()
        });
        let path = self.file.as_ref().map_or(Ok(()), |file| etl.validate_path(file));
        rules::all([has_files, path, etl.validate()])
    }

    /// Hours are known from the header files, so nothing that follows from them can be had without `[file]`.
    fn validate_effects(&self) -> Result<(), String> {
        let (finish, retention) = (&self.finish, &self.retention);
        let set = [
            ("hours.on_complete", !self.hours.on_complete.is_empty()),
            ("hours.webhook", !self.hours.webhook.is_empty()),
            ("repull.hosts", !self.repull.hosts.is_empty()),
            ("finish.compress", finish.compress != "none"),
            ("finish.dir", !finish.dir.as_os_str().is_empty()),
            ("finish.mode", !finish.mode.is_empty()),
            ("finish.owner", !finish.owner.is_empty()),
            ("retention.age", !retention.age.0.is_zero()),
            ("retention.bytes", retention.bytes.0 > 0),
            ("retention.free", retention.free.0 > 0),
        ];
        rules::all(set.map(|(name, is_set)| {
            rules::ensure(self.file.is_some() || !is_set, || {
                format!(
                    "{name} has no effect without [file]: which hours are complete is known from its header files; add [file], or leave it out"
                )
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn good() -> OutputterConfig {
        let mut config = OutputterConfig { file: Some(FileSettings::default()), ..Default::default() };
        config.listen.addr = "127.0.0.1:0".into();
        config.file.as_mut().unwrap().dir = "/data/logs".into();
        config
    }

    fn error_after(change: impl Fn(&mut OutputterConfig, &mut FileSettings)) -> String {
        let mut config = good();
        let mut file = config.file.take().unwrap();
        change(&mut config, &mut file);
        config.file = Some(file);
        config.validate().unwrap_err()
    }

    #[cfg(feature = "etl")]
    fn etl_set() -> EtlSettings {
        let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/etl");
        let (program, columns) = (shipped.join("access.vrl"), shipped.join("columns.json"));
        EtlSettings { dir: "/data/etl".into(), program, columns, ..EtlSettings::default() }
    }

    #[cfg(feature = "etl")]
    #[test]
    fn tables_are_only_made_of_files_of_one_hour() {
        let validated = |path: &str| {
            let mut config = good();
            config.file.as_mut().unwrap().path = path.into();
            config.etl = Some(etl_set());
            config.validate()
        };
        for path in ["{source}/{host}_{hour}", "{day}/{host}/{source}_{hour}_{stream}"] {
            validated(path).unwrap();
        }
        for path in
            ["{source}/{day}", "{source}/{host}", "{host}_{hour}", "{source}/{hour}", "{source}/{ip}_{hour}"]
        {
            let error = validated(path).unwrap_err();
            assert!(error.contains("file.path") && error.contains("[etl]"), "{path}: {error}");
        }
    }

    #[cfg(feature = "etl")]
    #[test]
    fn files_of_etl_are_read_when_the_configuration_is_checked() {
        let mut config = good();
        config.etl = Some(etl_set());
        config.check().unwrap();
        let changes: [fn(&mut EtlSettings); 3] = [
            |etl| etl.program = "/nonexistent.vrl".into(),
            |etl| etl.columns = "/nonexistent.json".into(),
            |etl| etl.spider_list = "/nonexistent".into(),
        ];
        for change in changes {
            let mut config = good();
            let mut etl = etl_set();
            change(&mut etl);
            config.etl = Some(etl);
            config.validate().unwrap();
            let error = config.check().unwrap_err();
            assert!(error.contains("etl") && error.contains("/nonexistent"), "{error}");
        }
    }

    #[test]
    fn what_needs_header_files_is_refused_without_file() {
        type Change = fn(&mut OutputterConfig);
        let changes: [(&str, Change); 5] = [
            ("hours.on_complete", |c| c.hours.on_complete = vec!["true".into()]),
            ("hours.webhook", |c| c.hours.webhook = "http://127.0.0.1/".into()),
            ("repull.hosts", |c| drop(c.repull.hosts.insert("a".into(), "a:1".into()))),
            ("finish.compress", |c| c.finish.compress = "zstd".into()),
            ("retention.bytes", |c| c.retention.bytes = ByteSize(1)),
        ];
        for (name, change) in changes {
            let mut config = good();
            (config.file, config.mongodb) = (None, Some(MongodbSettings::default()));
            change(&mut config);
            let error = config.validate().unwrap_err();
            assert!(error.contains(name) && error.contains("[file]"), "{name}: {error}");
        }
    }

    #[test]
    fn defaults_with_an_address_and_a_folder_are_valid() {
        good().validate().unwrap();
    }

    #[test]
    fn errors_name_the_key_and_say_what_to_do() {
        assert!(error_after(|c, _| c.hours.webhook = "https://x/".into()).contains("hours.webhook"));
        assert!(error_after(|c, _| c.listen.addr.clear()).contains("listen.addr"));
        assert!(error_after(|_, f| f.dir = PathBuf::new()).contains("file.dir"));
        assert!(error_after(|_, f| f.path = "{sauce}/{host}".into()).contains("{source}"));
        assert!(error_after(|_, f| f.inflate_memory = ByteSize(7)).contains("file.inflate_memory"));
        assert!(error_after(|_, f| f.open_files_max = 0).contains("file.open_files_max"));
        assert!(error_after(|_, f| f.sync_threads = 0).contains("file.sync_threads"));
        assert!(error_after(|_, f| f.hold_bytes_max = ByteSize::gib(1)).contains("listen.memory"));
        let etl = |c: &mut OutputterConfig, _: &mut FileSettings| c.etl = Some(EtlSettings::default());
        let want = if cfg!(feature = "etl") { "etl.dir" } else { "--features etl" };
        assert!(error_after(etl).contains(want));
        let mut none = good();
        none.file = None;
        assert!(none.validate().unwrap_err().contains("[file]"));
    }
}
