//! Settings that stand where they can have no effect. Whoever wrote one expects something of it, so it is a mistake like any other.

use super::{MultilineSettings, SourceSettings, TailerConfig};
use crate::input::{Ack, InputSettings};
use crate::pattern::PathPattern;
use logferry_node::config::{SpoolSettings, rules};
use logferry_pack::Codec;
use std::path::Path;

/// Refuses settings without an effect, and paths that can lead to no file.
///
/// # Errors
/// The setting, its place, and what to do, one problem a line.
pub(super) fn check(config: &TailerConfig) -> Result<(), String> {
    let sources = config.source.iter().map(|source| {
        let is_input = config.input.iter().any(|input| input.name == source.name);
        let place = if is_input { check_described_input(source) } else { check_files(source) };
        rules::all([place, check_multiline(source)])
    });
    let has_codec = config.pack.codec != Codec::None;
    let is_usual_level = config.pack.level == super::PackSettings::default().level;
    rules::all([
        rules::all(sources),
        rules::all(config.input.iter().map(check_input)),
        rules::ensure(has_codec || is_usual_level, || {
            "pack.level has no effect with codec \"none\": leave it out".to_owned()
        }),
        check_spool(config),
    ])
}

/// A source of files.
fn check_files(source: &SourceSettings) -> Result<(), String> {
    let SourceSettings { name, path, .. } = source;
    // What leads to a folder never leads to a file.
    if path.ends_with('/') || Path::new(path).is_dir() {
        let folder = path.trim_end_matches('/');
        return Err(format!(
            "source.path of \"{name}\", {path:?}, is a folder: name the files in it, such as \"{folder}/*.log\""
        ));
    }
    let has_times = PathPattern::parse(path).is_ok_and(|pattern| pattern.has_times());
    if !has_times && source.grace != SourceSettings::default().grace {
        return Err(format!(
            "source.grace of \"{name}\" has no effect: its path names no times; hours then end by the clock. Leave it out, or write the \
             hour or day into the path, as in \"access.log.<%Y%m%d%H>\""
        ));
    }
    Ok(())
}

/// What a `[[source]]` adds to an input: its files are the tailer's own.
fn check_described_input(source: &SourceSettings) -> Result<(), String> {
    let usual = SourceSettings::default();
    let without_effect = [
        ("start", source.start != usual.start),
        ("current", source.current != usual.current),
        ("roots", source.roots != usual.roots),
        ("catch_up", source.catch_up != usual.catch_up),
        ("line_record", source.line_record != usual.line_record),
        ("grace", source.grace != usual.grace),
        ("rotate_wait", source.rotate_wait != usual.rotate_wait),
        ("hold_deleted", source.hold_deleted != usual.hold_deleted),
    ];
    match without_effect.into_iter().find(|(_, is_set)| *is_set) {
        Some((key, _)) => Err(format!(
            "source.{key} of \"{}\" has no effect: it is an [[input]], whose files the tailer writes and removes itself. Leave it out",
            source.name
        )),
        None => Ok(()),
    }
}

fn check_multiline(source: &SourceSettings) -> Result<(), String> {
    let MultilineSettings { start, continuation, max_bytes, timeout } = &source.multiline;
    let usual = MultilineSettings::default();
    if !start.is_empty() || !continuation.is_empty() {
        return Ok(());
    }
    let without_effect =
        [("timeout", *timeout != usual.timeout), ("max_bytes", *max_bytes != usual.max_bytes)];
    match without_effect.into_iter().find(|(_, is_set)| *is_set) {
        Some((key, _)) => Err(format!(
            "source.multiline.{key} of \"{}\" has no effect without multiline.start or multiline.continuation: say which lines begin an \
             entry, or leave it out",
            source.name
        )),
        None => Ok(()),
    }
}

fn check_input(input: &InputSettings) -> Result<(), String> {
    let InputSettings { name, listen, .. } = input;
    let usual = InputSettings::default();
    if input.ack != Ack::Ok && input.message_wait != usual.message_wait {
        return Err(format!(
            "input.message_wait of \"{name}\" has no effect without ack = \"ok\": leave it out, or answer the writers"
        ));
    }
    let has_streams = listen.iter().any(|addr| addr.starts_with("tcp:") || addr.starts_with("unix:"));
    let without_effect = [
        ("max_connections", input.max_connections != usual.max_connections),
        ("idle_timeout", input.idle_timeout != usual.idle_timeout),
    ];
    match without_effect.into_iter().find(|(_, is_set)| *is_set && !has_streams) {
        Some((key, _)) => Err(format!(
            "input.{key} of \"{name}\" has no effect: datagrams have no connections. Leave it out, or listen on tcp:// or unix://"
        )),
        None => Ok(()),
    }
}

