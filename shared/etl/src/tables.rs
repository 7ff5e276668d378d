//! The tables of one hour while they are written: a file for each partition, within bounds of memory, descriptors and files.

use crate::cell::Typed;
use crate::columns::{Columns, Schema};
use crate::format::{Format, ndjson, tsv};
use crate::hour::HourKey;
use crate::staging::{Aside, Staging};
use std::collections::HashMap;
use std::io;

/// Bounds of one hour's work.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of rows that wait in memory, over all partitions; beyond, the largest is written.
    pub memory_bytes: usize,
    /// Partitions that are written at the same time; beyond, the one that was quiet for longest is closed, and gets a second
    /// file when it goes on.
    pub open_max: usize,
    /// Files; beyond, the hour fails: its partitions are not what they were meant to be.
    pub files_max: usize,
}

/// Why rows cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The disk.
    #[error("{0}")]
    Disk(#[from] io::Error),
    /// More than [`Bounds::files_max`].
    #[error(
        "more than {0} table files for one hour: partition by fields with fewer values, or raise etl.files_max"
    )]
    TooManyFiles(usize),
    /// Built without the format.
    #[error(
        "this program was built without Parquet: build with --features etl, or set etl.format to tsv or ndjson"
    )]
    NoParquet,
}

/// A row that fits its columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Index of its [`Schema`].
    pub schema: usize,
    /// Folder below that of all tables; empty without partitions.
    pub folder: String,
    /// Of the named columns, in order.
    pub values: Vec<Typed>,
}

/// The tables.
pub struct Tables<'a> {
    columns: &'a Columns,
    format: Format,
    bounds: Bounds,
    key: &'a HourKey,
    open: HashMap<Partition, Open>,
    /// Files that each partition has got.
    numbers: HashMap<Partition, u32>,
    buffered_bytes: usize,
    rows: u64,
}

/// Type of record and folder.
type Partition = (usize, String);

/// A file that takes rows.
struct Open {
    aside: Aside,
    path: String,
    body: Body,
    buffered_bytes: usize,
    rows: u64,
    /// Number of the last row, over all partitions.
    last_row: u64,
}

enum Body {
    Text(Vec<u8>),
    #[cfg(feature = "parquet")]
    Parquet(crate::format::parquet::ParquetFile),
}

impl<'a> Tables<'a> {
    /// Tables of the hour `key`.
    pub fn new(columns: &'a Columns, format: Format, bounds: Bounds, key: &'a HourKey) -> Tables<'a> {
        Tables {
            columns,
            format,
            bounds,
            key,
            open: HashMap::new(),
            numbers: HashMap::new(),
            buffered_bytes: 0,
            rows: 0,
        }
    }

    /// Takes a row.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn push(&mut self, staging: &mut Staging, row: Row) -> Result<(), TableError> {
        let partition = (row.schema, row.folder);
        if !self.open.contains_key(&partition) {
            self.make_room(staging)?;
            let open = self.begin(staging, &partition)?;
            self.open.insert(partition.clone(), open);
        }
        self.rows += 1;
        let schema = &self.columns.schemas[row.schema];
        if let Some(open) = self.open.get_mut(&partition) {
            let grown = open.push(schema, self.format, &row.values);
            open.last_row = self.rows;
            self.buffered_bytes += grown;
        }
        while self.buffered_bytes > self.bounds.memory_bytes {
            self.flush_largest()?;
        }
        Ok(())
    }

    /// Finishes all files.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn finish(&mut self, staging: &mut Staging) -> Result<(), TableError> {
        let mut open: Vec<_> = std::mem::take(&mut self.open).into_iter().collect();
        open.sort_by(|(left, _), (right, _)| left.cmp(right));
        self.buffered_bytes = 0;
        open.into_iter().try_for_each(|(_, open)| Ok(open.finish(staging)?))
    }

    fn make_room(&mut self, staging: &mut Staging) -> Result<(), TableError> {
        if staging.len() >= self.bounds.files_max {
            return Err(TableError::TooManyFiles(self.bounds.files_max));
        }
        if self.open.len() < self.bounds.open_max {
            return Ok(());
        }
        let quietest = self.open.iter().min_by_key(|(_, open)| open.last_row);
        let Some(partition) = quietest.map(|(partition, _)| partition.clone()) else { return Ok(()) };
        if let Some(open) = self.open.remove(&partition) {
            self.buffered_bytes -= open.buffered_bytes;
            open.finish(staging)?;
        }
        Ok(())
    }

    fn begin(&mut self, staging: &mut Staging, partition: &Partition) -> Result<Open, TableError> {
        let schema = &self.columns.schemas[partition.0];
        let number = self.numbers.entry(partition.clone()).or_default();
        let name = self.key.part_name(&schema.name, *number);
        *number += 1;
        let slash = if partition.1.is_empty() { "" } else { "/" };
        let path = format!("{}{slash}{name}.{}", partition.1, self.format.extension());
        let aside = staging.create()?;
        let body = match self.format {
            Format::Tsv | Format::Ndjson => Body::Text(Vec::new()),
            Format::Parquet => parquet_body(schema, &aside)?,
        };
        Ok(Open { aside, path, body, buffered_bytes: 0, rows: 0, last_row: 0 })
    }

    fn flush_largest(&mut self) -> Result<(), TableError> {
        let Some(open) = self.open.values_mut().max_by_key(|open| open.buffered_bytes) else { return Ok(()) };
        open.flush()?;
        self.buffered_bytes -= std::mem::take(&mut open.buffered_bytes);
        Ok(())
    }
}

#[cfg(feature = "parquet")]
fn parquet_body(schema: &Schema, aside: &Aside) -> Result<Body, TableError> {
    Ok(Body::Parquet(crate::format::parquet::ParquetFile::new(schema, std::sync::Arc::clone(&aside.file))?))
}

#[cfg(not(feature = "parquet"))]
fn parquet_body(_: &Schema, _: &Aside) -> Result<Body, TableError> {
    Err(TableError::NoParquet)
}

impl Open {
    /// Gives the bytes by which the memory grew.
    fn push(&mut self, schema: &Schema, format: Format, values: &[Typed]) -> usize {
        let grown = match &mut self.body {
            Body::Text(bytes) => {
                let before = bytes.len();
                match format {
                    Format::Ndjson => ndjson::write(schema, values, bytes),
                    _ => tsv::write(schema, values, bytes),
                }
                bytes.len() - before
            }
            #[cfg(feature = "parquet")]
            Body::Parquet(file) => file.push(values),
        };
        self.rows += 1;
        self.buffered_bytes += grown;
        grown
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.body {
            // Given away, not cleared: else each partition would keep the memory of its largest flush.
            Body::Text(bytes) => self.aside.file.append(&[&std::mem::take(bytes)]),
            #[cfg(feature = "parquet")]
            Body::Parquet(file) => file.flush(),
        }
    }

    fn finish(mut self, staging: &mut Staging) -> io::Result<()> {
        self.flush()?;
        match self.body {
            Body::Text(_) => {}
            #[cfg(feature = "parquet")]
            Body::Parquet(file) => file.finish()?,
        }
        staging.finish(self.aside, self.path, self.rows)
    }
}
