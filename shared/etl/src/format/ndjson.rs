//! One JSON object a line, fields in the order of the columns. No value is `null`; a time is RFC 3339 text in UTC.
//! A column without a name is left out.

use crate::cell::{Typed, time_text};
use crate::columns::Schema;
use std::io::Write as _;

/// Appends a row; `values` are those of the named columns, in order.
pub fn write(schema: &Schema, values: &[Typed], bytes: &mut Vec<u8>) {
    bytes.push(b'{');
    for (index, (column, value)) in schema.named().zip(values).enumerate() {
        if index > 0 {
            bytes.push(b',');
        }
        write_text(&column.name, bytes);
        bytes.push(b':');
        write_value(value, bytes);
    }
    bytes.extend_from_slice(b"}\n");
}

fn write_value(value: &Typed, bytes: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    let _ = match value {
        Typed::Null => write!(bytes, "null"),
        Typed::Int(value) => write!(bytes, "{value}"),
        Typed::Float(value) => serde_json::to_writer(bytes, value).map_err(Into::into),
        Typed::Bool(value) => write!(bytes, "{value}"),
        Typed::Time(micros) => write!(bytes, "\"{}\"", time_text(*micros)),
        Typed::Text(text) => {
            write_text(text, bytes);
            Ok(())
        }
    };
}

fn write_text(text: &str, bytes: &mut Vec<u8>) {
    // As above.
    let _ = serde_json::to_writer(bytes, text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::Columns;
    use proptest::prelude::*;
    use serde_json::json;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]
        #[test]
        fn any_row_is_one_line_that_comes_back(text in "(\\PC|[\\x00-\\x1f\"\\\\]){0,20}", int in any::<i64>(), float in proptest::num::f64::NORMAL, truth in any::<bool>()) {
            let columns = Columns::parse("c", r#"{"a":{"columns":["","te\"xt","int","float","bool","none","time"]}}"#).unwrap();
            let values = [
                Typed::Text(text.clone()), Typed::Int(int), Typed::Float(float), Typed::Bool(truth), Typed::Null, Typed::Time(1_500_000),
            ];
            let mut bytes = Vec::new();
            write(&columns.schemas[0], &values, &mut bytes);
            let line = std::str::from_utf8(&bytes).unwrap().strip_suffix('\n').unwrap();
            prop_assert!(!line.contains('\n'));
            let found: serde_json::Value = serde_json::from_str(line).unwrap();
            // Read as floats, numbers may differ in the last digit.
            let found_float = found["float"].as_f64().unwrap();
            prop_assert!((found_float - float).abs() <= float.abs() * 1e-15);
            let want = json!({"te\"xt": text, "int": int, "float": found["float"], "bool": truth, "none": null, "time": "1970-01-01T00:00:01.5Z"});
            prop_assert_eq!(found, want);
        }
    }
}
