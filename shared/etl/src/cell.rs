//! Values that programs give, and what they become in a column of a type.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What a program made of a line: its fields by name.
pub type Record = BTreeMap<String, Cell>;

/// A value of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Nothing; so is a field that is not there.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number; never NaN.
    Float(f64),
    /// Text.
    Text(String),
    /// Microseconds since 1970, UTC.
    Time(i64),
    /// A list or an object, as JSON.
    Json(serde_json::Value),
}

impl Cell {
    /// As text, as it is written into text columns and partitions; `None` for null.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Cell::Null => return None,
            Cell::Bool(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
            Cell::Int(value) => Cow::Owned(value.to_string()),
            Cell::Float(value) => Cow::Owned(value.to_string()),
            Cell::Text(text) => Cow::Borrowed(text),
            Cell::Time(micros) => Cow::Owned(time_text(*micros)),
            Cell::Json(value) => Cow::Owned(value.to_string()),
        })
    }

    /// As JSON; times as text.
    pub fn json(&self) -> serde_json::Value {
        match self {
            Cell::Null => serde_json::Value::Null,
            Cell::Bool(value) => (*value).into(),
            Cell::Int(value) => (*value).into(),
            Cell::Float(value) => (*value).into(),
            Cell::Text(text) => text.as_str().into(),
            Cell::Time(micros) => time_text(*micros).into(),
            Cell::Json(value) => value.clone(),
        }
    }
}

/// RFC 3339 in UTC, with as many decimals as it needs.
pub(crate) fn time_text(micros: i64) -> String {
    match jiff::Timestamp::from_microsecond(micros) {
        Ok(time) => time.to_string(),
        // Beyond the year 9999.
        Err(_) => micros.to_string(),
    }
}

/// Type of a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// UTF-8 text. Takes everything; lists and objects as JSON.
    #[default]
    Text,
    /// 64 bits, signed. Takes whole numbers and text that is one.
    Int,
    /// 64 bits, floating point. Takes numbers and text that is one.
    Float,
    /// Takes booleans, 0 and 1, and text that is one of these.
    Bool,
    /// Microseconds, UTC. Takes times, whole numbers as seconds since 1970, and RFC 3339 text.
    Time,
}

/// A value of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Typed {
    /// None.
    Null,
    /// Of a text column.
    Text(String),
    /// Of an int column.
    Int(i64),
    /// Of a float column.
    Float(f64),
    /// Of a bool column.
    Bool(bool),
    /// Of a time column: microseconds since 1970, UTC.
    Time(i64),
}

/// A value that its column does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} is not {wanted}")]
pub struct WrongType {
    /// The value, shortened.
    pub found: String,
    /// What the column takes.
    pub wanted: &'static str,
}

/// Longest value that is shown in a reason, in characters.
const SHOWN_CHARS_MAX: usize = 64;

impl ColumnType {
    /// For messages.
    fn wanted(self) -> &'static str {
        match self {
            ColumnType::Text => "text",
            ColumnType::Int => "a whole number of 64 bits",
            ColumnType::Float => "a number",
            ColumnType::Bool => "true or false",
            ColumnType::Time => "a time",
        }
    }

    /// `cell` as a value of this type. Text that is empty or `-`, as logs write what is missing, is null in all columns but those of text.
    ///
    /// # Errors
    /// What the column takes instead.
    pub fn typed(self, cell: Cell) -> Result<Typed, WrongType> {
        match (self, cell) {
            (_, Cell::Null) => Ok(Typed::Null),
            (ColumnType::Text, Cell::Text(text)) => Ok(Typed::Text(text)),
            (ColumnType::Text, cell) => {
                Ok(cell.text().map_or(Typed::Null, |text| Typed::Text(text.into_owned())))
            }
            (_, Cell::Text(text)) if matches!(text.as_str(), "" | "-") => Ok(Typed::Null),
            (_, cell) => self.parsed(&cell),
        }
    }

    fn parsed(self, cell: &Cell) -> Result<Typed, WrongType> {
        let typed = match self {
            ColumnType::Int => int(cell).map(Typed::Int),
            ColumnType::Float => float(cell).map(Typed::Float),
            ColumnType::Bool => boolean(cell).map(Typed::Bool),
            ColumnType::Time => time(cell).map(Typed::Time),
            ColumnType::Text => None,
        };
        typed.ok_or_else(|| WrongType { found: shown(cell), wanted: self.wanted() })
    }
}

