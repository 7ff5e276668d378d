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
//! `_id` of an inserted document is 28 bytes of binary, big-endian, so that a stream's documents lie beside each other in order:
//! stream (16), offset of the line in it (8), crc32c of the line (4). The checksum keeps lines apart that have the same place and
//! other content, as after a restored snapshot of a host.

use super::bson::raw::{CStr, RawBsonRef, RawDocumentBuf};
use super::bson::spec::BinarySubtype;
use super::bson::{DateTime, RawArrayBuf, RawBinaryRef};
use logferry_pack::StreamId;
use logferry_transform::{Document, Value};

/// Bytes of an `_id`.
pub const ID_BYTES: usize = 28;
/// Largest document that a server takes.
pub const DOCUMENT_BYTES_MAX: usize = 16 << 20;

/// Derived from where a line is and what it says.
pub fn id(stream: StreamId, offset: u64, line: &[u8]) -> [u8; ID_BYTES] {
    let mut id = [0; ID_BYTES];
    id[..16].copy_from_slice(&stream.0.to_be_bytes());
    id[16..24].copy_from_slice(&offset.to_be_bytes());
    id[24..].copy_from_slice(&crc32c::crc32c(line).to_be_bytes());
    id
}

/// As BSON, with `_id` in front unless the document has one.
pub fn with_id(id: &[u8; ID_BYTES], document: &Document) -> Result<RawDocumentBuf, String> {
    let mut bson = RawDocumentBuf::new();
    if !document.contains_key("_id") {
        bson.append(key("_id")?, binary(id));
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
        let of_line = id(StreamId(0x0102), 0x0a0b, b"line\n");
        assert_eq!(of_line[..16], 0x0102_u128.to_be_bytes());
        assert_eq!(of_line[16..24], [0, 0, 0, 0, 0, 0, 0x0a, 0x0b]);
        assert_ne!(of_line, id(StreamId(0x0102), 0x0a0b, b"other\n"));
    }

    #[test]
    fn values_become_the_types_that_the_table_says() {
        let mut document = Document::new();
        document.insert("text".into(), "caf\u{e9}".into());
        document.insert("bytes".into(), Value::Bytes(vec![0xff].into()));
        let inner = Value::Object(Document::from([("a".into(), true.into())]));
        let list = Value::Array(vec![1.into(), Value::from_f64_or_zero(2.5), Value::Null, inner]);
        document.insert("deep".into(), Value::Object(Document::from([("list".into(), list)])));
        let bson = with_id(&[7; ID_BYTES], &document).unwrap();
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
