//! The monitor's page in a real browser, before a running relay: what an operator sees, and what hostile nodes cannot make of it.

use logferry_node::monitor::message::{self, Fields};
use logferry_tests::browser::{Browser, chromium};
use logferry_tests::lines::many_lines;
use logferry_tests::monitored::Monitored;
use logferry_tests::{RelayOptions, lacking, wait_until};
use std::path::PathBuf;

/// An hour that is long over.
const HOUR: &str = "2016121907";

/// Time between two checks of a node, and the longest that one may take, in milliseconds: a killed node is red after no more than both.
const CHECK_MS: i64 = 500;
const PROBE_MS: i64 = 10_000;

/// Texts that try to be more than texts.
const HOSTILE: [&str; 4] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(2)>",
    "' onmouseover='alert(3)' x='\u{202e}gnp.exe",
    "</bdi></td></table><iframe src=//evil.example></iframe>",
];

/// The monitor runs, the relay not yet.
fn scene() -> Monitored {
    let options = RelayOptions {
        source_sections: "[[source]]\nname = \"app\"\npath = \"{dir}/app.log.<%Y%m%d%H>\"\n\
                          rotate_wait = \"300ms\"\npoll_interval = \"100ms\"\n"
            .into(),
        ..RelayOptions::default()
    };
    let check =
        format!("interval = \"{CHECK_MS}ms\"\nprobe_timeout = \"{PROBE_MS}ms\"\nkeep_hours = \"10000d\"");
    let config = format!("[check]\n{check}\n[alert]\nhold = \"0s\"\ndisk_free = 0\n");
    Monitored::new("monitor-page", &options, &config)
}

/// One node a text, which says it wherever it can.
fn let_hostile_nodes_speak(scene: &Monitored) {
    let long = "long-name-".repeat(1_024);
    for (number, text) in HOSTILE.iter().copied().chain([long.as_str()]).enumerate() {
        let status = serde_json::json!({ "ready": false, "problems": [text], "last_error": text, "every_ms": 3_600_000 });
        let (instance, status) = (format!("hostile-{number}"), status.to_string());
        let who = [("ip", "127.0.0.1"), ("port", "0"), ("hostname", text), ("role", text), ("name", text)];
        let who = message::fields(who).into_iter().chain(message::fields([("instance", &instance)]));
        let who: Fields = who.collect();
        let with = |more: Fields| who.clone().into_iter().chain(more).collect::<Fields>();
        scene.tell(&[
            with(message::fields([("req", "heartbeat"), ("status", &status)])),
            with(message::fields([("req", "report"), ("type", text), ("msg", text)])),
        ]);
    }
}