fn check_spool(config: &TailerConfig) -> Result<(), String> {
    let SpoolSettings { max_bytes, segment_bytes } = &config.spool;
    let usual = SpoolSettings::default();
    if config.source.iter().any(|source| source.spool) {
        return Ok(());
    }
    let without_effect = [
        ("max_bytes", *max_bytes != usual.max_bytes),
        ("segment_bytes", *segment_bytes != usual.segment_bytes),
    ];
    match without_effect.into_iter().find(|(_, is_set)| *is_set) {
        Some((key, _)) => Err(format!(
            "spool.{key} has no effect: no [[source]] has spool = true. Give it to those whose files may vanish, or leave [spool] out"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CatchUp, Start};
    use logferry_node::config::{self, ByteSize, Interval, ProgramConfig};

    fn files() -> TailerConfig {
        let source = SourceSettings { name: "app".into(), path: "/log/*.log".into(), ..Default::default() };
        let mut config = TailerConfig { source: vec![source], ..Default::default() };
        config.send.to = vec!["127.0.0.1:1302".into()];
        config
    }

    /// An input, and the section that describes it.
    fn input(listen: &str) -> TailerConfig {
        let mut config = files();
        config.source[0].path.clear();
        config.input =
            vec![InputSettings { name: "app".into(), listen: vec![listen.into()], ..Default::default() }];
        config
    }

    #[track_caller]
    fn refused(mut config: TailerConfig, key: &str, change: impl FnOnce(&mut TailerConfig)) {
        assert_eq!(config.validate(), Ok(()), "good before");
        change(&mut config);
        let error = config.validate().expect_err("must be refused");
        assert!(error.starts_with(key), "{error}");
        assert!(error.contains("eave ") || error.contains("such as"), "it says what to do: {error}");
    }

    #[test]
    fn settings_of_files_that_can_have_no_effect_are_refused() {
        refused(files(), "source.grace", |c| c.source[0].grace = Interval::secs(1));
        refused(files(), "source.multiline.timeout", |c| c.source[0].multiline.timeout = Interval::secs(9));
        refused(files(), "source.multiline.max_bytes", |c| {
            c.source[0].multiline.max_bytes = ByteSize::kib(64);
        });
        refused(files(), "spool.max_bytes", |c| c.spool.max_bytes = ByteSize::mib(64));
        refused(files(), "pack.level", |c| (c.pack.codec, c.pack.level) = (Codec::None, 9));
    }

    #[test]
    fn the_same_settings_are_accepted_where_they_mean_something() {
        let mut config = files();
        let source = &mut config.source[0];
        source.path = "/log/app.<%Y%m%d%H>".into();
        source.grace = Interval::secs(1);
        (source.multiline.start, source.multiline.timeout) = ("^x".into(), Interval::secs(9));
        (source.spool, config.spool.max_bytes) = (true, ByteSize::mib(64));
        assert_eq!(config.validate(), Ok(()));
        let mut config = input("tcp://127.0.0.1:1");
        let input = &mut config.input[0];
        (input.ack, input.message_wait) = (Ack::Ok, Interval::secs(1));
        (input.max_connections, input.idle_timeout) = (3, Interval::secs(9));
        assert_eq!(config.validate(), Ok(()));
    }

    #[test]
    fn a_folder_is_no_path_of_a_source() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_str().expect("plain").to_owned();
        refused(files(), "source.path", |c| c.source[0].path = path);
        refused(files(), "source.path", |c| c.source[0].path = "/not/there/".into());
    }

    #[test]
    fn settings_of_inputs_that_can_have_no_effect_are_refused() {
        let tcp = || input("tcp://127.0.0.1:1");
        refused(tcp(), "source.start", |c| c.source[0].start = Start::End);
        refused(tcp(), "source.roots", |c| c.source[0].roots.push("/log".into()));
        refused(tcp(), "source.catch_up", |c| c.source[0].catch_up = CatchUp::Newest);
        refused(tcp(), "source.line_record", |c| c.source[0].line_record = "/line.rec".into());
        refused(tcp(), "source.grace", |c| c.source[0].grace = Interval::secs(1));
        refused(tcp(), "source.rotate_wait", |c| c.source[0].rotate_wait = Interval::secs(1));
        refused(tcp(), "source.hold_deleted", |c| c.source[0].hold_deleted = Interval::secs(1));
        refused(tcp(), "input.message_wait", |c| c.input[0].message_wait = Interval::secs(1));
        let udp = || input("udp://127.0.0.1:1");
        refused(udp(), "input.max_connections", |c| c.input[0].max_connections = 3);
        refused(udp(), "input.idle_timeout", |c| c.input[0].idle_timeout = Interval::secs(1));
    }

    #[test]
    fn the_error_names_the_line_though_there_are_several_sources() {
        let text = "[[source]]\nname = \"a\"\npath = \"/a\"\n[[source]]\nname = \"b\"\npath = \"/b\"\ngrace = \"1m\"\n\
                    [send]\nto = [\"127.0.0.1:1\"]\n";
        let error = config::parse::<TailerConfig>("tailer.toml", text).expect_err("must be refused");
        assert!(error.to_string().starts_with("tailer.toml:7:1: source.grace of \"b\""), "{error}");
    }
}
