//! The name of an hour of a source of a host, and the names of what belongs to it.

use logferry_pack::{BadPack, Hour, Name};
use serde::{Deserialize, Serialize};
use std::fmt;
use xxhash_rust::xxh3::xxh3_128;

/// Names an hour of a source of a host, or any other file whose lines become tables together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HourKey {
    /// Source; empty for packs of legacy nodes and for files that belong to none.
    pub source: String,
    /// Host, or the name of the file.
    pub host: String,
    /// The hour, if it is one.
    pub hour: Option<Hour>,
}

/// Longest part of a file name that a source or a host may take, in bytes; longer ones are named by their hash.
const PART_BYTES_MAX: usize = 80;

impl HourKey {
    /// Checks that the names can be parts of paths.
    ///
    /// # Errors
    /// What is wrong with a name.
    pub fn new(source: &str, host: &str, hour: Option<Hour>) -> Result<HourKey, BadPack> {
        if !source.is_empty() {
            Name::new(source)?;
        }
        Name::new(host)?;
        Ok(HourKey { source: source.to_owned(), host: host.to_owned(), hour })
    }

    /// `{host}_{hour}`.
    fn host_and_hour(&self) -> String {
        match self.hour {
            Some(hour) => format!("{}_{hour}", self.host),
            None => self.host.clone(),
        }
    }

    /// Path of a mark: `{source}/{host}_{hour}`; without a source `{host}_{hour}`.
    pub fn path(&self) -> String {
        match self.source.as_str() {
            "" => self.host_and_hour(),
            source => format!("{source}/{}", self.host_and_hour()),
        }
    }

    /// Names everything of this hour that lies aside: 32 hexadecimal digits.
    pub fn id(&self) -> String {
        format!("{:032x}", xxh3_128(format!("{}\0{}", self.source, self.host_and_hour()).as_bytes()))
    }

    /// What names of its table files begin with; those of an hour of another source may, too.
    pub fn part_prefix(&self) -> String {
        format!("part-{}", part(&self.host_and_hour()))
    }

    /// Name of a table file without its extension: `part-{host}_{hour}~{source}~{kind}~{number}`. No other hour has it,
    /// because `~` is escaped in names.
    pub fn part_name(&self, kind: &str, number: u32) -> String {
        let mut name = self.part_prefix();
        for text in [self.source.as_str(), kind].into_iter().filter(|text| !text.is_empty()) {
            name.push('~');
            name.push_str(&part(text));
        }
        format!("{name}~{number}")
    }
}

fn part(text: &str) -> String {
    let safe = text.replace('%', "%25").replace('~', "%7E").replace('/', "%2F");
    if safe.len() <= PART_BYTES_MAX { safe } else { format!("%{:032x}", xxh3_128(text.as_bytes())) }
}

impl fmt::Display for HourKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn key(source: &str, host: &str) -> HourKey {
        HourKey::new(source, host, Some("2026112013".parse().unwrap())).unwrap()
    }

    #[test]
    fn marks_are_named_as_log_files_are() {
        assert_eq!(key("access", "web-1").path(), "access/web-1_2026112013");
        assert_eq!(key("", "10.0.0.7").path(), "10.0.0.7_2026112013");
        assert_eq!(HourKey::new("", "access.log", None).unwrap().path(), "access.log");
    }

    #[test]
    fn table_files_of_different_hours_have_different_names() {
        let keys = [key("a~b", "c"), key("a", "b~c"), key("a", "b"), key("", "a"), key("a%7Eb", "c")];
        let names: HashSet<String> = keys
            .iter()
            .flat_map(|key| {
                [key.part_name("access", 0), key.part_name("click", 0), key.part_name("access", 1)]
            })
            .collect();
        assert_eq!(names.len(), 3 * keys.len());
        assert_eq!(key("access", "web-1").part_name("click", 2), "part-web-1_2026112013~access~click~2");
        assert!(key(&"s".repeat(255), &"h".repeat(240)).part_name(&"k".repeat(300), 0).len() < 200);
    }

    #[test]
    fn names_that_would_leave_the_folder_are_refused() {
        for bad in ["..", "a/b", "\0", "."] {
            assert!(HourKey::new("access", bad, None).is_err());
            assert!(HourKey::new(bad, "web-1", None).is_err());
        }
        assert!(HourKey::new("access", "", None).is_err());
    }
}
