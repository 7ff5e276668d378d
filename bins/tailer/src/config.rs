//! The tailer's configuration file: `[node]`, `[[source]]`, `[[input]]`, `[pack]`, `[limits]`, `[hours]`, `[send]`.

mod effect;
mod overlap;

use crate::body::BodyRules;
use crate::encoding::Newline;
use crate::entries::encoding_of;
use crate::hour::HOUR;
use crate::input::{self, InputSettings};
use crate::pattern::{PathsError, SourcePaths};
use logferry_node::config::{
    ByteSize, Interval, NodeSettings, ProgramConfig, Protocol, SendSettings, Setting, Settings,
    SpoolSettings, rules,
};
use logferry_node::settings;
use logferry_pack::{Codec, Name, RAW_PER_SPAN_MAX};
use std::collections::BTreeSet;

/// Largest `max_bytes` and `max_line`, in bytes: a body that does not compress must still fit the default
/// `pack_max` of a receiver (16 MiB) with its header.
pub const PACK_RAW_MAX: ByteSize = ByteSize::mib(12);
/// Smallest `max_bytes` and `max_line`, in bytes: the first line's KiB must fit with room to spare.
pub const PACK_RAW_MIN: ByteSize = ByteSize::kib(4);

/// Smallest `rate`, in bytes a second.
pub const RATE_MIN: ByteSize = ByteSize::kib(1);

/// Where shipping of a file begins that is there at the tailer's very first start for its source.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// At its first byte.
    Beginning,
    /// After the last newline it has at that moment.
    End,
}

/// What becomes of lines that are too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LongLines {
    /// They are shipped in pieces, each in a pack of its own.
    Split,
    /// They are left out.
    Drop,
}

/// Which files of a source go first when several were written to while nobody read them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CatchUp {
    /// All in turn, a pack of each.
    Fair,
    /// Those that were changed longest ago.
    Oldest,
    /// Those that were changed last.
    Newest,
}

settings! {
    /// `[[source]]`: a named set of files.
    pub struct SourceSettings {
        /// Name of the source in packs; one component of a path at the store.
        pub name: String = String::new() => rules::node_name,
        /// Files to follow: a plain path, a glob, or a path with a time pattern, "access.log.<%Y%m%d%H>".
        pub path: String = String::new(),
        /// The file that is being written, if it gets its name of `path` only when its hour or day is over, as with log4j and logback:
        /// "server.log". A name in the folder of `path`, a path, or a glob; empty: files have their names from the start.
        pub current: String = String::new(),
        /// Folders below which its files must really lie, whatever symbolic links lead to them; none: anywhere.
        pub roots: Vec<String> = Vec::new(),
        /// Where to begin with files that are there at the very first start: "beginning" or "end".
        pub start: Start = Start::Beginning,
        /// Which files go first at a start with a backlog: "fair" (a pack of each in turn), "oldest" or "newest". Hourly files come
        /// in their order unless this is "newest".
        pub catch_up: CatchUp = CatchUp::Fair,
        /// Regular expressions: only lines that one of them matches are shipped; none: all lines.
        pub include: Vec<String> = Vec::new(),
        /// Regular expressions: lines that one of them matches are not shipped.
        pub exclude: Vec<String> = Vec::new(),
        /// Which lines belong together, as a stack trace does: a pack is not cut between them, and include and exclude choose all of
        /// them or none.
        pub multiline [table]: MultilineSettings = MultilineSettings::default(),
        /// Encoding of the files, a label of the Encoding Standard: "utf-16le", "latin1", "gbk" …; "utf-16" looks for a byte order mark.
        /// "utf-8": shipped as they are.
        pub encoding: String = "utf-8".to_owned(),
        /// What becomes of a line of `max_line` or more: "split", shipped in pieces, or "drop", left out and counted.
        pub long_lines: LongLines = LongLines::Split,
        /// State file of a legacy tail role, "line.rec", to go on from at the very first start; empty: none.
        pub line_record: String = String::new(),
        /// Most bytes of its files that are shipped in a second; 0: no limit.
        pub rate: ByteSize = ByteSize(0) => rules::none_or_at_least(RATE_MIN),
        /// Time between two looks at the files, should inotify stay silent (network file systems).
        pub poll_interval: Interval = Interval::secs(1) => rules::at_least(Interval::ms(10)),
        /// Time after the end of an hour at which its file counts as finished, should the next file not be there.
        pub grace: Interval = Interval::secs(600),
        /// Silence after which a file that was rotated away, or whose hour is over, counts as finished.
        pub rotate_wait: Interval = Interval::secs(5),
        /// How long a deleted file that was not read to its end is held open; then the rest is given up, and counted.
        pub hold_deleted: Interval = Interval::secs(24 * 3600),
        /// Bring packs that no target takes to the tailer's own spool, so that the files may vanish.
        pub spool: bool = false,
    }
}
settings! {
    /// `[source.multiline]`: entries of several lines.
    pub struct MultilineSettings {
        /// Regular expression: an entry begins at each line that matches; empty: each line is one.
        pub start: String = String::new(),
        /// Instead of start: lines that match belong to the entry before them.
        pub continuation: String = String::new(),
        /// Longest entry of several lines; a longer one is cut at the end of a line, and counted.
        pub max_bytes: ByteSize = ByteSize::mib(1) => rules::between(PACK_RAW_MIN, PACK_RAW_MAX),
        /// Silence of a file after which its last entry counts as whole.
        pub timeout: Interval = Interval::secs(1) => rules::at_least(Interval::ms(1)),
    }
}
settings! {
    /// `[pack]`: how lines become packs.
    pub struct PackSettings {
        /// Codec of the bodies: "zlib", "zstd" or "none".
        pub codec: Codec = Codec::Zlib,
        /// Level of the codec: zlib 1 to 9, zstd 1 to 19.
        pub level: i32 = 1,
        /// Most bytes of lines in one pack (a single longer line still makes one pack).
        pub max_bytes: ByteSize = ByteSize::mib(1) => rules::between(PACK_RAW_MIN, PACK_RAW_MAX),
        /// Most lines in one pack; 0: no limit.
        pub max_lines: u64 = 0,
        /// Longest time lines gather while earlier packs of their file are in flight.
        pub max_age: Interval = Interval::ms(200),
        /// Length at which a line that has no end yet is split; see long_lines.
        pub max_line: ByteSize = ByteSize::mib(1) => rules::between(PACK_RAW_MIN, PACK_RAW_MAX),
        /// Address of this host in packs; empty: the local address towards the first target.
        pub ip: String = String::new(),
        /// Threads that compress; 0: one for each core.
        pub threads: u64 = 0 => rules::between(0, 64),
    }
}

