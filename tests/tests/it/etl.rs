//! Tables of complete hours with the real programs: the outputter is killed again and again while it makes them, late lines make an hour
//! complete again, and in the end every line is in one table, once.

use logferry_tests::{Relay, RelayOptions, wait_until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const HOUR: &str = "2016121904";
/// Many partitions, so that putting tables into place takes a while.
const COLUMNS: &str = r#"{"access":{"columns":[{"name":"event_param_id","type":"int"}],"partitions":["event_day","event_httpstatus"]},
                          "others":{"columns":["event_url"],"partitions":["event_day"]}}"#;

fn relay(format: &str) -> Relay {
    let options = RelayOptions {
        source_sections: "[[source]]\nname = \"app\"\npath = \"{dir}/logs/app.log.<%Y%m%d%H>\"\n\
                          rotate_wait = \"200ms\"\npoll_interval = \"50ms\"\n"
            .into(),
        ..RelayOptions::default()
    };
    let relay = Relay::new("etl", &options);
    let dir = relay.dir.path();
    std::fs::create_dir(dir.join("logs")).expect("a folder");
    std::fs::write(dir.join("columns.json"), COLUMNS).expect("a file");
    std::fs::write(dir.join("black"), "10.0.0.66 # noise\n").expect("a file");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/etl/access.vrl");
    let etl = format!(
        "[etl]\ndir = \"{0}/etl\"\nprogram = \"{1}\"\ncolumns = \"{0}/columns.json\"\nformat = \"{format}\"\nip_black_list = \"{0}/black\"\n",
        dir.display(),
        program.display()
    );
    let mut config = std::fs::read_to_string(&relay.outputter.config).expect("configuration");
    config.push_str(&etl);
    std::fs::write(&relay.outputter.config, config).expect("configuration");
    relay
}

/// Whether the outputter was built with `--features etl`.
fn has_etl(relay: &Relay) -> bool {
    let program = logferry_tests::program::binary(relay.outputter.name);
    let ran =
        Command::new(program).arg("--config").arg(&relay.outputter.config).arg("--check-config").output();
    let ran = ran.expect("it runs");
    assert!(
        ran.status.success() || String::from_utf8_lossy(&ran.stderr).contains("--features etl"),
        "{ran:?}"
    );
    ran.status.success()
}

/// Appends lines number `from` to `to`; one in ten comes from an address on the black list.
fn write_lines(relay: &Relay, from: u64, to: u64) {
    let mut text = String::new();
    for number in from..to {
        let (address, status) = (if number % 10 == 0 { 66 } else { 1 }, 200 + number % 20);
        writeln!(
            text,
            "10.0.0.{address} - - [19/Dec/2016:04:00:00 +0000] \"GET /p?id={number} HTTP/1.1\" {status} 1 \"-\" \"x\""
        )
        .expect("written");
    }
    let path = relay.dir.path().join(format!("logs/app.log.{HOUR}"));
    let mut file = std::fs::File::options().create(true).append(true).open(path).expect("a log file");
    std::io::Write::write_all(&mut file, text.as_bytes()).expect("written");
}

fn tables(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("listed").path();
        if path.is_dir() {
            tables(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "tsv" || extension == "parquet") {
            found.push(path);
        }
    }
}

/// Numbers of the rows that can be seen; panics when one is there twice, or half.
fn rows(relay: &Relay) -> BTreeSet<u64> {
    let mut found = Vec::new();
    tables(&relay.dir.path().join("etl"), &mut found);
    let mut numbers = BTreeSet::new();
    for path in found {
        let is_parquet = path.extension().is_some_and(|extension| extension == "parquet");
        for number in if is_parquet { rows_of_parquet(&path) } else { rows_of_tsv(&path) } {
            assert!(numbers.insert(number), "row {number} is there twice");
        }
    }
    numbers
}

fn rows_of_tsv(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).expect("a table");
    assert!(text.ends_with('\n'), "{} ends in the middle of a row", path.display());
    let number = |line: &str| line.parse().unwrap_or_else(|_| panic!("{line:?} in {}", path.display()));
    text.lines().map(number).collect()
}

/// A file of which a part is missing has no good footer, or ends within a page.
#[cfg(feature = "etl")]
fn rows_of_parquet(path: &Path) -> Vec<u64> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;
    let file = std::fs::File::open(path).expect("a table");
    let reader = SerializedFileReader::new(file).unwrap_or_else(|bad| panic!("{}: {bad}", path.display()));
    let told = reader.metadata().file_metadata().num_rows();
    let rows = reader.get_row_iter(None).expect("rows");
    let number = |row: parquet::errors::Result<parquet::record::Row>| {
        row.and_then(|row| row.get_long(0)).unwrap_or_else(|bad| panic!("{}: {bad}", path.display())) as u64
    };
    let numbers: Vec<u64> = rows.map(number).collect();
    assert_eq!(numbers.len() as i64, told, "{}", path.display());
    numbers
}

#[cfg(not(feature = "etl"))]
fn rows_of_parquet(path: &Path) -> Vec<u64> {
    panic!("{}: no test without the feature etl writes Parquet", path.display())
}

