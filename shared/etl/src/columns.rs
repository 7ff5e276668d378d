//! The columns file: which fields of a record are written, in which order, as which type, and into which partitions.
//!
//! ```json
//! {"access": {"columns": ["", "event_product", {"name": "event_httpstatus", "type": "int"}], "partitions": ["event_day", "host"]},
//!  "others": {"columns": ["event_url"], "partitions": ["event_day"]}}
//! ```
//!
//! A record says its type in the field `type`. A type that the file does not have is written as `others`; with a single type in the
//! file a record needs none. An empty name is a column that is always empty: in TSV it keeps its place, elsewhere there is nothing of it.

use crate::cell::{Cell, ColumnType, Record};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// The field that says which type of record it is.
pub const TYPE_FIELD: &str = "type";
/// What takes records of types that have no columns of their own.
const OTHERS: &str = "others";

/// A columns file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadColumns {
    /// Cannot be read.
    #[error("cannot read {path}: {error}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// Is no JSON of that shape.
    #[error(
        "{path}: {error}; wanted {{\"access\": {{\"columns\": [\"a\", {{\"name\": \"b\", \"type\": \"int\"}}], \"partitions\": [\"day\"]}}}}"
    )]
    Shape {
        /// The file.
        path: String,
        /// What is wrong, with the line.
        error: serde_json::Error,
    },
    /// Says something that cannot be done.
    #[error("{path}: {what}")]
    Senseless {
        /// The file.
        path: String,
        /// What.
        what: String,
    },
}

/// All types of record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// By name.
    pub schemas: Vec<Schema>,
}

/// What is written of records of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Type of record.
    pub name: String,
    /// In order.
    pub columns: Vec<Column>,
    /// Fields whose values name the folders, the outermost first.
    pub partitions: Vec<String>,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Field of the record; empty: a column without values.
    pub name: String,
    /// Type.
    pub kind: ColumnType,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SchemaText {
    columns: Vec<ColumnText>,
    #[serde(default)]
    partitions: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ColumnText {
    Name(String),
    Typed {
        name: String,
        #[serde(rename = "type")]
        kind: ColumnType,
    },
}

impl Columns {
    /// Reads a columns file.
    ///
    /// # Errors
    /// Names the file and what is wrong in it.
    pub fn load(path: &Path) -> Result<Columns, BadColumns> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| BadColumns::Unreadable { path: shown.clone(), error })?;
        Columns::parse(&shown, &text)
    }

    /// Parses the text of a columns file; `path` is for messages.
    ///
    /// # Errors
    /// As [`Columns::load`].
    pub fn parse(path: &str, text: &str) -> Result<Columns, BadColumns> {
        let found: BTreeMap<String, SchemaText> =
            serde_json::from_str(text).map_err(|error| BadColumns::Shape { path: path.to_owned(), error })?;
        let schemas: Vec<Schema> = found.into_iter().map(|(name, text)| schema(name, text)).collect();
        let columns = Columns { schemas };
        match columns.fault() {
            Some(what) => Err(BadColumns::Senseless { path: path.to_owned(), what }),
            None => Ok(columns),
        }
    }

    fn fault(&self) -> Option<String> {
        if self.schemas.is_empty() {
            return Some("no type of record; add one, such as \"access\"".to_owned());
        }
        self.schemas.iter().find_map(|schema| {
            let what = schema.fault()?;
            Some(format!("{:?}: {what}", schema.name))
        })
    }

    /// Index of the schema for `record`.
    ///
    /// # Errors
    /// The reason for which the record has none.
    pub fn schema_of(&self, record: &Record) -> Result<usize, String> {
        let position = |name: &str| self.schemas.iter().position(|schema| schema.name == name);
        let kind = record.get(TYPE_FIELD).and_then(Cell::text);
        let own = match &kind {
            Some(kind) => position(kind),
            None if self.schemas.len() == 1 => Some(0),
            None => None,
        };
        own.or_else(|| position(OTHERS)).ok_or_else(|| match kind {
            Some(kind) => format!("the columns file has no type {kind:?} and no {OTHERS:?}"),
            None => format!("the record has no field {TYPE_FIELD:?}, and the columns file no {OTHERS:?}"),
        })
    }
}

fn schema(name: String, text: SchemaText) -> Schema {
    let column = |text| match text {
        ColumnText::Name(name) => Column { name, kind: ColumnType::Text },
        ColumnText::Typed { name, kind } => Column { name, kind },
    };
    Schema { name, columns: text.columns.into_iter().map(column).collect(), partitions: text.partitions }
}

impl Schema {
    /// Columns that have a name.
    pub fn named(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| !column.name.is_empty())
    }

    fn fault(&self) -> Option<String> {
        let mut names: Vec<&str> = self.named().map(|column| column.name.as_str()).collect();
        if self.name.is_empty() {
            return Some("a type of record needs a name".to_owned());
        }
        if names.is_empty() {
            return Some("no column has a name".to_owned());
        }
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Some(format!("column {:?} stands there twice", twice[0]));
        }
        let mut partitions: Vec<&str> = self.partitions.iter().map(String::as_str).collect();
        partitions.sort_unstable();
        if let Some(twice) = partitions.windows(2).find(|pair| pair[0] == pair[1]) {
            return Some(format!("partition {:?} stands there twice", twice[0]));
        }
        partitions.contains(&"").then(|| "a partition needs a name".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: Option<&str>) -> Record {
        kind.map(|kind| (TYPE_FIELD.to_owned(), Cell::Text(kind.to_owned()))).into_iter().collect()
    }

    #[test]
    fn a_legacy_columns_file_is_read_as_it_is() {
        let text = r#"{"access":{"columns":["","event_product","event_time"],"partitions":["event_day","host","type"]},
            "click":{"columns":["event_url"],"partitions":[]},"others":{"columns":["event_url"]}}"#;
        let columns = Columns::parse("columns.json", text).unwrap();
        let access = &columns.schemas[columns.schema_of(&record(Some("access"))).unwrap()];
        assert_eq!(access.columns.len(), 3);
        assert_eq!(access.named().count(), 2);
        assert_eq!(access.partitions, ["event_day", "host", "type"]);
        for kind in [None, Some("unheard of")] {
            assert_eq!(columns.schemas[columns.schema_of(&record(kind)).unwrap()].name, "others");
        }
    }

    #[test]
    fn a_single_type_needs_no_field_and_another_type_is_refused() {
        let columns = Columns::parse("c", r#"{"lines":{"columns":["a"]}}"#).unwrap();
        assert_eq!(columns.schema_of(&record(None)), Ok(0));
        assert!(columns.schema_of(&record(Some("click"))).unwrap_err().contains("\"click\""));
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, words) in [
            ("{", "c: EOF"),
            ("{}", "no type of record"),
            (r#"{"a":{"columns":[""]}}"#, "no column has a name"),
            (r#"{"a":{"columns":["x","x"]}}"#, "\"x\" stands there twice"),
            (r#"{"a":{"columns":["x"],"partitions":["d","d"]}}"#, "partition \"d\""),
            (r#"{"a":{"columns":["x"],"partitions":[""]}}"#, "needs a name"),
            (r#"{"a":{"colums":["x"]}}"#, "colums"),
        ] {
            let error = Columns::parse("c", text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        let missing = Columns::load(Path::new("/no/columns.json")).unwrap_err().to_string();
        assert!(missing.contains("/no/columns.json"), "{missing}");
    }
}
