//! `[[input]]`: addresses on which lines come in, and the sources that they are.

use super::folder;
use crate::config::{SourceSettings, Start, TailerConfig};
use logferry_node::config::{ByteSize, Interval, rules};
use logferry_node::settings;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What the writer of a stream is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ack {
    /// Nothing.
    None,
    /// The two bytes `ok` for each line, when it is on the disk.
    Ok,
}

settings! {
    /// `[[input]]`: lines that come over sockets. Its name is that of a source; a `[[source]]` of that name, without a path, may add
    /// `include` and the like.
    pub struct InputSettings {
        /// Name of the source that the lines belong to.
        pub name: String = String::new() => rules::node_name,
        /// Where lines come in: "tcp://HOST:PORT", "udp://HOST:PORT", "unix:///PATH" (stream), "unixgram:///PATH" (datagrams).
        pub listen: Vec<String> = Vec::new() => listens,
        /// What the writers of tcp and unix streams are answered: "none", or "ok" for each line once it is on the disk.
        pub ack: Ack = Ack::None,
        /// With ack = "ok": silence after which bytes without a newline count as a message, until a newline ends one; "0s": never.
        pub message_wait: Interval = Interval::ms(100),
        /// Longest line; a longer one is split, and counted.
        pub max_message: ByteSize = ByteSize::kib(64) => rules::between(ByteSize(16), ByteSize::mib(1)),
        /// Most connections at a time; further ones are closed at once, and counted.
        pub max_connections: u64 = 512 => rules::between(1, 65_536),
        /// Silence after which a connection is closed.
        pub idle_timeout: Interval = Interval::secs(3600) => rules::at_least(Interval::ms(10)),
        /// Cap for the files of what the next tier has not acknowledged yet; then nothing more is read.
        pub max_bytes: ByteSize = ByteSize::gib(1) => rules::at_least(ByteSize::mib(1)),
    }
}

/// An address of an input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listen {
    /// Streams over TCP.
    Tcp(String),
    /// Datagrams over UDP.
    Udp(String),
    /// Streams over a unix socket.
    Unix(PathBuf),
    /// Datagrams over a unix socket.
    UnixDatagram(PathBuf),
}

const LISTEN_WANTED: &str = r#"expected such as "tcp://0.0.0.0:1202", "udp://127.0.0.1:514", "unix:///run/app.sock" or "unixgram:///run/app.sock""#;
/// Longest path of a unix socket, in bytes: `sun_path` with its final zero.
const UNIX_PATH_BYTES_MAX: usize = 107;

impl Listen {
    /// Reads an address as it is configured.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Listen, String> {
        let wrong = || format!("{text:?} is no address of an input, {LISTEN_WANTED}");
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let path = || match rest.starts_with('/') && rest.len() <= UNIX_PATH_BYTES_MAX {
            true => Ok(PathBuf::from(rest)),
            false => Err(format!(
                "{text:?} needs an absolute path of at most {UNIX_PATH_BYTES_MAX} bytes, {LISTEN_WANTED}"
            )),
        };
        let addr = || rules::address(&rest.to_owned()).map(|()| rest.to_owned());
        match scheme {
            "tcp" => addr().map(Listen::Tcp),
            "udp" => addr().map(Listen::Udp),
            "unix" => path().map(Listen::Unix),
            "unixgram" => path().map(Listen::UnixDatagram),
            _ => Err(wrong()),
        }
    }
}

#[expect(clippy::ptr_arg, reason = "a rule takes a reference to the declared type")]
fn listens(values: &Vec<String>) -> Result<(), String> {
    values.iter().try_for_each(|text| Listen::parse(text).map(drop))
}

/// Checks the inputs of a file.
pub(crate) fn validate(inputs: &[InputSettings]) -> Result<(), String> {
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    rules::all(inputs.iter().map(|input| {
        let name = &input.name;
        let twice = input.listen.iter().find(|addr| !addresses.insert(*addr));
        let is_stream = |addr: &String| !addr.contains("udp:") && !addr.contains("gram:");
        let has_streams = input.listen.is_empty() || input.listen.iter().any(is_stream);
        rules::all([
            rules::ensure(!name.is_empty(), || {
                "input.name is missing: it names the source that the lines belong to".to_owned()
            }),
            rules::ensure(names.insert(name), || {
                format!("input.name {name:?} is used twice: list all its addresses under one input.listen")
            }),
            rules::ensure(!input.listen.is_empty(), || format!("input.listen of {name:?} is missing, {LISTEN_WANTED}")),
            twice.map_or(Ok(()), |twice| Err(format!("input.listen of {name:?}: {twice:?} is there twice, leave one out"))),
            rules::ensure(input.ack != Ack::Ok || has_streams, || {
                format!(
                    "input.ack = \"ok\" of {name:?} needs a stream: datagrams cannot be answered; listen on tcp:// or unix://, or leave it out"
                )
            }),
            rules::ensure(input.max_bytes.0 >= 4 * input.max_message.0, || {
                format!("input.max_bytes of {name:?} is less than four times input.max_message: raise it")
            }),
        ])
    }))
}

