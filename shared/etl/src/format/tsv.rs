//! Tab-separated values, as PostgreSQL's `COPY … FROM` (text format), ClickHouse's `TSV` and MySQL's `LOAD DATA` read them.
//!
//! | in a value | written as |
//! |---|---|
//! | tab, newline, carriage return, backslash | `\t` `\n` `\r` `\\` |
//! | no value | `\N` |
//! | true, false | `true`, `false` |
//! | a time | RFC 3339 in UTC: `2026-11-21T13:05:00Z` |
//!
//! A row ends with a newline. A column without a name is empty. There is no header line.

use crate::cell::{Typed, time_text};
use crate::columns::Schema;
use std::io::Write as _;

/// Appends a row; `values` are those of the named columns, in order.
pub fn write(schema: &Schema, values: &[Typed], bytes: &mut Vec<u8>) {
    let mut values = values.iter();
    for (index, column) in schema.columns.iter().enumerate() {
        if index > 0 {
            bytes.push(b'\t');
        }
        if !column.name.is_empty() {
            write_value(values.next().unwrap_or(&Typed::Null), bytes);
        }
    }
    bytes.push(b'\n');
}

fn write_value(value: &Typed, bytes: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    let _ = match value {
        Typed::Null => write!(bytes, "\\N"),
        Typed::Int(value) => write!(bytes, "{value}"),
        Typed::Float(value) => write!(bytes, "{value}"),
        Typed::Bool(value) => write!(bytes, "{value}"),
        Typed::Time(micros) => write!(bytes, "{}", time_text(*micros)),
        Typed::Text(text) => {
            write_text(text, bytes);
            Ok(())
        }
    };
}

fn write_text(text: &str, bytes: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | b'\\')) {
        bytes.extend_from_slice(&rest[..at]);
        bytes.extend_from_slice(match rest[at] {
            b'\t' => b"\\t",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            _ => b"\\\\",
        });
        rest = &rest[at + 1..];
    }
    bytes.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::Columns;
    use proptest::prelude::*;

    /// As PostgreSQL's manual describes the text format; `None` is null.
    fn read_back(row: &str) -> Vec<Option<String>> {
        let unescape = |text: &str| {
            let mut letters = text.chars();
            let mut plain = String::new();
            while let Some(letter) = letters.next() {
                plain.push(match letter {
                    '\\' => match letters.next().unwrap() {
                        't' => '\t',
                        'n' => '\n',
                        'r' => '\r',
                        other => other,
                    },
                    other => other,
                });
            }
            plain
        };
        row.split('\t').map(|text| (text != "\\N").then(|| unescape(text))).collect()
    }

    fn row(schema: &str, values: &[Typed]) -> String {
        let columns = Columns::parse("c", schema).unwrap();
        let mut bytes = Vec::new();
        write(&columns.schemas[0], values, &mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn columns_without_a_name_keep_their_place() {
        let values = [Typed::Int(-1), Typed::Null, Typed::Bool(true), Typed::Float(0.5), Typed::Time(0)];
        let text = row(r#"{"a":{"columns":["","i","","n","b","f","t",""]}}"#, &values);
        assert_eq!(text, "\t-1\t\t\\N\ttrue\t0.5\t1970-01-01T00:00:00Z\t\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]
        #[test]
        fn any_text_is_one_field_of_one_line_and_comes_back(texts in prop::collection::vec(prop::option::of("([\\t\\n\\r\\\\N]|\\PC){0,12}"), 3)) {
            let values: Vec<Typed> =
                texts.iter().map(|text| text.clone().map_or(Typed::Null, Typed::Text)).collect();
            let line = row(r#"{"a":{"columns":["x","y","z"]}}"#, &values);
            let line = line.strip_suffix('\n').unwrap();
            prop_assert!(!line.contains(['\n', '\r']));
            prop_assert_eq!(read_back(line), texts);
        }
    }
}
