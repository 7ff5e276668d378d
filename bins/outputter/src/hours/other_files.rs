//! The other files of an hour whose lines are spread over several (`{stream}` in `file.path`), where the books know only some of them.

use super::fact::HourKey;
use crate::file::retire::Request;
use crate::file::template::{Fields, Template};
use crossbeam_channel::{Sender, bounded};
use logferry_pack::StreamId;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// Longest wait for the committer, which answers between two groups.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Digits of a stream in a path.
const STREAM_DIGITS: usize = 32;
/// Stands for any stream. No name has these digits, unless somebody wants it to: then other files of its hours are not found.
const ANY: StreamId = StreamId(0x9d3a_61c7_05be_4f28_b7e1_3c94_d06f_825a);
const OTHER: StreamId = StreamId(!ANY.0);

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
    let [any_digits, other_digits] = [ANY, OTHER].map(|stream| stream.to_string());
    // By what the template names with one stream in the place of any.
    let mut named: HashMap<String, Vec<&HourKey>> = HashMap::new();
    // The hash in a name that is shortened may be of the stream, too.
    let mut shortened = Vec::new();
    // Legacy nodes have no streams, and their hours one file.
    for key in keys.iter().filter(|key| !key.is_legacy()) {
        let Some(path) = expanded(template, key, ANY) else { continue };
        let of_other = Some(path.replace(&any_digits, &other_digits));
        match of_other == expanded(template, key, OTHER) {
            true => named.entry(path).or_default().push(key),
            false => shortened.push(key),
        }
    }
    let mut found = FilesByHour::new();
    for (path, headers) in files {
        let mut keys: BTreeSet<&HourKey> = BTreeSet::new();
        for (digits, stream) in streams_in(path) {
            keys.extend(named.get(&path.replace(digits, &any_digits)).into_iter().flatten());
            let is_named = |key: &&&HourKey| expanded(template, key, stream).as_ref() == Some(path);
            keys.extend(shortened.iter().filter(is_named));
        }
        for key in keys {
            found.entry(key.clone()).or_default().push((path.clone(), headers));
        }
    }
    found
}

fn expanded(template: &Template, key: &HourKey, stream: StreamId) -> Option<String> {
    let fields = Fields {
        source: Some(&key.source),
        host: Some(&key.host),
        ip: &key.host,
        hour: key.hour.into(),
        stream: Some(stream),
    };
    template.expand(&fields).ok()
}

/// What a path would be with another stream in the place of what may be its own.
pub fn names_with_any_stream(path: &str) -> impl Iterator<Item = String> {
    let any = ANY.to_string();
    streams_in(path).map(move |(digits, _)| path.replace(digits, &any))
}

/// What may be the stream in a path.
fn streams_in(path: &str) -> impl Iterator<Item = (&str, StreamId)> {
    let runs = path.as_bytes().windows(STREAM_DIGITS);
    let runs = runs.filter(|run| run.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    runs.filter_map(|run| {
        std::str::from_utf8(run).ok().and_then(|digits| Some((digits, digits.parse().ok()?)))
    })
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
    fn names_that_are_shortened_and_hours_that_share_files_are_found() {
        let key = |host: &str, hour: u32| HourKey {
            source: "access".into(),
            host: host.into(),
            hour: hour.try_into().unwrap(),
        };
        let found = |template: &str, keys: &[HourKey], stream: StreamId| {
            let template = Template::parse(template).unwrap();
            let of = |key: &HourKey| {
                let (source, host) = (Some(key.source.as_str()), Some(key.host.as_str()));
                let fields = Fields { source, host, ip: "", hour: key.hour.into(), stream: Some(stream) };
                template.expand(&fields).unwrap()
            };
            let files: BTreeSet<String> = keys.iter().map(of).collect();
            let found = find(&template, files.iter().map(|path| (path, 7)), &keys.iter().cloned().collect());
            keys.iter().filter(|key| found.get(*key) == Some(&vec![(of(key), 7)])).count()
        };
        let (short, long) = (key("web-1", 2026112013), key(&"h".repeat(230), 2026112013));
        let stream = StreamId(0xdead_beef);
        assert_eq!(found("{source}/{stream}/{host}_{hour}", &[long.clone(), short.clone()], stream), 2);
        assert_eq!(found("{source}/{stream}_{host}/{hour}", &[long, short.clone()], stream), 2);
        assert_eq!(found("{stream}_{source}/{stream}.log", &[key("web-1", 2026112014), short], stream), 2);
    }

    #[test]
    fn files_of_thousands_of_hours_are_told_apart() {
        const HOURS: u128 = 3_000;
        let template = Template::parse("{source}/{host}_{hour}_{stream}").unwrap();
        let host = |number: u128| format!("web-{number}");
        let files: Vec<String> = (0..HOURS)
            .map(|number| format!("access/{}_2026112013_{}", host(number), StreamId(number << 64)))
            .collect();
        let key = |number: u128| HourKey {
            source: "access".into(),
            host: host(number),
            hour: 2026112013.try_into().unwrap(),
        };
        let keys: BTreeSet<HourKey> = (0..HOURS).map(key).collect();
        let found = find(&template, files.iter().map(|path| (path, 7)), &keys);
        assert!(found.len() == keys.len() && found.values().all(|files| files.len() == 1));
    }

    #[test]
    fn nobody_asks_where_an_hour_has_one_file() {
        let (requests, _) = bounded(1);
        assert!(asking(Template::parse("{source}/{host}_{hour}").unwrap(), requests).is_none());
    }
}