/// All sources, those of inputs with the files of these as their paths.
pub(crate) fn sources(config: &TailerConfig) -> Result<Vec<SourceSettings>, String> {
    let mut sources = config.source.clone();
    for input in &config.input {
        let known = sources.iter_mut().find(|source| source.name == input.name);
        let source = match known {
            Some(source) if !source.path.is_empty() => {
                return Err(format!(
                    "source.path of {:?} is set, and an [[input]] has the same name: give each its own name, or leave the path out",
                    input.name
                ));
            }
            Some(source) => source,
            None => {
                sources.push(SourceSettings { name: input.name.clone(), ..SourceSettings::default() });
                let Some(source) = sources.last_mut() else { continue };
                source
            }
        };
        let folder = folder(&config.node.var_dir, &input.name);
        // A folder with wildcards in its name would be looked for as a pattern.
        let plain = folder.to_string_lossy().replace(['*', '?', '[', ']', '<', '>'], "?");
        source.path = format!("{plain}/*.lines");
        source.start = Start::Beginning;
        // Its files end when the input says so.
        source.rotate_wait = Interval::ms(0);
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_say_how_lines_come() {
        assert_eq!(Listen::parse("tcp://[::1]:1202"), Ok(Listen::Tcp("[::1]:1202".into())));
        assert_eq!(Listen::parse("unix:///run/a.sock"), Ok(Listen::Unix("/run/a.sock".into())));
        for bad in ["", "0.0.0.0:1202", "tcp://1202", "unix://a.sock", "http://a:1", "tcp://a:99999"] {
            assert!(Listen::parse(bad).is_err(), "{bad}");
        }
        let long = format!("unixgram:///{}", "x".repeat(UNIX_PATH_BYTES_MAX));
        assert!(Listen::parse(&long).expect_err("too long").contains("107"));
    }

    #[test]
    fn each_mistake_names_its_key() {
        let good = || InputSettings {
            name: "lines".into(),
            listen: vec!["tcp://127.0.0.1:1202".into()],
            ..InputSettings::default()
        };
        assert_eq!(validate(&[good()]), Ok(()));
        let refused = |input: InputSettings| validate(&[input]).expect_err("must be refused");
        assert!(refused(InputSettings { name: String::new(), ..good() }).contains("input.name"));
        assert!(refused(InputSettings { listen: Vec::new(), ..good() }).contains("input.listen"));
        let udp = vec!["udp://127.0.0.1:1".to_owned()];
        assert!(refused(InputSettings { listen: udp, ack: Ack::Ok, ..good() }).contains("input.ack"));
        let large = ByteSize::mib(1);
        let both = InputSettings { max_message: large, max_bytes: large, ..good() };
        assert!(refused(both).contains("input.max_bytes"));
        assert!(validate(&[good(), good()]).expect_err("twice").contains("used twice"));
    }

    #[test]
    fn an_input_is_a_source_that_a_section_without_a_path_may_describe() {
        let input = InputSettings { name: "lines".into(), ..InputSettings::default() };
        let mut config = TailerConfig { input: vec![input], ..TailerConfig::default() };
        config.node.var_dir = "/var/[x]".into();
        let found = sources(&config).expect("good");
        assert_eq!(
            (found[0].name.as_str(), found[0].path.as_str()),
            ("lines", "/var/?x?/inputs/lines/*.lines")
        );
        let described = SourceSettings {
            name: "lines".into(),
            exclude: vec!["^DEBUG".into()],
            ..SourceSettings::default()
        };
        config.source = vec![described];
        assert_eq!(sources(&config).expect("good")[0].exclude.len(), 1);
        config.source[0].path = "/a".into();
        assert!(sources(&config).expect_err("two ways").contains("source.path"));
    }
}
