//! Parquet files are whole, typed, and hold every row, also with many row groups.
#![cfg(feature = "parquet")]
#![allow(clippy::unwrap_used)] // helpers of tests fail by panic, as tests do

mod common;

use common::{recipe, run};
use logferry_durable::RealDisk;
use logferry_etl::format::Format;
use logferry_etl::lists::Lists;
use logferry_etl::publish::Store;
use parquet::basic::Type as Physical;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use std::fmt::Write as _;
use std::fs::File;
use std::sync::Arc;

const COLUMNS: &str = r#"{"access":{"columns":["", "text", {"name":"n","type":"int"}, {"name":"f","type":"float"},
    {"name":"b","type":"bool"}, {"name":"t","type":"time"}]}}"#;

#[test]
fn typed_values_and_missing_ones_come_back_from_many_row_groups() {
    let dir = tempfile::tempdir().unwrap();
    let mut recipe = recipe(COLUMNS, Format::Parquet);
    recipe.bounds.memory_bytes = 10_000;
    let mut text = String::new();
    for n in 0..2000u32 {
        match n % 3 {
            0 => writeln!(text, "text=line-{n} n={n} f={n}.5 b=1 t=2026-11-21T13:00:00Z"),
            1 => writeln!(text, "n={n} b=false"),
            _ => writeln!(text, "n={n} text=ü"),
        }
        .unwrap();
    }
    let (store, _) = Store::open(Arc::new(RealDisk), dir.path()).unwrap();
    run(&store, &recipe, &Lists::default(), "web-1", &text).unwrap();
    let file = File::open(dir.path().join("part-web-1_2026112113~access~access~0.parquet")).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    assert!(reader.num_row_groups() > 5);
    let types: Vec<Physical> = reader
        .metadata()
        .file_metadata()
        .schema_descr()
        .columns()
        .iter()
        .map(|column| column.physical_type())
        .collect();
    assert_eq!(
        types,
        [Physical::BYTE_ARRAY, Physical::INT64, Physical::DOUBLE, Physical::BOOLEAN, Physical::INT64]
    );
    let mut count = 0;
    for (row, want) in reader.get_row_iter(None).unwrap().zip(0i64..) {
        let row = row.unwrap();
        assert_eq!(row.get_long(1).unwrap(), want);
        match want % 3 {
            0 => {
                assert_eq!(row.get_string(0).unwrap(), &format!("line-{want}"));
                assert_eq!(row.get_double(2).unwrap(), want as f64 + 0.5);
                assert!(row.get_bool(3).unwrap());
                assert_eq!(row.get_timestamp_micros(4).unwrap(), 1_795_266_000_000_000);
            }
            1 => assert!(row.get_string(0).is_err() && !row.get_bool(3).unwrap()),
            _ => assert!(row.get_string(0).unwrap() == "ü" && row.get_bool(3).is_err()),
        }
        count += 1;
    }
    assert_eq!(count, 2000);
}
