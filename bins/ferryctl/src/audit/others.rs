//! Of which sources a store has something, whether a tailer knows them or not.

use anyhow::Context;
use logferry_outputter::file::template::{Fields, Template};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

/// What names of files begin with that are about to replace others.
const REPLACING: &str = ".replac";

/// Stands for the name of a source, and for an address.
const SOMETHING: &str = "<something>";

/// A path while it is looked for, and the source in it.
type Found = (String, Option<String>);

/// Sources that have a log file or a header file of this host and hour, by the path of the log file below `log_data`. None where paths do not
/// tell sources, hosts and hours apart, or tell more than that.
pub(super) fn stored(
    store: &Path,
    template: &Template,
    fields: &Fields<'_>,
) -> anyhow::Result<BTreeMap<String, String>> {
    let expand = |source, ip| template.expand(&Fields { source: Some(source), ip, ..fields.clone() });
    if !template.keeps_hours_apart() || expand("source", SOMETHING)?.contains(SOMETHING) {
        return Ok(BTreeMap::new());
    }
    let path = expand(SOMETHING, "")?;
    let parts: Vec<&str> = path.split('/').collect();
    let form = super::store::form(store)?;
    let mut sources = BTreeMap::new();
    for (folder, suffix) in [("headers", ""), ("log_data", form.suffix())] {
        let root = store.join(folder);
        let mut found: Vec<Found> = vec![(String::new(), None)];
        for (index, part) in parts.iter().enumerate() {
            let ending = if index + 1 == parts.len() { suffix } else { "" };
            let mut below = Vec::new();
            for (path, source) in found {
                below.extend(step(&root, &path, source, part, ending)?);
            }
            found = below;
        }
        let is_there = |path: &str| root.join(format!("{path}{suffix}")).is_file();
        let named = found.into_iter().filter_map(|(path, source)| Some((path, source?)));
        sources.extend(named.filter(|(path, _)| is_there(path)));
    }
    Ok(sources)
}

/// Where a path can go on.
fn step(
    root: &Path,
    path: &str,
    source: Option<String>,
    part: &str,
    ending: &str,
) -> anyhow::Result<Vec<Found>> {
    let join = |name: &str| match path {
        "" => name.to_owned(),
        path => format!("{path}/{name}"),
    };
    let Some((before, after)) = part.split_once(SOMETHING) else { return Ok(vec![(join(part), source)]) };
    if let Some(name) = &source {
        return Ok(vec![(join(&format!("{before}{name}{after}")), source)]);
    }
    let folder = root.join(path);
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries.with_context(|| folder.display().to_string())?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.with_context(|| folder.display().to_string())?.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_suffix(ending)) else { continue };
        let source = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        if let Some(source) = source.filter(|source| !source.is_empty() && !name.starts_with(REPLACING)) {
            found.push((join(name), Some(source.to_owned())));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored_in(files: &[&str], path: &str) -> Vec<(String, String)> {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let file = dir.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "zstd\n").unwrap();
        }
        let fields = Fields { source: None, host: Some("web-1"), ip: "", hour: 2026112013, stream: None };
        stored(dir.path(), &Template::parse(path).unwrap(), &fields).unwrap().into_iter().collect()
    }

    fn pair(path: &str, source: &str) -> (String, String) {
        (path.to_owned(), source.to_owned())
    }

    #[test]
    fn each_source_with_a_file_of_the_host_and_hour_is_found_once_and_no_other() {
        let files = [
            "log_data/a/web-1_2026112013",
            "headers/a/web-1_2026112013",
            "headers/finished/web-1_2026112013",
            "log_data/b/web-1_2026112014",
            "log_data/c/web-2_2026112013",
            "log_data/file",
        ];
        let expected = [pair("a/web-1_2026112013", "a"), pair("finished/web-1_2026112013", "finished")];
        assert_eq!(stored_in(&files, "{source}/{host}_{hour}"), expected);
        for apart in ["{host}_{hour}", "{source}/{ip}/{host}_{hour}", "{source}/{host}_{hour}_{stream}"] {
            assert_eq!(stored_in(&files, apart), []);
        }
        assert_eq!(stored_in(&[], "{source}/{host}_{hour}"), []);
    }

    #[test]
    fn a_source_within_the_name_of_a_file_is_found_in_archives_too_and_one_being_replaced_is_none() {
        let files = [
            "log_data.form",
            "log_data/web-1/job_2026112013.zst",
            "log_data/web-1/.replacing-1-job_2026112013.zst",
            "log_data/web-1/late_2026112013.zst.tmp",
            "log_data/web-1/_2026112013.zst",
        ];
        let expected = [pair("web-1/job_2026112013", "job")];
        assert_eq!(stored_in(&files, "{host}/{source}_{hour}"), expected);
    }
}