/// Where pictures go: beside the programs, out of the repository's files.
fn pictures() -> PathBuf {
    let folder = logferry_tests::program::binary("logferry-monitor");
    let folder = folder.ancestors().nth(2).expect("the target folder").join("screenshots");
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

#[test]
fn operators_see_nodes_hours_and_errors_and_texts_stay_texts() {
    let Some(program) = chromium() else {
        return lacking("operators_see_nodes_hours_and_errors", "Chromium is not installed (apt: chromium)");
    };
    let mut scene = scene();
    let mut browser = Browser::start(&program).expect("Chromium starts");
    browser.size(1_280, 900).expect("sized");
    nodes_appear(&mut scene, &mut browser);
    an_hour_turns_complete(&mut scene, &mut browser);
    take_pictures(&scene, &mut browser);
    a_phone_reads_on_while_the_page_renews_itself(&scene, &mut browser);
    a_killed_node_turns_red(&mut scene, &mut browser);
    texts_stay_texts(&scene, &mut browser);
    errors_are_filtered(&scene, &mut browser);
    assert_eq!(browser.troubles(), Vec::<String>::new());
}

fn nodes_appear(scene: &mut Monitored, browser: &mut Browser) {
    browser.open(&scene.url("/")).expect("opened");
    browser
        .wait("nobody is there", "document.body.innerText.includes('No node has registered yet')")
        .expect("seen");
    let all = "['web-1', 'collector-0', 'outputter'].every(name => document.querySelector('.flow').innerText.includes(name))";
    note_contents(browser, all);
    scene.relay.start();
    wait_until("the monitor knows the nodes", || scene.api("/api/nodes").as_array().map(Vec::len) == Some(3));
    // the page renews itself each second: a node is seen by the second renewal after the monitor knows it, so within two seconds
    let renewals = "Number(document.documentElement.dataset.renewals)";
    let before = browser.evaluate(renewals).expect("counted").as_f64().expect("a number");
    browser.wait("the nodes are on the page", all).expect("seen");
    let after = browser.evaluate(renewals).expect("counted").as_f64().expect("a number");
    assert!(after - before <= 2.0, "seen after {} renewals", after - before);
    assert_eq!(browser.evaluate("document.documentElement.dataset.every").expect("read"), "1000");
    let nodes = scene.api("/api/nodes");
    let heard = nodes.as_array().expect("a list").iter().filter_map(|node| node["since_ms"].as_i64()).max();
    shown_from_then_on(browser, heard.expect("three nodes"));
}

/// From here on the browser notes of each content of the page when the monitor made it, by the monitor's clock, and whether `holds`.
fn note_contents(browser: &mut Browser, holds: &str) {
    let note = format!(
        "(() => {{ const live = document.getElementById('live'); window.contents = []; \
         const note = () => window.contents.push([Number(document.querySelector('[data-made]').dataset.made), {holds}]); \
         new MutationObserver(note).observe(live, {{ attributes: true, subtree: true, attributeFilter: ['data-made'] }}); \
         note(); return true; }})()"
    );
    assert_eq!(browser.evaluate(&note).expect("noted"), true);
}

/// What became true at a time of the monitor's clock is in each content of later, however slow the machine is.
fn shown_from_then_on(browser: &mut Browser, unix_ms: i64) {
    let noted = browser.evaluate("JSON.stringify(window.contents)").expect("read");
    let noted: Vec<(i64, bool)> = serde_json::from_str(noted.as_str().expect("text")).expect("pairs");
    assert!(noted.iter().any(|(made, _)| *made > unix_ms), "{noted:?}");
    let late: Vec<_> = noted.iter().filter(|(made, holds)| *made > unix_ms && !holds).collect();
    assert!(late.is_empty(), "true since {unix_ms}, and not in {late:?} of {noted:?}");
}

fn an_hour_turns_complete(scene: &mut Monitored, browser: &mut Browser) {
    let state = format!("document.querySelector('tbody td:nth-child({}) .hour')?.className", 3 + 7);
    browser.open(&scene.url("/hours?day=20161219")).expect("opened");
    browser.wait("there are no hours", &format!("{state} === undefined")).expect("seen");
    let lines = many_lines(1, 2_000);
    std::fs::write(scene.relay.dir.path().join(format!("app.log.{HOUR}")), &lines).expect("written");
    browser.wait("the hour is complete", &format!("{state} === 'hour complete'")).expect("seen");
    let words = browser.evaluate("document.querySelector('.hour.complete[title]').title").expect("read");
    let count = lines.iter().filter(|byte| **byte == b'\n').count();
    assert!(words.as_str().is_some_and(|words| words.contains(&format!("{count} lines"))), "{words}");
    let told = scene.api("/api/hours?day=20161219&state=complete");
    assert_eq!((&told["hours"][0]["host"], &told["hours"][0]["lines"]), (&"web-1".into(), &count.into()));
}

fn a_phone_reads_on_while_the_page_renews_itself(scene: &Monitored, browser: &mut Browser) {
    browser.size(390, 844).expect("sized");
    browser.open(&scene.url("/nodes")).expect("opened");
    let fits =
        "[...document.querySelectorAll('.scroll')].every(table => table.scrollWidth <= table.clientWidth)";
    assert_eq!(browser.evaluate(fits).expect("measured"), true, "nodes are wider than the window");
    let labels = "[...document.querySelectorAll('td[data-label]')].every(cell => cell.getBoundingClientRect().right <= innerWidth)";
    assert_eq!(browser.evaluate(labels).expect("measured"), true);
    browser.open(&scene.url("/hours")).expect("opened");
    let scrolled = "document.querySelector('.scroll').scrollLeft";
    browser.evaluate(&format!("{scrolled} = 150")).expect("scrolled");
    browser
        .evaluate("window.seen = Number(document.documentElement.dataset.renewals); window.cell = document.querySelector('.hour')")
        .expect("noted");
    browser
        .wait("it renews itself", "Number(document.documentElement.dataset.renewals) > window.seen + 1")
        .expect("renewed");
    assert_eq!(browser.evaluate(scrolled).expect("measured"), 150);
    assert_eq!(browser.evaluate("window.cell.isConnected").expect("known"), true);
    browser.size(1_280, 900).expect("sized");
}

fn a_killed_node_turns_red(scene: &mut Monitored, browser: &mut Browser) {
    browser.open(&scene.url("/")).expect("opened");
    let red = "[...document.querySelectorAll('.flow li.bad')].some(node => node.innerText.includes('collector-0') \
               && node.querySelector('.state.silent'))";
    assert_eq!(browser.evaluate(red).expect("seen"), false);
    // whoever is about to follow a link goes on to be told
    let focus = "[...document.querySelectorAll('.flow a')].find(link => link.innerText.includes('collector-0')).focus(), \
                 (window.focused = document.activeElement).tagName";
    assert_eq!(browser.evaluate(focus).expect("focused"), "A");
    note_contents(browser, red);
    scene.relay.collectors[0].kill();
    browser.wait("the killed node is red", red).expect("seen");
    let nodes = scene.api("/api/nodes");
    let node = nodes.as_array().expect("a list").iter().find(|node| node["name"] == "collector-0");
    let ms = |key: &str| node.expect("known")[key].as_i64().expect("a time");
    let silent_ms = ms("since_ms") - ms("seen_ms");
    assert!(
        (0..=CHECK_MS + PROBE_MS).contains(&silent_ms),
        "silent {silent_ms} ms after its last sign of life"
    );
    shown_from_then_on(browser, ms("since_ms"));
    let is_kept = "document.activeElement === window.focused && window.focused.isConnected";
    assert_eq!(browser.evaluate(is_kept).expect("known"), true, "the focus went away");
    let blocks = "document.querySelector('.note.bad').innerText.includes('collector-0')";
    browser.wait("and is where to look first", blocks).expect("seen");
    browser.open(&scene.url("/alerts")).expect("opened");
    let alert = "document.querySelector('table tbody').innerText.includes('node silent')";
    browser.wait("an alert is open", alert).expect("seen");
    scene.relay.collectors[0].start_and_wait();
    let over = "document.querySelector('table tbody').innerText.trim() === 'none'";
    browser.wait("and over when it is back", over).expect("seen");
}

fn texts_stay_texts(scene: &Monitored, browser: &mut Browser) {
    let_hostile_nodes_speak(scene);
    let nodes = scene.api("/api/nodes");
    let ids = nodes.as_array().expect("a list").iter().filter_map(|node| node["id"].as_str());
    let of_nodes = ids.filter(|id| id.starts_with("hostile")).map(|id| format!("/node?id={id}"));
    for path in ["/", "/nodes", "/errors", "/alerts", "/hours"].map(str::to_owned).into_iter().chain(of_nodes)
    {
        browser.open(&scene.url(&path)).expect("opened");
        let foreign = "document.querySelectorAll('img, iframe, [onerror], [onmouseover], script:not([src=\"/live.js\"])').length";
        assert_eq!(browser.evaluate(foreign).expect("counted"), 0, "{path}");
        let wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
        assert_eq!(browser.evaluate(wide).expect("measured"), true, "{path} is wider than the window");
        if path == "/errors" {
            for text in HOSTILE {
                let seen = format!("document.body.textContent.includes({})", serde_json::json!(text));
                assert_eq!(browser.evaluate(&seen).expect("read"), true, "{text}");
            }
        }
    }
}

fn errors_are_filtered(scene: &Monitored, browser: &mut Browser) {
    browser.open(&scene.url("/errors")).expect("opened");
    let all = browser.evaluate("document.querySelectorAll('tbody tr').length").expect("counted");
    assert!(all.as_u64() > Some(1), "{all}");
    let fill =
        format!("document.querySelector('input[name=text]').value = {}", serde_json::json!(HOSTILE[1]));
    browser.evaluate(&fill).expect("filled in");
    browser.evaluate("document.querySelector('form').requestSubmit()").expect("sent");
    let filtered = "location.search.includes('text=') && document.querySelectorAll('tbody tr').length === 1 \
                    && document.querySelector('td.text').textContent.includes('onerror')";
    browser.wait("one error is left", filtered).expect("seen");
    let kept =
        format!("document.querySelector('input[name=text]').value === {}", serde_json::json!(HOSTILE[1]));
    assert_eq!(browser.evaluate(&kept).expect("read"), true);
}

fn take_pictures(scene: &Monitored, browser: &mut Browser) {
    let folder = pictures();
    let nodes = scene.api("/api/nodes");
    let outputter = nodes.as_array().expect("a list").iter().find(|node| node["role"] == "outputter");
    let node = format!("/node?id={}", outputter.and_then(|node| node["id"].as_str()).expect("an id"));
    for (name, path) in
        [("overview", "/"), ("nodes", "/nodes"), ("node", &node), ("hours", "/hours"), ("errors", "/errors")]
    {
        for scheme in ["light", "dark"] {
            for (width, height, size) in [(1_280, 900, "wide"), (390, 844, "narrow")] {
                browser.size(width, height).expect("sized");
                browser.scheme(scheme).expect("set");
                browser.open(&scene.url(path)).expect("opened");
                let is_wider = "document.documentElement.scrollWidth > document.documentElement.clientWidth";
                assert_eq!(
                    browser.evaluate(is_wider).expect("measured"),
                    false,
                    "{name} does not fit into {width} pixels"
                );
                browser.screenshot(&folder.join(format!("{name}-{scheme}-{size}.png"))).expect("written");
            }
        }
    }
    browser.size(1_280, 900).expect("sized");
    browser.scheme("light").expect("set");
}
