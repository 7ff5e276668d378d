//! `ferryctl migrate-config`: INI files of each legacy role become configurations that pass `config check`.

use crate::support::{ferryctl, file};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

const COMMON: &str = "[logAgent]\nlocal_level = WARNING\nlocal_dir = log/\ntcp_level = ERROR\ntcp_addr = 10.0.0.1:4040\n\
                      [monitor]\nhb_port = 4000\nmon_addr = 10.0.0.1:4040\n";

struct Migrated {
    dir: TempDir,
    text: String,
    table: toml::Table,
}

/// Migrates, checks the result with `config check`, and reads it.
fn migrated(ini: &str, role: &str, more: &[&str]) -> Migrated {
    let migrated = unchecked(ini, more);
    assert_passes_the_check(&migrated, role);
    migrated
}

fn unchecked(ini: &str, more: &[&str]) -> Migrated {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("var")).expect("a folder");
    std::fs::write(dir.path().join("var/footprint.json"), "{}").expect("a file");
    let path = file(&dir, "config.ini", ini.as_bytes());
    let ran = ferryctl(&[&["migrate-config", &path], more].concat());
    assert_eq!(ran.status, 0, "{}\n{}", ran.err, ran.out);
    let table = ran.out.parse().expect("TOML");
    Migrated { dir, text: ran.out, table }
}

#[track_caller]
fn assert_passes_the_check(migrated: &Migrated, role: &str) {
    let result = file(&migrated.dir, &format!("{role}.toml"), migrated.text.as_bytes());
    let checked = ferryctl(&["config", "check", &result]);
    assert_eq!(checked.status, 0, "{}\n{}", checked.err, migrated.text);
}

#[test]
fn a_tail_becomes_a_tailer_that_goes_on_where_it_was() {
    let ini = format!(
        "[tail]\nlog_file = /var/log/nginx/access.log.<%Y%m%d%H>\nrecord_file = var/line.rec\nrecv_buffer_size = 5000\n\
         line_pattern = \"^GET \\d+ #\"\nsend_to = 10.0.0.2:1302, 10.0.0.3:1302\nsenders = 3\nodd = 1\n{COMMON}"
    );
    let Migrated { dir, text, table } = migrated(&ini, "tailer", &[]);
    let source = &table["source"][0];
    assert_eq!(source["name"].as_str(), Some("access"));
    assert_eq!(source["path"].as_str(), Some("/var/log/nginx/access.log.<%Y%m%d%H>"));
    assert_eq!(source["line_record"].as_str(), dir.path().join("var/line.rec").to_str());
    assert_eq!(source["include"][0].as_str(), Some("^GET \\d+ #"));
    assert_eq!(table["pack"]["max_lines"].as_integer(), Some(5000));
    let send = &table["send"];
    assert_eq!(send["to"].as_array().map(Vec::len), Some(2));
    assert_eq!((send["mode"].as_str(), send["protocol"].as_str()), (Some("failover"), Some("v1")));
    assert_eq!(send["v1_connections"].as_integer(), Some(3));
    let node = &table["node"];
    assert_eq!(node["monitor"].as_str(), Some("10.0.0.1:4040"));
    assert_eq!(
        (node["heartbeat"].as_str(), node["log_level"].as_str()),
        (Some("0.0.0.0:4000"), Some("warn"))
    );
    for remark in ["No counterpart: local_dir", "No counterpart (line 8): [tail] odd = 1"] {
        assert!(text.contains(remark), "{text}");
    }
}

#[test]
fn lines_over_tcp_become_an_input() {
    let ini = "[logd]\nlisten = :1202\nsend_to = collector:1302\nrecv_buffer_size = 100\nsenders = 200\n";
    let Migrated { table, .. } = migrated(ini, "tailer", &["--protocol", "v2"]);
    assert_eq!(table["input"][0]["listen"][0].as_str(), Some("tcp://0.0.0.0:1202"));
    assert_eq!(table["send"]["protocol"].as_str(), Some("v2"));
    assert_eq!(table["send"]["mode"].as_str(), Some("single"));
}

