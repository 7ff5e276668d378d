//! Folders of partitions, as Hive names them: `event_day=20261121/host=web-1`.

use crate::cell::{Cell, Record};
use std::fmt::Write as _;

/// Stands for a value that is missing or empty, as in Hive.
pub const MISSING: &str = "__HIVE_DEFAULT_PARTITION__";
/// Longest name of a folder, in bytes: what Linux file systems take.
const FOLDER_BYTES_MAX: usize = 255;

/// Folder of `record` below the folder of all tables; empty without partitions.
///
/// # Errors
/// The reason for which there is no such folder.
pub fn folder(partitions: &[String], record: &Record) -> Result<String, String> {
    let mut path = String::new();
    for name in partitions {
        if !path.is_empty() {
            path.push('/');
        }
        let begin = path.len();
        escape(name, &mut path);
        path.push('=');
        match record.get(name).and_then(Cell::text) {
            Some(text) if !text.is_empty() => escape(&text, &mut path),
            _ => path.push_str(MISSING),
        }
        if path.len() - begin > FOLDER_BYTES_MAX {
            return Err(format!("the value of the partition {name:?} is too long for the name of a folder"));
        }
    }
    Ok(path)
}

/// `%` and two hexadecimal digits for what Hive escapes, for what cannot stand in a path, and for what hides on a terminal.
fn escape(text: &str, path: &mut String) {
    for letter in text.chars() {
        if letter.is_control() || "\"#%'*/:=?\\{[]^}~".contains(letter) {
            let mut bytes = [0; 4];
            for byte in letter.encode_utf8(&mut bytes).bytes() {
                // Writing to a string cannot fail.
                let _ = write!(path, "%{byte:02X}");
            }
        } else {
            path.push(letter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn folder_of(value: Cell) -> Result<String, String> {
        folder(&["day".to_owned()], &[("day".to_owned(), value)].into())
    }

    /// What readers of Hive folders do.
    fn unescaped(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'%' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            });
        }
        bytes
    }

    #[test]
    fn partitions_nest_in_order_and_missing_values_have_a_name() {
        let record =
            [("day".to_owned(), Cell::Int(20_261_121)), ("host".to_owned(), Cell::Text("a/b".into()))];
        let partitions = ["day", "host", "type"].map(String::from);
        assert_eq!(
            folder(&partitions, &record.into()).unwrap(),
            "day=20261121/host=a%2Fb/type=__HIVE_DEFAULT_PARTITION__"
        );
        assert_eq!(folder(&[], &Record::new()).unwrap(), "");
        assert_eq!(folder_of(Cell::Text(String::new())).unwrap(), format!("day={MISSING}"));
    }

    #[test]
    fn a_value_too_long_for_a_folder_is_refused() {
        assert!(folder_of(Cell::Text("x".repeat(251))).is_ok());
        assert!(folder_of(Cell::Text("x".repeat(252))).unwrap_err().contains("\"day\""));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn every_value_is_one_folder_and_can_be_read_back(value in "(\\PC|[\\x00-\\x1f/.%=~]){1,20}") {
            let path = folder_of(Cell::Text(value.clone())).unwrap();
            let (name, escaped) = path.split_once('=').unwrap();
            prop_assert_eq!(name, "day");
            prop_assert!(!escaped.contains(['/', '=', '\0', '\n']));
            prop_assert_eq!(unescaped(escaped), value.as_bytes());
        }
    }
}
