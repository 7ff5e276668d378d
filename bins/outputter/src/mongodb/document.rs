//! Documents as BSON.
//!
//! | value | BSON |
//! |---|---|
//! | text | string |
//! | bytes that are no UTF-8 | binary |
//! | whole number | 64-bit integer |
//! | time | date, in milliseconds |
//! | the others | as they are called |
//!
//! `_id` of an inserted document is binary, big-endian, so that a stream's documents lie beside each other in order:
//!
//! | lines of a pack | bytes of `_id` |
//! |---|---|
//! | whose body is as long as its range: the lines as they are in the stream | stream (16), offset of the line in it (8), crc32c of the line (4) |
//! | whose body is not: lines were left out, or their encoding changed, on the host | stream (16), offset of the pack (8), number of the line in it from 0 (4), crc32c of the line (4) |
//!
//! The place of a line in a longer or shorter body is no offset of the stream: in a longer one it can be the place of another line, in the
//! next pack. The two forms never meet, because their lengths differ. The checksum keeps lines apart that have the same place and other
//! content, as after a restored snapshot of a host.

use super::bson::raw::{CStr, RawBsonRef, RawDocumentBuf};
use super::bson::spec::BinarySubtype;
use super::bson::{DateTime, RawArrayBuf, RawBinaryRef};
use logferry_pack::StreamId;
use logferry_transform::{Document, Value};

/// Bytes of an `_id` at most.
const ID_BYTES_MAX: usize = 32;
/// Largest document that a server takes.
pub const DOCUMENT_BYTES_MAX: usize = 16 << 20;

/// Where a line is, as its `_id` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Offset in the stream.
    Offset(u64),
    /// Offset of the pack, and number of the line in it.
    Line(u64, u32),
}

/// An `_id`, derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id {
    bytes: [u8; ID_BYTES_MAX],
    length: u8,
}

impl Id {
    /// From where a line is and what it says.
    pub fn new(stream: StreamId, place: Place, line: &[u8]) -> Id {
        let mut id = Id { bytes: [0; ID_BYTES_MAX], length: 0 };
        id.push(&stream.0.to_be_bytes());
        match place {
            Place::Offset(offset) => id.push(&offset.to_be_bytes()),
            Place::Line(pack, number) => {
                id.push(&pack.to_be_bytes());
                id.push(&number.to_be_bytes());
            }
        }
        id.push(&crc32c::crc32c(line).to_be_bytes());
        id
    }

