//! Hours: what outputters tell is stored, shown, and known after a restart.

use crate::support::http::{get, get_json, served};
use crate::support::{Peer, config, database, ours, sqlite, start, wait_until, with};
use logferry_node::monitor::hours::{HourNews, HourState};

fn hour(number: u32, host: &str, state: HourState, missing: &[(u64, u64)]) -> HourNews {
    let missing_packs = missing.iter().map(|(first, last)| last - first + 1).sum();
    let (host, source, missing) = (host.to_owned(), "access".to_owned(), missing.to_vec());
    HourNews {
        host,
        source,
        hour: number,
        state,
        total: 9,
        packs: 5,
        lines: 1_234,
        missing,
        missing_packs,
        ..HourNews::default()
    }
}

async fn tell(peer: &mut Peer, instance: &str, hours: &[HourNews]) {
    let text = serde_json::to_string(hours).expect("JSON");
    let message = with(ours("hours", "out-1", instance), &[("hours", &text)]);
    assert_eq!(peer.ask(&message).await, ("0".to_owned(), "success".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_outputters_tell_is_stored_shown_and_known_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let url = sqlite(dir.path());
    for run in 0..2 {
        let monitor = start(&config(dir.path(), &url)).await;
        let addr = served(&monitor).await;
        if run == 0 {
            let mut peer = Peer::connect(monitor.addr).await;
            let told = [
                hour(2026112100, "web-1", HourState::Complete, &[]),
                hour(2026112101, "web-1", HourState::Missing, &[(3, 3), (6, 8)]),
                hour(2026112102, "<b>web-2</b>", HourState::Open, &[]),
            ];
            tell(&mut peer, "o1", &told).await;
            tell(&mut peer, "o1", &told).await;
        }
        wait_until("the hours are known", async || {
            get_json(addr, "/api/hours?day=2026-11-21").await["hours"].as_array().map(Vec::len) == Some(3)
        })
        .await;
        let missing = get_json(addr, "/api/hours?state=incomplete").await;
        let one = &missing["hours"][0];
        assert_eq!(
            (&one["hour"], &one["missing"]),
            (&2026112101.into(), &serde_json::json!([[3, 3], [6, 8]]))
        );
        assert_eq!(get_json(addr, "/api/hours?limit=1").await["truncated"], true);
        assert_eq!(get_json(addr, "/api/hours?host=WEB-2").await["hours"].as_array().map(Vec::len), Some(1));
        let (code, page, _) = get(addr, "/hours").await;
        assert_eq!(code, 200);
        assert!(
            page.contains("✔") && page.contains("✖4") && page.contains("missing 4 packs: 3, 6–8"),
            "{page}"
        );
        assert!(page.contains("&lt;b&gt;web-2") && !page.contains("<b>"), "{page}");
        assert!(!get(addr, "/hours?day=20261120").await.1.contains("✖4"));
        assert_eq!(get(addr, "/api/hours?day=tomorrow").await.0, 400);
        monitor.stop().await;
    }
    assert_eq!(database(&url).await.hours(10).await.expect("hours").len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_list_of_hours_is_refused_and_many_hours_stay_bounded() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = config(dir.path(), "");
    config.check.hours_max = 100;
    let monitor = start(&config).await;
    let addr = served(&monitor).await;
    let mut peer = Peer::connect(monitor.addr).await;
    for text in ["x", "{}", "[1]", "[{\"hour\":-1}]"] {
        let message = with(ours("hours", "out-1", "o1"), &[("hours", text)]);
        assert_eq!(peer.ask(&message).await.0, "1", "{text}");
    }
    for host in 0..30 {
        let hosts = format!("web-{host}");
        let told: Vec<HourNews> =
            (0..24).map(|hour_of_day| hour(2026112100 + hour_of_day, &hosts, HourState::Open, &[])).collect();
        tell(&mut peer, "o1", &told).await;
    }
    let hours = get_json(addr, "/api/hours").await;
    assert_eq!(hours["hours"].as_array().map(Vec::len), Some(100));
    monitor.stop().await;
}

/// Nodes speak, and their last hour is drawn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_has_the_curves_of_its_last_hour() {
    let dir = tempfile::tempdir().expect("a folder");
    let monitor = start(&config(dir.path(), "")).await;
    let addr = served(&monitor).await;
    let mut peer = Peer::connect(monitor.addr).await;
    for lag in [7, 4096, 9] {
        let status = format!("{{\"ready\":true,\"every_ms\":10000,\"rate_bytes\":5,\"lag_bytes\":{lag}}}");
        assert_eq!(peer.ask(&with(ours("heartbeat", "web-1", "a1"), &[("status", &status)])).await.0, "0");
    }
    let samples = get_json(addr, "/api/samples?id=a1").await;
    let most =
        samples.as_array().expect("a list").iter().filter_map(|sample| sample["lag_bytes"].as_u64()).max();
    assert_eq!(most, Some(4_096));
    let (_, page, _) = get(addr, "/node?id=a1").await;
    assert!(page.matches("<polyline").count() >= 3 && page.contains("at most 4.0 KiB"), "{page}");
    assert_eq!(get(addr, "/api/samples?id=nobody").await.0, 404);
    monitor.stop().await;
}
