//! Sources that lead to the same file. The first one that names it ships it, so another that names it too may have nothing to do; and where
//! one names the file that is written and another what that is renamed to, its lines would be shared between them by chance.

use super::SourceSettings;
use crate::files::is_glob;
use crate::pattern::SourcePaths;
use logferry_node::config::rules;
use std::path::Path;

/// Refuses sources that would take each other's files, as far as their paths tell.
///
/// # Errors
/// Both sources of each such pair, and what to write instead, one a line.
pub(super) fn check(sources: &[SourceSettings]) -> Result<(), String> {
    let later = sources.iter().enumerate();
    let pairs = later.flat_map(|(index, later)| sources[..index].iter().map(move |earlier| (earlier, later)));
    rules::all(pairs.map(|(earlier, later)| {
        rules::all([
            check_order(earlier, later),
            check_renames(earlier, later),
            check_renames(later, earlier),
        ])
    }))
}

/// A later source whose only file is an earlier one's.
fn check_order(earlier: &SourceSettings, later: &SourceSettings) -> Result<(), String> {
    let Ok(paths) = SourcePaths::new(&earlier.path, &earlier.current) else { return Ok(()) };
    let is_taken =
        earlier.path == later.path || is_plain(&later.path) && paths.covers(Path::new(&later.path));
    if !is_taken {
        return Ok(());
    }
    Err(format!(
        "source.path of \"{}\", {:?}, never gets a file: source \"{}\" before it takes it by {:?}, and a file is of the first source that \
         leads to it. Put \"{}\" before \"{}\", or leave one of them out",
        later.name, later.path, earlier.name, earlier.path, later.name, earlier.name
    ))
}

/// A source of the file that is written, and one of what it is renamed to.
fn check_renames(written: &SourceSettings, renamed: &SourceSettings) -> Result<(), String> {
    if !is_plain(&written.path) {
        return Ok(());
    }
    let path = Path::new(&written.path);
    let takes_current =
        SourcePaths::new(&renamed.path, &renamed.current).is_ok_and(|paths| paths.is_current(path));
    if takes_current {
        return Err(format!(
            "source.path of \"{}\", {:?}, is what \"{}\" has as current: its files would be shared by chance. Leave \"{}\" out",
            written.name, written.path, renamed.name, written.name
        ));
    }
    let stem = path.with_extension("");
    let begins = [path, stem.as_path()];
    let is_renamed =
        begins.iter().filter_map(|begin| renamed.path.strip_prefix(begin.to_str()?)).any(|rest| {
            let time = rest.trim_start_matches(['.', '-', '_']);
            time.len() < rest.len() && time.starts_with("<%")
        });
    if !is_renamed {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Err(format!(
        "source.path of \"{}\", {:?}, names what the file of \"{}\" is renamed to: its lines would be shared by chance. Make them one source: \
         leave \"{}\" out, and give \"{}\" current = \"{name}\"",
        renamed.name, renamed.path, written.name, written.name, renamed.name
    ))
}

fn is_plain(path: &str) -> bool {
    !path.is_empty() && !is_glob(path) && !path.contains("<%")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, path: &str, current: &str) -> SourceSettings {
        SourceSettings { name: name.into(), path: path.into(), current: current.into(), ..Default::default() }
    }

    #[track_caller]
    fn refused(one: SourceSettings, other: SourceSettings, advice: &str) {
        let error = check(&[one, other]).expect_err("must be refused");
        assert!(error.starts_with("source.path of ") && error.contains(advice), "{error}");
        assert!(error.contains("\"one\"") && error.contains("\"other\""), "both are named: {error}");
    }

    #[test]
    fn the_file_that_is_written_and_what_it_is_renamed_to_are_one_source() {
        for (written, renamed) in [
            ("/log/server.log", "/log/server.log.<%Y-%m-%d-%H>"),
            ("/log/app.log", "/log/app-<%Y%m%d>.log"),
            ("/log/app.log", "/log/app.log-<%Y%m%d>"),
        ] {
            let advice = "current = \"";
            refused(source("one", written, ""), source("other", renamed, ""), advice);
            refused(source("one", renamed, ""), source("other", written, ""), advice);
        }
        let whole = || source("one", "/log/server.log.<%Y-%m-%d-%H>", "server.log");
        assert_eq!(check(&[whole()]), Ok(()));
        refused(whole(), source("other", "/log/server.log", ""), "Put");
        refused(source("other", "/log/server.log", ""), whole(), "Leave");
    }

    #[test]
    fn a_source_that_can_get_no_file_is_refused_and_one_that_goes_first_is_not() {
        refused(source("one", "/log/*.log", ""), source("other", "/log/error.log", ""), "Put");
        refused(source("one", "/log/*.log", ""), source("other", "/log/*.log", ""), "leave one");
        assert_eq!(check(&[source("one", "/log/error.log", ""), source("other", "/log/*.log", "")]), Ok(()));
    }

    #[test]
    fn logs_of_other_names_are_left_alone() {
        for other in [
            "/log/app.log.<%Y%m%d>",
            "/log/server.logs.<%Y%m%d>",
            "/var/server.log.<%Y%m%d>",
            "/log/server-access.<%Y%m%d>",
        ] {
            assert_eq!(
                check(&[source("one", "/log/server.log", ""), source("other", other, "")]),
                Ok(()),
                "{other}"
            );
        }
    }
}