fn mark(relay: &Relay) -> Option<serde_json::Value> {
    let text = std::fs::read(relay.dir.path().join(format!("etl/etl_done/app/web-1_{HOUR}"))).ok()?;
    Some(serde_json::from_slice(&text).expect("a mark"))
}

fn wait_made(relay: &Relay, lines: u64) {
    wait_until("the tables of all lines are in place", || {
        mark(relay).is_some_and(|mark| mark["lines"].as_u64() == Some(lines))
    });
    assert_eq!(rows(relay), (0..lines).filter(|number| number % 10 != 0).collect());
    let mark = mark(relay).expect("a mark");
    assert_eq!(mark["dropped_ip"].as_u64(), Some(lines.div_ceil(10)));
    assert_eq!(mark["rejected"].as_u64(), Some(0));
}

#[test]
fn kills_of_the_outputter_in_the_middle_of_an_hour_leave_no_half_table_and_no_double_row() {
    kills_in_the_middle_of_an_hour(&logferry_trial::trial!(), "tsv");
}

#[cfg(feature = "etl")]
#[test]
fn kills_of_the_outputter_leave_no_half_parquet_file_and_no_double_row() {
    kills_in_the_middle_of_an_hour(&logferry_trial::trial!(), "parquet");
}

fn kills_in_the_middle_of_an_hour(trial: &logferry_trial::Trial, format: &str) {
    let mut relay = relay(format);
    if !has_etl(&relay) {
        return logferry_trial::skipped("etl", "the outputter was built without --features etl");
    }
    let (kills, mut lines) = (if logferry_trial::long_run() { 200 } else { 50 }, 6_000);
    let mut random = StdRng::seed_from_u64(4);
    write_lines(&relay, 0, lines);
    relay.start();
    let work = relay.dir.path().join("etl/.work");
    let is_at_work = || std::fs::read_dir(&work).is_ok_and(|entries| entries.count() > 1);
    let (mut at_work, mut late) = (0, 0);
    while at_work < kills {
        let begin = Instant::now();
        wait_until("an hour is being made, or was", || {
            is_at_work() || mark(&relay).is_some_and(|mark| mark["lines"].as_u64() == Some(lines))
        });
        if is_at_work() {
            at_work += 1;
            std::thread::sleep(Duration::from_micros(random.random_range(0..60_000)));
        } else {
            // Done between two kills: late lines make it complete again.
            write_lines(&relay, lines, lines + 500);
            lines += 500;
            late += 1;
        }
        relay.outputter.kill();
        rows(&relay);
        relay.outputter.start();
        assert!(begin.elapsed() < logferry_tests::PATIENCE);
    }
    wait_made(&relay, lines);
    write_lines(&relay, lines, lines + 10);
    wait_made(&relay, lines + 10);
    wait_until("no hour waits", || {
        let status = relay.outputter.status().expect("a status");
        status["figures"]["etl_hours_waiting"].as_u64() == Some(0)
    });
    relay.outputter.kill();
    trial.count("kills of an outputter that made tables", at_work);
    trial.count("hours that late lines completed again", late + 1);
}

#[test]
fn tables_are_made_again_when_they_are_asked_for_with_what_the_lists_say_now() {
    let mut relay = relay("tsv");
    if !has_etl(&relay) {
        return logferry_trial::skipped("etl redo", "the outputter was built without --features etl");
    }
    write_lines(&relay, 0, 1_000);
    relay.start();
    wait_made(&relay, 1_000);
    std::fs::write(relay.dir.path().join("black"), "# nobody any more\n").expect("a list");
    let redo = |host: &str| {
        let ferryctl = logferry_tests::program::binary("ferryctl");
        let asked = ["etl", "redo", "--source", "app", "--host", host, "--hour", HOUR, "--admin"];
        Command::new(ferryctl).args(asked).arg(&relay.outputter.var_dir).output().expect("it runs")
    };
    let unknown = redo("web-9");
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && said.contains("is not complete"), "{said}");
    let ran = redo("web-1");
    assert!(ran.status.success(), "{ran:?}");
    wait_until("the tables have all lines", || mark(&relay).is_some_and(|mark| mark["dropped_ip"] == 0));
    assert_eq!(rows(&relay), (0..1_000).collect());
    // An hour that has failed is found by its mark.
    let (black, fail) = (relay.dir.path().join("black"), relay.dir.path().join("etl/etl_fail/app"));
    std::fs::write(&black, "10.0.0.66\n").expect("a list");
    std::fs::create_dir_all(&fail).expect("a folder");
    std::fs::write(fail.join(format!("web-1_{HOUR}")), r#"{"reason":"its disk was away"}"#).expect("a mark");
    let ferryctl = logferry_tests::program::binary("ferryctl");
    let ran = Command::new(ferryctl)
        .args(["etl", "redo", "--failed", "--admin"])
        .arg(&relay.outputter.var_dir)
        .output();
    let ran = ran.expect("it runs");
    assert!(ran.status.success() && String::from_utf8_lossy(&ran.stdout).contains("web-1"), "{ran:?}");
    wait_until("the tables lack what the list says", || {
        mark(&relay).is_some_and(|mark| mark["dropped_ip"] == 100)
    });
}