#[test]
fn a_collector_takes_legacy_packs_and_what_was_seen() {
    let ini = format!("[collector]\nlisten = 0.0.0.0:1302\nsend_to = 10.0.0.9:1306\nsenders = 100\n{COMMON}");
    let Migrated { dir, table, .. } = migrated(&ini, "collector", &[]);
    let listen = &table["listen"];
    assert_eq!((listen["addr"].as_str(), listen["v1"].as_bool()), (Some("0.0.0.0:1302"), Some(true)));
    assert_eq!(listen["v1_footprint"].as_str(), dir.path().join("var/footprint.json").to_str());
    assert_eq!(table["send"]["v1_connections"].as_integer(), Some(64));
}

#[test]
fn a_file_collector_becomes_an_outputter_in_the_same_folder() {
    let Migrated { table, .. } =
        migrated("[fcollector]\nlisten = 1306\nsave_dir = /data/logs\n", "outputter", &[]);
    assert_eq!(table["listen"]["addr"].as_str(), Some("0.0.0.0:1306"));
    assert_eq!(table["file"]["dir"].as_str(), Some("/data/logs"));
}

#[test]
fn roles_whose_outputs_are_not_in_every_build_pass_the_check_all_the_same() {
    let ini = "[etlcollector]\nlisten = 1306\nsave_dir = /data\nspider_list = conf/spiders\ncolumns_file = conf/columns\n\
               hosts_white_list = conf/hosts\nip_black_list = conf/black\n";
    let mut tables = unchecked(ini, &[]);
    // The program of the package, and the lists of the legacy node, are to be there.
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/etl/access.vrl");
    tables.text = tables.text.replace("/etc/logferry/etl/access.vrl", program);
    std::fs::create_dir(tables.dir.path().join("conf")).expect("a folder");
    let columns = br#"{"access":{"columns":["event_url"]}}"#.as_slice();
    for (name, content) in
        [("columns", columns), ("spiders", b""), ("hosts", b"www.example.com\n"), ("black", b"")]
    {
        file(&tables.dir, &format!("conf/{name}"), content);
    }
    assert_passes_the_check(&tables, "outputter");
    let Migrated { dir, text, .. } = &tables;
    for key in ["[etl]", "columns = ", "spider_list = ", "hosts_white_list = ", "ip_black_list = "] {
        assert!(text.contains(key), "{text}");
    }
    assert!(text.contains(dir.path().join("conf/columns").to_str().expect("text")));

    let ini = "[mgocollector]\nlisten = 1306\nmongos = m1:27017,m2:27017\ndb = tn\ncollection = c\nsavers = 20\nupsert = true\n\
               bulk_size = 50\n";
    let Migrated { text, .. } = migrated(ini, "outputter", &[]);
    for key in [
        "[mongodb]",
        "uri = \"mongodb://m1:27017,m2:27017\"",
        "mode = \"upsert\"",
        "bulk_size = 50",
        "savers = 20",
    ] {
        assert!(text.contains(key), "{text}");
    }
}

#[test]
fn the_monitor_keeps_its_database() {
    let ini = "[receiver]\ndb_host = db\ndb_port = 3307\ndb_uname = logd\ndb_passwd = p@ss:/w\ndb_db = monitor\ndb_charset = utf8\n\
               recv_port = 4040\n[heart_beat]\ncheck_interval = 20\n";
    let Migrated { table, .. } = migrated(ini, "monitor", &[]);
    assert_eq!(table["database"]["url"].as_str(), Some("mysql://logd:p%40ss%3A%2Fw@db:3307/monitor"));
    assert_eq!(table["listen"]["addr"].as_str(), Some("0.0.0.0:4040"));
    assert_eq!(table["check"]["interval"].as_str(), Some("20s"));
}

/// Remarks are broken into lines.
fn in_one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c == '#').filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn numbers_that_are_none_are_said() {
    let ini = format!("[receiver]\nrecv_port = 4040\n[heart_beat]\ncheck_interval = 30s\n{COMMON}");
    let Migrated { text, .. } = migrated(&ini, "monitor", &[]);
    assert!(in_one_line(&text).contains("check_interval = \"30s\" is no number of seconds"), "{text}");
    let ini = format!("[mgocollector]\nlisten = 1306\nmongos = m1\nsavers = many\nbulk_size = 1k\n{COMMON}");
    let Migrated { text, .. } = unchecked(&ini, &[]);
    for said in ["savers = \"many\" is no number", "bulk_size = \"1k\" is no number"] {
        assert!(in_one_line(&text).contains(said), "{said}: {text}");
    }
}