settings! {
    /// `[limits]`: what the tailer leaves to others on its host, over all sources.
    pub struct LimitSettings {
        /// Most bytes of files that are shipped in a second; 0: no limit.
        pub rate: ByteSize = ByteSize(0) => rules::none_or_at_least(RATE_MIN),
        /// Most processor time that is used while files are shipped, in cores: 0.5 is half of one; 0: no limit.
        pub cpu: f64 = 0.0 => rules::between(0.0, 1024.0),
        /// Most log files that are held open; the least recently active ones are closed, and opened again when they change.
        pub open_files: u64 = 1024 => rules::between(16, 1 << 20),
        /// Time between two looks at every file, in case inotify, which works, has kept something back.
        pub rescan_interval: Interval = Interval::secs(60) => rules::at_least(Interval::ms(10)),
    }
}

settings! {
    /// `[hours]`: the hours that packs are counted in.
    pub struct HourSettings {
        /// Length of an hour. Less than "1h" makes the calendar run faster: for tests.
        pub length: Interval = Interval(HOUR) => rules::between(Interval::ms(100), Interval(HOUR)),
    }
}

settings! {
    /// `[repull]`: shipping again what somebody asks for.
    pub struct RepullSettings {
        /// Most bytes of files that repulls and audits read in a second; 0: no limit.
        pub rate: ByteSize = ByteSize::mib(32),
    }
}

/// The whole file.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TailerConfig {
    /// `[node]`.
    pub node: NodeSettings,
    /// `[[source]]`: files.
    pub source: Vec<SourceSettings>,
    /// `[[input]]`: sockets.
    pub input: Vec<InputSettings>,
    /// `[pack]`.
    pub pack: PackSettings,
    /// `[limits]`.
    pub limits: LimitSettings,
    /// `[spool]`: for sources with `spool = true`.
    pub spool: SpoolSettings,
    /// `[hours]`.
    pub hours: HourSettings,
    /// `[repull]`.
    pub repull: RepullSettings,
    /// `[send]`.
    pub send: SendSettings,
}

impl ProgramConfig for TailerConfig {
    fn tables() -> Vec<(&'static str, &'static [Setting])> {
        vec![
            ("node", NodeSettings::SETTINGS),
            ("[source]", SourceSettings::SETTINGS),
            ("[input]", InputSettings::SETTINGS),
            ("pack", PackSettings::SETTINGS),
            ("limits", LimitSettings::SETTINGS),
            ("spool", SpoolSettings::SETTINGS),
            ("hours", HourSettings::SETTINGS),
            ("repull", RepullSettings::SETTINGS),
            ("send", SendSettings::SETTINGS),
        ]
    }

