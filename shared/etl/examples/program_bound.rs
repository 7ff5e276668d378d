//! The bound of `scripts/bench --etl`: the program alone, over each line of a log, with nothing done with its records.
//!
//! `program_bound PROGRAM LOG`: prints `RECORDS SECONDS`, without the time that compiling and reading take.

#![allow(clippy::print_stdout, clippy::unwrap_used)] // its purpose; who runs it sees a panic

use logferry_etl::hour::HourKey;
use logferry_etl::plan;
use logferry_etl::program::{Line, Outcome};
use std::path::Path;
use std::time::Instant;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [program, log] = &words[..] else { panic!("usage: program_bound PROGRAM LOG") };
    let compiled = plan::compile(Path::new(program)).unwrap();
    let mut program = plan::line_program(compiled, "UTC").unwrap();
    let log = std::fs::read(log).unwrap();
    let key = HourKey::new("access", "web-1", None).unwrap();
    let begin = Instant::now();
    let (mut records, mut offset) = (0_u64, 0);
    for (line, number) in log.split_inclusive(|byte| *byte == b'\n').zip(1..) {
        let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line));
        let outcome = program.run(Line { text: &text, number, offset, key: &key });
        records += u64::from(matches!(outcome, Outcome::Record(_)));
        offset += line.len() as u64;
    }
    println!("{records} {:.3}", begin.elapsed().as_secs_f64());
}