fn shown(cell: &Cell) -> String {
    let text = cell.json().to_string();
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn int(cell: &Cell) -> Option<i64> {
    match cell {
        Cell::Int(value) => Some(*value),
        // Above 2^53 a float is no longer one whole number.
        Cell::Float(value) if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 => {
            Some(*value as i64)
        }
        Cell::Text(text) => text.parse().ok(),
        _ => None,
    }
}

fn float(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Int(value) => Some(*value as f64),
        Cell::Float(value) => Some(*value),
        Cell::Text(text) => text.parse().ok().filter(|value: &f64| value.is_finite()),
        _ => None,
    }
}

fn boolean(cell: &Cell) -> Option<bool> {
    match cell {
        Cell::Bool(value) => Some(*value),
        Cell::Int(0) => Some(false),
        Cell::Int(1) => Some(true),
        Cell::Text(text) => match text.as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn time(cell: &Cell) -> Option<i64> {
    match cell {
        Cell::Time(micros) => Some(*micros),
        Cell::Int(seconds) => {
            jiff::Timestamp::from_second(*seconds).ok().map(jiff::Timestamp::as_microsecond)
        }
        Cell::Text(text) => text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_that_says_missing_is_null_but_in_text_columns() {
        for text in ["", "-"] {
            let cell = Cell::Text(text.to_owned());
            assert_eq!(ColumnType::Int.typed(cell.clone()), Ok(Typed::Null));
            assert_eq!(ColumnType::Text.typed(cell), Ok(Typed::Text(text.into())));
        }
    }

    #[test]
    fn times_are_read_from_seconds_and_from_text_with_its_offset() {
        let want = Ok(Typed::Time(1_431_857_103_000_000));
        assert_eq!(ColumnType::Time.typed(Cell::Int(1_431_857_103)), want);
        assert_eq!(ColumnType::Time.typed(Cell::Text("2015-05-17T12:05:03+02:00".into())), want);
        assert_eq!(time_text(1_431_857_103_000_000), "2015-05-17T10:05:03Z");
    }

    #[test]
    fn a_wrong_value_is_named_and_shortened() {
        let error = ColumnType::Int.typed(Cell::Text("x".repeat(1000))).unwrap_err();
        assert!(error.to_string().ends_with("… is not a whole number of 64 bits"), "{error}");
        assert!(error.found.len() < 100);
        assert!(ColumnType::Int.typed(Cell::Float(0.5)).is_err());
        assert!(ColumnType::Bool.typed(Cell::Int(2)).is_err());
        assert!(ColumnType::Time.typed(Cell::Bool(true)).is_err());
        assert!(ColumnType::Float.typed(Cell::Text("inf".into())).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn numbers_survive_their_own_text(int in any::<i64>(), float in proptest::num::f64::NORMAL | proptest::num::f64::ZERO) {
            let text = Cell::Text(int.to_string());
            prop_assert_eq!(ColumnType::Int.typed(text), Ok(Typed::Int(int)));
            prop_assert_eq!(ColumnType::Int.typed(Cell::Int(int)), Ok(Typed::Int(int)));
            let text = Cell::Text(Cell::Float(float).text().unwrap().into_owned());
            prop_assert_eq!(ColumnType::Float.typed(text), Ok(Typed::Float(float)));
        }

        #[test]
        fn times_survive_their_own_text(micros in -62_000_000_000_000_000i64..250_000_000_000_000_000) {
            let text = Cell::Text(time_text(micros));
            prop_assert_eq!(ColumnType::Time.typed(text), Ok(Typed::Time(micros)));
        }
    }
}
