//! The data path does not feel the monitor's database: frozen, read-only or dead in mid-run, lines arrive as they do without trouble, and nothing
//! that was registered or reported is lost.

#[path = "../../../bins/monitor/tests/it/support/mariadb.rs"]
#[allow(dead_code, unreachable_pub, reason = "the monitor's own tests use all of it")]
mod mariadb;

use logferry_node::monitor::message::{self, Fields};
use logferry_tests::lines::many_lines;
use logferry_tests::monitored::Monitored;
use logferry_tests::{RelayOptions, append, wait_until};
use mariadb::MariaDb;

fn report(number: usize) -> Fields {
    let text = format!("report {number}");
    let who =
        [("ip", "127.0.0.1"), ("port", "0"), ("hostname", "h"), ("role", "tailer"), ("name", "reporter")];
    let said = [("instance", "reporter-1"), ("req", "report"), ("type", "ERROR"), ("msg", &text)];
    message::fields(who).into_iter().chain(message::fields(said)).collect()
}

#[test]
fn lines_arrive_and_reports_are_kept_while_the_database_is_frozen_read_only_or_dead() {
    let name = "lines_arrive_while_the_database_is_away";
    let Some(mut server) = MariaDb::start(name) else { return };
    let config = format!(
        "[database]\nurl = \"{}\"\ntimeout = \"500ms\"\n[check]\ninterval = \"500ms\"\nerrors_per_minute = 100000\n",
        server.url()
    );
    let mut scene = Monitored::new("monitor-database-away", &RelayOptions::default(), &config);
    scene.relay.start();
    let is_well = |scene: &Monitored| {
        scene.monitor.status().is_some_and(|status| status["problems"] == serde_json::json!([]))
    };
    wait_until("the monitor has its database", || is_well(&scene));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (mut written, mut reports) = (Vec::new(), 0);
    for trouble in ["frozen", "read-only", "dead"] {
        match trouble {
            "frozen" => server.signal("STOP"),
            "read-only" => runtime.block_on(server.sql("SET GLOBAL read_only = 1")),
            _ => server.kill(),
        }
        // each report is acknowledged although the database is away, until the monitor has noticed it and beyond
        while is_well(&scene) {
            scene.tell(&[report(reports)]);
            reports += 1;
        }
        let lines = many_lines(reports as u64, 5_000);
        append(&scene.relay.log_files[0], &lines);
        written.extend_from_slice(&lines);
        scene.relay.wait_identical(&[written.clone()]);
        assert!(!is_well(&scene), "{trouble}: all lines have arrived, and the database is still away");
        // a node that comes while it is away is known, too
        scene.relay.collectors[0].stop();
        scene.relay.collectors[0].start_and_wait();
        wait_until("the collector is back", || {
            let nodes = scene.api("/api/nodes");
            nodes
                .as_array()
                .is_some_and(|nodes| nodes.iter().filter(|node| node["state"] == "up").count() >= 3)
        });
        match trouble {
            "frozen" => server.signal("CONT"),
            "read-only" => runtime.block_on(server.sql("SET GLOBAL read_only = 0")),
            _ => server.resume(),
        }
        wait_until("the monitor has its database again", || is_well(&scene));
    }
    wait_until("all is written", || scene.monitor.figure("queue_changes") == 0);
    let stored: Vec<String> = runtime.block_on(async {
        use mysql_async::prelude::Queryable;
        let mut connection = mysql_async::Conn::from_url(server.url()).await.expect("connected");
        let query = "SELECT text FROM logferry_error WHERE name = 'reporter' AND kind = 'ERROR' ORDER BY id";
        connection.query(query).await.expect("rows")
    });
    assert_eq!(stored, (0..reports).map(|number| format!("report {number}")).collect::<Vec<_>>());
}
