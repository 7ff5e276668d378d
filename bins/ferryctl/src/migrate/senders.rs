//! Roles that send: `tail` and `logd` become a tailer, `collector` a collector.

use super::draft::Draft;
use super::shared::Source;
use std::path::Path;
use toml::Value;

/// Where `tail` keeps how far it has read, unless it is told otherwise.
const LINE_RECORD: &str = "var/line.rec";
/// Where `logd` takes lines.
const LINES_PORT: &str = "1202";

pub(super) fn tailer(mut source: Source<'_>) -> String {
    let mut draft = source.begin("tailer");
    let section = if source.has("tail") { "tail" } else { "logd" };
    if source.has("tail") {
        files(&mut source, &mut draft);
    }
    if source.has("logd") {
        lines(&mut source, &mut draft);
    }
    if let Some(size) = source.take(section, "recv_buffer_size") {
        draft.table("[pack]");
        match size.parse::<i64>() {
            Ok(lines @ 1..) => draft.set_with(
                "max_lines",
                lines,
                "max_lines: recv_buffer_size. Packs also leave when max_bytes are reached, or as soon as nothing is on its way.",
            ),
            _ => draft.remark(&format!("recv_buffer_size = {size:?} is no number of lines.")),
        }
    }
    source.send(&mut draft, section);
    source.finish(draft)
}

fn files(source: &mut Source<'_>, draft: &mut Draft) {
    let log_file = source.take("tail", "log_file").unwrap_or_default();
    draft.table("[[source]]");
    draft.set_with(
        "name",
        source_name(&log_file),
        "name: a folder at the store. Files of ours are named {source}/{host}_{hour}, those of legacy packs {ip}_{hour}.",
    );
    draft.set("path", source.path(&log_file));
    if log_file.contains('<') {
        draft.remark("An hour ends when the next file is there, or grace (10m) after the hour, as before.");
    }
    let record = source.take("tail", "record_file").unwrap_or_else(|| LINE_RECORD.to_owned());
    let why = "line_record: goes on after the lines that the legacy tail has sent, so stop that first. Read at the very first start only.";
    draft.set_with("line_record", source.path(&record), why);
    if let Some(pattern) = source.take("tail", "line_pattern") {
        draft.set_with(
            "include",
            Value::Array(vec![pattern.into()]),
            "include: line_pattern. Lines that do not match are not shipped, as before.",
        );
    }
}

fn lines(source: &mut Source<'_>, draft: &mut Draft) {
    let listen = source.take("logd", "listen").unwrap_or_else(|| LINES_PORT.to_owned());
    draft.table("[[input]]");
    draft.set("name", "lines");
    draft.set("listen", Value::Array(vec![format!("tcp://{}", super::shared::address(&listen)).into()]));
    draft.set_with(
        "ack",
        "ok",
        "ack: \"ok\" is answered when the line is on the disk; the legacy node answered from memory.",
    );
}

/// `access` of `/var/log/nginx/access.log.<%Y%m%d%H>`.
fn source_name(log_file: &str) -> String {
    let plain = log_file.split('<').next().unwrap_or_default();
    let name = Path::new(plain.trim_end_matches(['.', '-', '_'])).file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    let name = name.split('.').find(|part| !part.is_empty()).unwrap_or_default();
    if name.is_empty() { "log".to_owned() } else { name.to_owned() }
}

pub(super) fn collector(mut source: Source<'_>) -> String {
    let mut draft = source.begin("collector");
    source.listen(&mut draft, "collector", "1302");
    source.send(&mut draft, "collector");
    draft.table("[spool]");
    draft.set_with(
        "max_bytes",
        "20GiB",
        "max_bytes: packs wait here, fsynced, while the target is away. What the legacy node has in tempfile/ it has to send itself: \
         let it run until that folder is empty, with nobody sending to it.",
    );
    source.finish(draft)
}

#[cfg(test)]
mod tests {
    use super::source_name;

    #[test]
    fn a_source_is_named_after_its_file() {
        for (file, name) in [
            ("/var/log/nginx/access.log.<%Y%m%d%H>", "access"),
            ("/data/<%Y%m%d%H>/app.log", "data"),
            ("logs/<%Y>", "logs"),
            ("app_<%Y%m%d%H>.log", "app"),
            ("", "log"),
        ] {
            assert_eq!(source_name(file), name, "{file}");
        }
    }
}
