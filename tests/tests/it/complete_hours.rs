//! Promise 6, as an operator sees it: marks, hooks and `ferryctl hours` with the real programs, killed while hours are closed.

use logferry_tests::lines::many_lines;
use logferry_tests::program::binary;
use logferry_tests::{PATIENCE, Relay, RelayOptions, trial, wait_until};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

const HOURS: u8 = 24;

/// A hook that appends what it is told to `told`, and fails every third time.
const HOOK: &str = r#"
[hours]
on_complete = ["sh", "-c", '''
echo "$LOGFERRY_HOUR $LOGFERRY_LINES" >> {dir}/tried
test -e "$LOGFERRY_MARK" || echo "no mark" >> {dir}/told
[ $(( $(wc -l < {dir}/tried) % 3 )) = 0 ] && exit 1
echo "$LOGFERRY_HOUR $LOGFERRY_LINES" >> {dir}/told
''']
"#;

/// A hook that says that it runs, and goes on for longer than any restart takes.
const LONG_HOOK: &str = r#"
[hours]
on_complete = ["sh", "-c", "echo $$ >> {dir}/tried; exec sleep 60"]
"#;

fn relay(hook: &str) -> Relay {
    let options = RelayOptions {
        source_sections: "[[source]]\nname = \"app\"\npath = \"{dir}/logs/app.log.<%Y%m%d%H>\"\n\
                          rotate_wait = \"300ms\"\npoll_interval = \"100ms\"\n"
            .into(),
        pack: String::from("max_bytes = \"8KiB\"\n"),
        ..RelayOptions::default()
    };
    let relay = Relay::new("complete-hours", &options);
    let dir = relay.dir.path();
    std::fs::create_dir(dir.join("logs")).expect("a folder");
    let mut config = std::fs::read_to_string(&relay.outputter.config).expect("configuration");
    config.push_str(&hook.replace("{dir}", &dir.display().to_string()));
    std::fs::write(&relay.outputter.config, config).expect("configuration");
    relay
}

fn name(hour: u8) -> String {
    format!("20161219{hour:02}")
}

