//! What becomes of a line: program, lists, type of record, partitions, columns. No I/O.

use crate::cell::{Cell, Record, Typed};
use crate::columns::{Columns, Schema};
use crate::counts::Counts;
use crate::lists::{Lists, Sieved};
use crate::partition;
use crate::program::{Line, LineProgram, Outcome};
use crate::tables::Row;

/// Judges lines.
pub struct Engine<'a> {
    /// Turns lines into records.
    pub program: &'a mut dyn LineProgram,
    /// What is kept.
    pub lists: &'a Lists,
    /// What is written.
    pub columns: &'a Columns,
}

/// What is to be done with a line.
#[derive(Clone, Debug, PartialEq)]
pub enum Judged {
    /// Write it.
    Row(Row),
    /// Nothing.
    Dropped,
    /// Set it aside, with the reason.
    Rejected(String),
}

impl Engine<'_> {
    /// Judges a line and counts it; blank lines are dropped.
    pub fn judge(&mut self, line: Line<'_>, counts: &mut Counts) -> Judged {
        counts.lines += 1;
        if line.text.trim_ascii().is_empty() {
            counts.blank += 1;
            return Judged::Dropped;
        }
        let judged = match self.program.run(line) {
            Outcome::Record(record) => self.judge_record(record, counts),
            Outcome::Dropped => {
                counts.dropped_program += 1;
                Judged::Dropped
            }
            Outcome::Rejected(reason) => Judged::Rejected(reason),
        };
        match &judged {
            Judged::Row(_) => counts.rows += 1,
            Judged::Rejected(_) => counts.rejected += 1,
            Judged::Dropped => {}
        }
        judged
    }

    fn judge_record(&self, mut record: Record, counts: &mut Counts) -> Judged {
        let is_spider = match self.lists.sieve(&mut record) {
            Sieved::Kept { is_spider } => is_spider,
            Sieved::BadAddress => {
                counts.dropped_ip += 1;
                return Judged::Dropped;
            }
            Sieved::OtherHost => {
                counts.dropped_host += 1;
                return Judged::Dropped;
            }
        };
        match self.row(record) {
            Ok(row) => {
                counts.spiders += u64::from(is_spider);
                Judged::Row(row)
            }
            Err(reason) => Judged::Rejected(reason),
        }
    }

    fn row(&self, record: Record) -> Result<Row, String> {
        let index = self.columns.schema_of(&record)?;
        let schema = &self.columns.schemas[index];
        let folder = partition::folder(&schema.partitions, &record)?;
        Ok(Row { schema: index, folder, values: values(schema, record)? })
    }
}

fn values(schema: &Schema, mut record: Record) -> Result<Vec<Typed>, String> {
    let value = |column: &crate::columns::Column| {
        let cell = record.remove(&column.name).unwrap_or(Cell::Null);
        column.kind.typed(cell).map_err(|error| format!("column {:?}: {error}", column.name))
    };
    schema.named().map(value).collect()
}
