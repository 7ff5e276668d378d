//! The other files of an hour whose lines are spread over several (`{stream}` in `file.path`), where the books know only some of them.

use super::fact::HourKey;
use crate::file::retire::Request;
use crate::file::template::{Fields, Template};
use crossbeam_channel::{Sender, bounded};
use logferry_pack::StreamId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Longest wait for the committer, which answers between two groups.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Digits of a stream in a path.
const STREAM_DIGITS: usize = 32;

/// Files by the hours that they may have a part of, with the committed lengths of their header files.
pub type FilesByHour = BTreeMap<HourKey, Vec<(String, u64)>>;

/// Tells which files may have a part of these hours; `None`: nobody knows now.
pub type FilesOf = Box<dyn Fn(&BTreeSet<HourKey>) -> Option<FilesByHour> + Send>;

/// Asks the committer, if the template spreads hours over several files.
pub fn asking(template: Template, requests: Sender<Request>) -> Option<FilesOf> {
    template.spreads_hours().then(|| -> FilesOf {
        Box::new(move |keys: &BTreeSet<HourKey>| {
            let (answer, answered) = bounded(1);
            requests.send(Request::Files(answer)).ok()?;
            let files = answered.recv_timeout(ANSWER_MAX).ok()?;
            Some(find(&template, files.iter().map(|(path, lengths)| (path, lengths.headers)), keys))
        })
    })
}

/// Those of `files` that the template may put lines of these hours into.
pub fn find<'a>(
    template: &Template,
    files: impl Iterator<Item = (&'a String, u64)>,
    keys: &BTreeSet<HourKey>,
) -> FilesByHour {
    let mut found = FilesByHour::new();
    for (path, headers) in files {
        for stream in streams_in(path) {
            for key in keys.iter().filter(|key| is_path_of(template, key, stream, path)) {
                found.entry(key.clone()).or_default().push((path.clone(), headers));
            }
        }
    }
    found
}

fn is_path_of(template: &Template, key: &HourKey, stream: StreamId, path: &str) -> bool {
    // Legacy nodes have no streams, and their hours one file.
    let fields = Fields {
        source: Some(&key.source),
        host: Some(&key.host),
        ip: &key.host,
        hour: key.hour.into(),
        stream: Some(stream),
    };
    !key.is_legacy() && template.expand(&fields).is_ok_and(|expanded| expanded == path)
}

/// What may be the stream in a path.
fn streams_in(path: &str) -> impl Iterator<Item = StreamId> {
    let runs = path.as_bytes().windows(STREAM_DIGITS);
    let runs = runs.filter(|run| run.iter().all(u8::is_ascii_hexdigit));
    runs.filter_map(|run| std::str::from_utf8(run).ok()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_an_hour_are_those_that_the_template_names_with_any_stream() {
        let key = |host: &str, hour: u32| HourKey {
            source: "access".into(),
            host: host.into(),
            hour: hour.try_into().unwrap(),
        };
        let (one, other) = (StreamId(0xab), StreamId(u128::MAX));
        for (template, suffix) in
            [("{source}/{host}_{hour}_{stream}", ""), ("{source}/{host}_{hour}/{stream}.log", ".log")]
        {
            let template = Template::parse(template).unwrap();
            let slash = if suffix.is_empty() { '_' } else { '/' };
            let path = |host: &str, hour: u32, stream: StreamId| {
                format!("access/{host}_{hour}{slash}{stream}{suffix}")
            };
            let of_hour = [path("web-1", 2026112013, one), path("web-1", 2026112013, other)];
            let others = [
                path("web-2", 2026112013, one),
                path("web-1", 2026112014, one),
                "access/web-1_2026112013".into(),
            ];
            let files: Vec<String> = of_hour.iter().chain(&others).cloned().collect();
            let wanted = BTreeSet::from([key("web-1", 2026112013), key("web-9", 2026112013)]);
            let found = find(&template, files.iter().map(|path| (path, 7)), &wanted);
            let expected = of_hour.map(|path| (path, 7)).to_vec();
            assert_eq!(found, FilesByHour::from([(key("web-1", 2026112013), expected)]));
        }
    }

    #[test]
    fn nobody_asks_where_an_hour_has_one_file() {
        let (requests, _) = bounded(1);
        assert!(asking(Template::parse("{source}/{host}_{hour}").unwrap(), requests).is_none());
    }
}