    fn validate(&self) -> Result<(), String> {
        let is_readable = self.send.protocol != Protocol::V1 || self.pack.codec == Codec::Zlib;
        rules::all([
            self.validate_sources(),
            self.pack.validate(),
            self.validate_lengths(),
            effect::check(self),
            overlap::check(&self.source),
            rules::ensure(is_readable, || {
                let codec = self.pack.codec;
                format!(
                    "pack.codec is \"{codec}\" but send.protocol is \"v1\": legacy nodes read \"zlib\" alone"
                )
            }),
            self.send.validate(),
        ])
    }
}

impl TailerConfig {
    fn validate_sources(&self) -> Result<(), String> {
        if self.source.is_empty() && self.input.is_empty() {
            return Err("there is no [[source]] and no [[input]]: name the files to follow".to_owned());
        }
        input::config::validate(&self.input)?;
        let mut names = BTreeSet::new();
        rules::all(input::config::sources(self)?.iter().map(|source| {
            let name = &source.name;
            let is_new = names.insert(name.clone());
            let is_input = self.input.iter().any(|input| input.name == *name);
            // An encoding that is not known is told by the source's own check.
            let is_wide = encoding_of(source).is_ok_and(|it| it.newline(false) != Newline::Byte);
            rules::all([
                source.validate(),
                rules::ensure(!(is_input && is_wide), || {
                    format!("source.encoding of \"{name}\" is UTF-16, and lines of an [[input]] end with the byte 0A: leave it out")
                }),
                rules::ensure(is_new, || format!("source.name \"{name}\" is used twice: give each source its own")),
            ])
        }))
    }

    /// Text in UTF-8 may be three times as long as in the file, and without a codec it must fit a pack as it is.
    fn validate_lengths(&self) -> Result<(), String> {
        let is_transcoded = |source: &&SourceSettings| source.encoding != "utf-8";
        let Some(source) = self.source.iter().find(is_transcoded).filter(|_| self.pack.codec == Codec::None)
        else {
            return Ok(());
        };
        let most = ByteSize(PACK_RAW_MAX.0 / RAW_PER_SPAN_MAX);
        let lengths = [
            ("pack.max_bytes", self.pack.max_bytes),
            ("pack.max_line", self.pack.max_line),
            ("source.multiline.max_bytes", source.multiline.max_bytes),
        ];
        rules::all(lengths.map(|(key, length)| {
            rules::ensure(length <= most, || {
                let name = &source.name;
                format!("{key} {length} is too large with codec \"none\" and the encoding of source \"{name}\": at most {most}")
            })
        }))
    }
}

impl SourceSettings {
    fn validate(&self) -> Result<(), String> {
        let name = match self.name.as_str() {
            "" => Err("source.name is missing: it names the source's files at the store".to_owned()),
            name => Name::new(name).map(drop).map_err(|error| format!("source.name of \"{name}\": {error}")),
        };
        let path = match self.path.as_str() {
            "" => Err(format!(
                "source.path of \"{}\" is missing: give a path or a glob; only a file for --stdin alone can do without",
                self.name
            )),
            path => SourcePaths::new(path, &self.current).map(drop).map_err(|error| match error {
                PathsError::Path(error) => format!("source.path of \"{}\", {path:?}: {error}", self.name),
                PathsError::Current(error) => {
                    format!("source.current of \"{}\", {:?}: {error}", self.name, self.current)
                }
            }),
        };
        let is_wide = encoding_of(self).is_ok_and(|it| it.newline(false) != Newline::Byte);
        rules::all([
            name,
            path,
            BodyRules::new(self, 1).map(drop),
            rules::ensure(!is_wide || self.line_record.is_empty(), || {
                format!(
                    "source.line_record of \"{}\" counts lines of bytes, and has no use for files of UTF-16",
                    self.name
                )
            }),
        ])
    }
}