    fn push(&mut self, part: &[u8]) {
        let from = usize::from(self.length);
        self.bytes[from..from + part.len()].copy_from_slice(part);
        self.length += part.len() as u8;
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// As BSON, with `_id` in front unless the document has one.
pub fn with_id(id: &Id, document: &Document) -> Result<RawDocumentBuf, String> {
    let mut bson = RawDocumentBuf::new();
    if !document.contains_key("_id") {
        bson.append(key("_id")?, binary(id.as_bytes()));
    }
    append_all(&mut bson, document)?;
    Ok(bson)
}

/// As BSON.
pub fn plain(document: &Document) -> Result<RawDocumentBuf, String> {
    let mut bson = RawDocumentBuf::new();
    append_all(&mut bson, document)?;
    Ok(bson)
}

fn binary(bytes: &[u8]) -> RawBinaryRef<'_> {
    RawBinaryRef { subtype: BinarySubtype::Generic, bytes }
}

fn key(name: &str) -> Result<&CStr, String> {
    name.try_into().map_err(|_| format!("the key {name:?} has a NUL, which BSON cannot say"))
}

fn append_all(bson: &mut RawDocumentBuf, document: &Document) -> Result<(), String> {
    document.iter().try_for_each(|(name, value)| append(bson, name, value))
}

/// Adds a field.
pub fn append(bson: &mut RawDocumentBuf, name: &str, value: &Value) -> Result<(), String> {
    let name = key(name)?;
    match value {
        Value::Object(inner) => bson.append(name, &*plain(inner)?),
        Value::Array(items) => bson.append(name, &*array(items)?),
        other => bson.append(name, scalar(other)),
    }
    Ok(())
}

fn array(items: &[Value]) -> Result<RawArrayBuf, String> {
    let mut bson = RawArrayBuf::new();
    for item in items {
        match item {
            Value::Object(inner) => bson.push(&*plain(inner)?),
            Value::Array(items) => bson.push(&*array(items)?),
            other => bson.push(scalar(other)),
        }
    }
    Ok(bson)
}

fn scalar(value: &Value) -> RawBsonRef<'_> {
    match value {
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => RawBsonRef::String(text),
            Err(_) => RawBsonRef::Binary(binary(bytes)),
        },
        Value::Regex(regex) => RawBsonRef::String(regex.as_str()),
        Value::Integer(number) => RawBsonRef::Int64(*number),
        Value::Float(number) => RawBsonRef::Double(number.into_inner()),
        Value::Boolean(truth) => RawBsonRef::Boolean(*truth),
        Value::Timestamp(time) => RawBsonRef::DateTime(DateTime::from_millis(time.timestamp_millis())),
        // The other two are handled where documents and lists are.
        Value::Null | Value::Object(_) | Value::Array(_) => RawBsonRef::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_where_the_line_is_and_what_it_says() {
        let of_line = Id::new(StreamId(0x0102), Place::Offset(0x0a0b), b"line\n");
        assert_eq!(of_line.as_bytes().len(), 28, "documents in databases keep their ids");
        assert_eq!(of_line.as_bytes()[..16], 0x0102_u128.to_be_bytes());
        assert_eq!(of_line.as_bytes()[16..24], [0, 0, 0, 0, 0, 0, 0x0a, 0x0b]);
        assert_eq!(of_line.as_bytes()[24..], crc32c::crc32c(b"line\n").to_be_bytes());
        assert_ne!(of_line, Id::new(StreamId(0x0102), Place::Offset(0x0a0b), b"other\n"));
    }

    #[test]
    fn an_id_of_a_line_in_a_pack_is_that_of_no_offset_and_no_other_pack() {
        let of_line = |place| Id::new(StreamId(1), place, b"line\n");
        let id = of_line(Place::Line(0x0a0b, 0x0c0d));
        assert_eq!(id.as_bytes()[16..28], [0, 0, 0, 0, 0, 0, 0x0a, 0x0b, 0, 0, 0x0c, 0x0d]);
        assert_eq!(id.as_bytes().len(), 32, "no id of an offset is as long");
        assert_ne!(id, of_line(Place::Line(0x0a0c, 0x0c0c)));
    }

    #[test]
    fn values_become_the_types_that_the_table_says() {
        let mut document = Document::new();
        document.insert("text".into(), "caf\u{e9}".into());
        document.insert("bytes".into(), Value::Bytes(vec![0xff].into()));
        let inner = Value::Object(Document::from([("a".into(), true.into())]));
        let list = Value::Array(vec![1.into(), Value::from_f64_or_zero(2.5), Value::Null, inner]);
        document.insert("deep".into(), Value::Object(Document::from([("list".into(), list)])));
        let bson = with_id(&Id::new(StreamId(7), Place::Offset(7), b""), &document).unwrap();
        let read = super::super::bson::Document::try_from(&*bson).unwrap();
        assert_eq!(read.keys().next().unwrap(), "_id");
        assert_eq!(read.get_str("text").unwrap(), "caf\u{e9}");
        assert_eq!(read.get_binary_generic("bytes").unwrap(), &vec![0xff]);
        let list = read.get_document("deep").unwrap().get_array("list").unwrap();
        assert_eq!(list[0].as_i64(), Some(1));
        assert_eq!((list[1].as_f64(), list[2].as_null()), (Some(2.5), Some(())));
        assert!(list[3].as_document().unwrap().get_bool("a").unwrap());
    }

    #[test]
    fn a_key_with_a_nul_is_refused() {
        let document = Document::from([("a\0b".into(), Value::Null)]);
        assert!(plain(&document).unwrap_err().contains("NUL"));
    }
}