#[test]
fn several_roles_are_written_to_a_folder_and_nothing_there_is_overwritten() {
    let dir = tempfile::tempdir().expect("a folder");
    let ini =
        "[tail]\nlog_file = /var/log/a.log\nsend_to = c:1302\n[collector]\nlisten = 1302\nsend_to = o:1306\n";
    let path = file(&dir, "config.ini", ini.as_bytes());
    let asked = ferryctl(&["migrate-config", &path]);
    assert_eq!(asked.status, 2);
    assert!(asked.err.contains("tail, collector") && asked.err.contains("--role"), "{}", asked.err);
    let to = dir.path().to_str().expect("text");
    assert_eq!(ferryctl(&["migrate-config", &path, "--to", to]).status, 0);
    for role in ["tailer", "collector"] {
        let checked = ferryctl(&["config", "check", &format!("{to}/{role}.toml")]);
        assert_eq!(checked.status, 0, "{}", checked.err);
    }
    let again = ferryctl(&["migrate-config", &path, "--to", to, "--role", "tail"]);
    assert_eq!(again.status, 1);
    assert!(again.err.contains("is there already"), "{}", again.err);

    let two_stores = "[monitor]\nhb_port = 4000\n[fcollector]\nlisten = 1306\nsave_dir = /data/logs\n[collector]\nlisten = 1302\nsend_to = o:1306\n\
                      [etlcollector]\nlisten = 1307\nsave_dir = /data/etl\n";
    let path = file(&dir, "two.ini", two_stores.as_bytes());
    let refused = ferryctl(&["migrate-config", &path, "--to", to]);
    assert_eq!(refused.status, 1);
    assert!(
        !dir.path().join("outputter-fcollector.toml").exists(),
        "something was written before the refusal"
    );
    let to = dir.path().join("two");
    let ran = ferryctl(&["migrate-config", &path, "--to", to.to_str().expect("text")]);
    let mode = |path: &Path| std::fs::metadata(path).expect("written").permissions().mode() & 0o777;
    assert_eq!(mode(&to.join("collector.toml")), 0o600, "passwords may be in it");
    let nodes = ["outputter-fcollector", "outputter-etlcollector", "collector"].map(|name| {
        let text = std::fs::read_to_string(to.join(format!("{name}.toml")));
        let table: toml::Table =
            text.unwrap_or_else(|_| panic!("{name}: {}", ran.err)).parse().expect("TOML");
        table["node"].clone()
    });
    for key in ["var_dir", "admin", "heartbeat"] {
        let mut own: Vec<&str> = nodes.iter().filter_map(|node| node[key].as_str()).collect();
        own.sort_unstable();
        own.dedup();
        assert_eq!(own.len(), 3, "each has its own {key}: {own:?}");
    }
    let heartbeats: Vec<_> = nodes.iter().filter_map(|node| node["heartbeat"].as_str()).collect();
    assert_eq!(heartbeats, ["0.0.0.0:4001", "0.0.0.0:4002", "0.0.0.0:4000"], "the first keeps hb_port");
    let alone = ferryctl(&["migrate-config", &path, "--role", "etlcollector"]);
    assert!(alone.out.contains("0.0.0.0:4002") && alone.out.contains("hb_port was 4000"), "{}", alone.out);
}

#[test]
fn what_is_no_legacy_configuration_is_said_with_its_line_and_a_hostile_value_stays_a_value() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = file(&dir, "a.ini", b"[tail]\nlog_file\n");
    let ran = ferryctl(&["migrate-config", &path]);
    assert!(ran.status == 1 && ran.err.contains(&format!("{path}:2: \"log_file\"")), "{}", ran.err);
    let path = file(&dir, "b.ini", b"[other]\na = b\n");
    assert_eq!(ferryctl(&["migrate-config", &path]).status, 2);
    let ini =
        "[collector]\nlisten = 1302\nsend_to = o:1306\nsenders = 1\"\\n[spool]\nx = \"\"\"\\nmax_bytes = 1\n";
    let Migrated { table, .. } = migrated(ini, "collector", &[]);
    assert_eq!(table["spool"]["max_bytes"].as_str(), Some("20GiB"));
}