impl PackSettings {
    fn validate(&self) -> Result<(), String> {
        let levels = match self.codec {
            Codec::Zlib => 1..=9,
            Codec::Zstd => 1..=19,
            Codec::None => i32::MIN..=i32::MAX,
        };
        let is_address = self.ip.is_empty() || self.ip.parse::<std::net::IpAddr>().is_ok();
        rules::all([
            rules::ensure(levels.contains(&self.level), || {
                let (low, high) = (levels.start(), levels.end());
                format!(
                    "pack.level {} is out of range: codec \"{}\" has {low} to {high}",
                    self.level, self.codec
                )
            }),
            rules::ensure(is_address, || format!("pack.ip \"{}\" is not an address", self.ip)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logferry_node::config;

    fn good() -> TailerConfig {
        let source =
            SourceSettings { name: "access".into(), path: "/var/log/*.log".into(), ..Default::default() };
        let send = SendSettings { to: vec!["127.0.0.1:1302".into()], ..Default::default() };
        TailerConfig { source: vec![source], send, ..Default::default() }
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_each_with_its_line() {
        let text = "[[source]]\nname = \"a\"\npath = \"/a\"\ngrace = \"7s\"\n[[source]]\nname = \"b\"\ninclude = [\"(\"]\n\
            [pack]\nlevel = 77\n[send]\nto = [\"h:1\", \"h:1\"]\n";
        let error = config::parse::<TailerConfig>("t.toml", text).expect_err("five mistakes").to_string();
        for (line, what) in
            [(4, "grace"), (6, "path"), (7, "include"), (9, "level"), (11, "twice"), (10, "single")]
        {
            let is_there = |told: &str| told.starts_with(&format!("t.toml:{line}:")) && told.contains(what);
            assert!(error.lines().any(is_there), "{what} at line {line} is missing in:\n{error}");
        }
    }

    fn refused(change: impl FnOnce(&mut TailerConfig)) -> String {
        let mut config = good();
        change(&mut config);
        config.validate().expect_err("must be refused")
    }

    #[test]
    fn a_file_is_read_and_a_wrong_size_named_with_its_line() {
        let text = |max_bytes: &str| {
            format!(
                "[[source]]\nname = \"a\"\npath = \"/a\"\nstart = \"end\"\n[pack]\nmax_bytes = \"{max_bytes}\"\n\
                 [send]\nto = [\"127.0.0.1:1\"]\n"
            )
        };
        let path = "tailer.toml";
        let config: TailerConfig = config::parse(path, &text("64KiB")).expect("good");
        assert_eq!((config.pack.max_bytes, config.source[0].start), (ByteSize::kib(64), Start::End));
        let error = config::parse::<TailerConfig>(path, &text("1KiB")).expect_err("too small").to_string();
        assert!(error.contains("tailer.toml:6"), "{error}");
    }

    #[test]
    fn a_plain_configuration_is_accepted() {
        assert_eq!(good().validate(), Ok(()));
    }

    #[test]
    fn each_mistake_is_refused_and_names_its_key() {
        assert!(refused(|c| c.source.clear()).contains("[[source]]"));
        assert!(refused(|c| c.source.push(c.source[0].clone())).contains("source.name"));
        assert!(refused(|c| c.source[0].name = "..".into()).contains("source.name"));
        assert!(refused(|c| c.source[0].path = "a***b".into()).contains("source.path"));
        assert!(refused(|c| c.source[0].path = "a.<%Y>".into()).contains("has no day"));
        assert!(refused(|c| c.source[0].include.push("(".into())).contains("source.include"));
        assert!(refused(|c| c.source[0].multiline.start = "(".into()).contains("source.multiline.start"));
        assert!(refused(|c| c.source[0].encoding = "iso-2022-jp".into()).contains("source.encoding"));
        assert!(
            refused(|c| (c.source[0].encoding, c.source[0].line_record) = ("utf-16".into(), "/r".into()))
                .contains("source.line_record")
        );
        assert!(
            refused(|c| {
                c.source[0].encoding = "utf-16".into();
                c.source[0].path.clear();
                let listen = vec!["tcp://127.0.0.1:1".into()];
                c.input.push(InputSettings { name: "access".into(), listen, ..Default::default() });
            })
            .contains("source.encoding")
        );
        assert!(
            refused(|c| {
                (c.pack.codec, c.pack.max_line) = (Codec::None, ByteSize::mib(5));
                c.source[0].encoding = "gbk".into();
            })
            .contains("pack.max_line")
        );
        assert!(refused(|c| c.pack.level = 10).contains("pack.level"));
        assert!(refused(|c| c.pack.ip = "here".into()).contains("pack.ip"));
        assert!(refused(|c| c.send.to.clear()).contains("send.to"));
        assert!(refused(|c| c.send.to.push("b:1".into())).contains("send.mode"));
        let zstd_to_legacy = refused(|c| {
            c.send.protocol = Protocol::V1;
            c.pack.codec = Codec::Zstd;
        });
        assert!(zstd_to_legacy.contains("pack.codec"));
    }
}
