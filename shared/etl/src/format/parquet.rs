//! Parquet files: a column of its type for each named column, all optional, zstd. Rows gather in memory until they are written as a
//! row group.
//!
//! | column type | Parquet |
//! |---|---|
//! | text | `BYTE_ARRAY` (String) |
//! | int, float, bool | `INT64`, `DOUBLE`, `BOOLEAN` |
//! | time | `INT64` (Timestamp, microseconds, UTC) |

use crate::cell::{ColumnType, Typed};
use crate::columns::Schema;
use bytes::Bytes;
use logferry_durable::DiskFile;
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::Type;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

/// Memory of a value beside its bytes: its level and its end.
const VALUE_BYTES: usize = 10;
/// Writes are gathered up to this many bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// A Parquet file that is being written.
pub struct ParquetFile {
    writer: SerializedFileWriter<BufWriter<Appending>>,
    columns: Vec<Buffer>,
    rows: usize,
}

/// [`Write`] over a file of a disk.
struct Appending(Arc<dyn DiskFile>);

impl Write for Appending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(&[bytes]).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Values of one column that wait for their row group.
struct Buffer {
    values: Values,
    /// 1 for a value, 0 for none.
    levels: Vec<i16>,
}

enum Values {
    Text { bytes: Vec<u8>, ends: Vec<usize> },
    Int(Vec<i64>),
    Float(Vec<f64>),
    Bool(Vec<bool>),
}

impl ParquetFile {
    /// Begins a file.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn new(schema: &Schema, file: Arc<dyn DiskFile>) -> io::Result<ParquetFile> {
        let fields = schema.named().map(|column| field(&column.name, column.kind).map(Arc::new));
        let fields = fields.collect::<Result<Vec<_>, _>>().map_err(as_io)?;
        let message = Type::group_type_builder(&schema.name).with_fields(fields).build().map_err(as_io)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by(format!("logferry {}", env!("CARGO_PKG_VERSION")))
            .build();
        let out = BufWriter::with_capacity(BUFFER_BYTES, Appending(file));
        let writer =
            SerializedFileWriter::new(out, Arc::new(message), Arc::new(properties)).map_err(as_io)?;
        let columns = schema.named().map(|column| Buffer::new(column.kind)).collect();
        Ok(ParquetFile { writer, columns, rows: 0 })
    }

    /// Takes a row; `values` are those of the named columns. Gives the bytes of memory that it takes.
    pub fn push(&mut self, values: &[Typed]) -> usize {
        self.rows += 1;
        self.columns.iter_mut().zip(values).map(|(column, value)| column.push(value)).sum()
    }

    /// Writes what was taken as a row group.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group().map_err(as_io)?;
        for column in &mut self.columns {
            let Some(mut writer) = group.next_column().map_err(as_io)? else { break };
            column.write(&mut writer).and_then(|()| writer.close()).map_err(as_io)?;
        }
        group.close().map_err(as_io)?;
        self.rows = 0;
        Ok(())
    }

    /// Writes the rest and the footer; the file is not synced yet.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.writer.finish().map_err(as_io)?;
        self.writer.inner_mut().flush()
    }
}

impl Buffer {
    fn new(kind: ColumnType) -> Buffer {
        let values = match kind {
            ColumnType::Text => Values::Text { bytes: Vec::new(), ends: Vec::new() },
            ColumnType::Int | ColumnType::Time => Values::Int(Vec::new()),
            ColumnType::Float => Values::Float(Vec::new()),
            ColumnType::Bool => Values::Bool(Vec::new()),
        };
        Buffer { values, levels: Vec::new() }
    }

    fn push(&mut self, value: &Typed) -> usize {
        let mut length = 0;
        let is_there = match (&mut self.values, value) {
            (Values::Text { bytes, ends }, Typed::Text(text)) => {
                bytes.extend_from_slice(text.as_bytes());
                ends.push(bytes.len());
                length = text.len();
                true
            }
            (Values::Int(ints), Typed::Int(value) | Typed::Time(value)) => {
                ints.push(*value);
                true
            }
            (Values::Float(floats), Typed::Float(value)) => {
                floats.push(*value);
                true
            }
            (Values::Bool(bools), Typed::Bool(value)) => {
                bools.push(*value);
                true
            }
            _ => false,
        };
        self.levels.push(i16::from(is_there));
        length + VALUE_BYTES
    }

    fn write(&mut self, writer: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        let levels = std::mem::take(&mut self.levels);
        let levels = Some(levels.as_slice());
        match &mut self.values {
            Values::Text { bytes, ends } => {
                let texts = texts(std::mem::take(bytes), std::mem::take(ends));
                writer.typed::<ByteArrayType>().write_batch(&texts, levels, None)?;
            }
            Values::Int(values) => {
                writer.typed::<Int64Type>().write_batch(&std::mem::take(values), levels, None)?;
            }
            Values::Float(values) => {
                writer.typed::<DoubleType>().write_batch(&std::mem::take(values), levels, None)?;
            }
            Values::Bool(values) => {
                writer.typed::<BoolType>().write_batch(&std::mem::take(values), levels, None)?;
            }
        }
        Ok(())
    }
}

/// Texts that share one allocation.
fn texts(bytes: Vec<u8>, ends: Vec<usize>) -> Vec<ByteArray> {
    let bytes = Bytes::from(bytes);
    let begins = std::iter::once(0).chain(ends.iter().copied());
    begins.zip(&ends).map(|(begin, end)| bytes.slice(begin..*end).into()).collect()
}

fn field(name: &str, kind: ColumnType) -> Result<Type, ParquetError> {
    let (physical, logical) = match kind {
        ColumnType::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        ColumnType::Int => (Physical::INT64, None),
        ColumnType::Float => (Physical::DOUBLE, None),
        ColumnType::Bool => (Physical::BOOLEAN, None),
        ColumnType::Time => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS))),
    };
    let builder = Type::primitive_type_builder(name, physical);
    builder.with_repetition(Repetition::OPTIONAL).with_logical_type(logical).build()
}

/// Keeps the kind of a disk's error, so that a full disk is known as one.
fn as_io(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(inner) => io::Error::other(inner),
        },
        other => io::Error::other(other),
    }
}