fn write(relay: &Relay, hour: u8, lines: &[u8]) {
    let path = relay.dir.path().join(format!("logs/app.log.{}", name(hour)));
    let mut file = std::fs::File::options().create(true).append(true).open(path).expect("a log file");
    file.write_all(lines).expect("written");
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

fn marks(output: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(output.join("received/app")).into_iter().flatten();
    entries.map(|entry| entry.expect("listed").file_name().into_string().expect("text")).collect()
}

/// The marks that there must be: one for each hour with its lines, and the one of the day.
fn expected(written: &BTreeMap<u8, Vec<u8>>) -> BTreeSet<String> {
    let hours = written.iter().map(|(hour, lines)| format!("web-1_{}_{}", name(*hour), newlines(lines)));
    hours.chain(["web-1_20161219".to_owned()]).collect()
}

fn told(relay: &Relay) -> BTreeSet<String> {
    let text = std::fs::read_to_string(relay.dir.path().join("told")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn wait_complete(relay: &Relay, written: &BTreeMap<u8, Vec<u8>>) {
    wait_until("the marks of all hours are there, and no others", || {
        marks(&relay.output) == expected(written)
    });
    wait_until("the hook was told of all hours", || {
        let told = told(relay);
        written.iter().all(|(hour, lines)| told.contains(&format!("{} {}", name(*hour), newlines(lines))))
    });
    assert!(!told(relay).contains("no mark"), "the mark is there before the hook starts");
}

/// A web server that is told of hours and answers each hour with the next of these states, the last one for ever. Its address, and what it was told.
fn told_by_web(states: &'static [u16]) -> (String, mpsc::Receiver<serde_json::Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let addr = listener.local_addr().expect("an address").to_string();
    let (told, telling) = mpsc::channel();
    std::thread::spawn(move || {
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for connection in listener.incoming() {
            let mut reader = BufReader::new(connection.expect("accepted"));
            let headers: Vec<String> =
                reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let length = headers.iter().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            let mut body = vec![0; length.expect("a body")];
            reader.read_exact(&mut body).expect("the body");
            let news: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            let times = times.entry(news["hour"].to_string()).or_default();
            let state = states[(*times).min(states.len() - 1)];
            *times += 1;
            let answer = format!("HTTP/1.1 {state} So\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            reader.into_inner().write_all(answer.as_bytes()).expect("answered");
            if told.send(news).is_err() {
                return;
            }
        }
    });
    (addr, telling)
}

#[test]
fn a_webhook_is_told_of_an_hour_until_it_has_taken_it_and_again_when_the_hour_grows() {
    let (addr, telling) = told_by_web(&[500, 302, 200]);
    let mut relay = relay(&format!("\n[hours]\nwebhook = \"http://{addr}/done\"\n"));
    let mut lines = many_lines(1, 100);
    write(&relay, 3, &lines);
    write(&relay, 4, &many_lines(2, 10));
    relay.start();
    let next = |hour: u8| loop {
        let told = telling.recv_timeout(PATIENCE).expect("the webhook is called");
        if told["hour"] == name(hour) {
            return told;
        }
    };
    let first = next(3);
    assert_eq!(
        (&first["host"], &first["source"], &first["state"], &first["lines"]),
        (&"web-1".into(), &"app".into(), &"complete".into(), &newlines(&lines).into())
    );
    assert_eq!(first["mark"], format!("received/app/web-1_{}_{}", name(3), newlines(&lines)));
    assert_eq!(next(3), first, "500 is no yes");
    assert_eq!(next(3), first, "302 is no yes");
    let failed = || relay.outputter.counter("logferry_outputter_hooks_failed_total", "webhook");
    wait_until("failures are counted", || failed() >= 2.0);
    let late = many_lines(7, 50);
    write(&relay, 3, &late);
    lines.extend(late);
    wait_until("the hour has grown", || next(3)["lines"] == newlines(&lines));
}

fn ferryctl_hours(arguments: &[&str]) -> (i32, serde_json::Value) {
    let ran =
        Command::new(binary("ferryctl")).args(["hours", "--json"]).args(arguments).output().expect("it runs");
    let text = String::from_utf8_lossy(&ran.stdout);
    let json = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text} {}", String::from_utf8_lossy(&ran.stderr)));
    (ran.status.code().expect("an exit status"), json)
}

#[test]
fn each_complete_hour_has_its_mark_and_its_hook_whatever_is_killed() {
    let mut relay = relay(HOOK);
    let mut written = BTreeMap::new();
    for hour in 0..HOURS {
        let lines = many_lines(u64::from(hour), 20 + u64::from(hour) % 5 * 60);
        write(&relay, hour, &lines);
        written.insert(hour, lines);
    }
    relay.start();
    for round in 0..8 {
        let (before, begin) = (marks(&relay.output).len(), Instant::now());
        wait_until("hours are closed, or a while passes", || {
            marks(&relay.output).len() > before || begin.elapsed() > Duration::from_millis(100 * round)
        });
        relay.outputter.kill();
        if round == 5 {
            // A lost book is read again from the header files.
            std::fs::remove_file(relay.outputter.var_dir.join("hours.0")).ok();
            std::fs::remove_file(relay.outputter.var_dir.join("hours.1")).ok();
        }
        relay.outputter.start();
    }
    wait_complete(&relay, &written);

    // Late lines: another number in the mark, and the hook is told again.
    let late = many_lines(7_000, 50);
    write(&relay, 7, &late);
    written.entry(7).or_default().extend(late);
    wait_complete(&relay, &written);

    let admin = relay.outputter.admin().expect("an admin endpoint");
    let store = relay.output.display().to_string();
    for from in [["--admin", &admin], ["--store", &store]] {
        let (status, report) = ferryctl_hours(&from);
        assert_eq!(status, 0, "{report}");
        let hours = report["hours"].as_array().expect("a list");
        let lines: BTreeMap<String, usize> = hours
            .iter()
            .map(|hour| {
                (
                    hour["hour"].as_str().expect("text").to_owned(),
                    hour["lines"].as_u64().expect("a number") as usize,
                )
            })
            .collect();
        let expected = written.iter().map(|(hour, lines)| (name(*hour), newlines(lines))).collect();
        assert_eq!(lines, expected);
        assert!(hours.iter().all(|hour| hour["state"] == "complete" && hour["mark"].is_string()), "{report}");
    }

    // A mark that somebody deleted is there again after a start; what is missing of a damaged store is told.
    let (mark, _) =
        (relay.output.join(format!("received/app/web-1_{}_{}", name(3), newlines(&written[&3]))), ());
    std::fs::remove_file(&mark).expect("the mark");
    relay.outputter.kill();
    relay.outputter.start_and_wait();
    wait_complete(&relay, &written);
    relay.outputter.kill();
    cut_out_first_pack(&relay, 4);
    let (status, report) = ferryctl_hours(&["--store", &store, "--missing"]);
    assert_eq!(status, 1);
    assert_eq!(report["hours"].as_array().map(Vec::len), Some(1), "{report}");
    assert_eq!(report["hours"][0]["missing"], serde_json::json!([[1, 1]]));
}

#[test]
fn an_outputter_that_is_killed_while_a_long_hook_runs_starts_again_at_once() {
    const KILLS: usize = 20;
    let trial = trial!();
    let mut relay = relay(LONG_HOOK);
    write(&relay, 0, &many_lines(1, 20));
    relay.start();
    let tried = relay.dir.path().join("tried");
    let hooks = || std::fs::read_to_string(&tried).unwrap_or_default().lines().count();
    for kill in 0..KILLS {
        wait_until("the hook runs", || hooks() > kill);
        relay.outputter.kill();
        // Panics if it ends.
        relay.outputter.start_and_wait();
    }
    assert!(!relay.outputter.log_text().contains("in use"), "{}", relay.outputter.log_text());
    for pid in std::fs::read_to_string(&tried).expect("hooks").lines() {
        let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw).expect("a process");
        // Its children are its own group.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    trial.count("kills while a hook runs", KILLS as u64);
}

fn cut_out_first_pack(relay: &Relay, hour: u8) {
    let path = relay.output.join(format!("headers/app/web-1_{}", name(hour)));
    let text = std::fs::read_to_string(&path).expect("a header file");
    let (_, rest) = text.split_once('\n').expect("lines");
    std::fs::write(&path, rest).expect("written");
}
