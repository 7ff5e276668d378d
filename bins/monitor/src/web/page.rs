//! The page: complete without JavaScript; with it, what is in `#live` is renewed every second.

use super::api::Which;
use super::curves::curves;
use super::flow::{self, Tier};
use super::view::{self, NodeView, bytes, seconds};
use crate::monitor::Monitor;
use crate::registry::{ErrorEntry, Sample, State as NodeState, address, clip};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the page has.
const PAGES: [(&str, &str); 5] = [
    ("/", "Overview"),
    ("/nodes", "Nodes"),
    ("/hours", "Hours"),
    ("/errors", "Errors"),
    ("/alerts", "Alerts"),
];
/// Characters of a name in a table; all of it is on the node's own page.
const NAME_CHARS: usize = 60;
/// Characters of an error in a table; more of it is on hover, all of it in /api.
const TEXT_CHARS: usize = 600;
/// Characters of a text that a table has cut, on hover.
const TITLE_CHARS: usize = 1_500;
/// Errors on the overview.
const ERRORS_LATEST: usize = 10;
/// Nodes of a tier that the flow shows by name.
const FLOW_NODES: usize = 12;

pub(super) async fn overview(State(monitor): State<Arc<Monitor>>) -> Html<String> {
    // first: the page has all that is known by then
    let now = monitor.now().unix_ms;
    let nodes = view::all(&monitor);
    let errors = monitor.errors(ERRORS_LATEST, |_| true);
    let live = html! {
        // what comes and goes has a place of its own: nothing else moves in the tree when the page renews itself
        div data-made=(now) { (database_note(&monitor)) }
        div { (super::alerts::note(&monitor)) }
        (flow_section(&nodes))
        section {
            h2 { "Nodes" }
            (nodes_table(&nodes, now))
        }
        section {
            h2 { "Latest errors" }
            (errors_table(&errors))
            p { a href="/errors" { "All errors, with filters" } }
        }
    };
    frame("Overview", "/", &html! {}, &live)
}

pub(super) async fn nodes(State(monitor): State<Arc<Monitor>>) -> Html<String> {
    let nodes = view::all(&monitor);
    let now = monitor.now().unix_ms;
    let roles: BTreeSet<&str> = nodes.iter().map(|node| node.role.as_str()).collect();
    let live = html! {
        h1 { "Nodes" }
        @if nodes.is_empty() { (nodes_table(&[], now)) }
        @for role in roles {
            @let of_role: Vec<NodeView> = nodes.iter().filter(|node| node.role == role).cloned().collect();
            section data-key=(role) {
                h2 { (text(role, NAME_CHARS)) " (" (of_role.len()) ")" }
                (nodes_table(&of_role, now))
            }
        }
    };
    frame("Nodes", "/nodes", &html! {}, &live)
}

pub(super) async fn node(State(monitor): State<Arc<Monitor>>, Query(which): Query<Which>) -> Response {
    let Some(node) = view::all(&monitor).into_iter().find(|node| node.id == which.id) else {
        let gone = html! { h1 { "No such node" } p { "It may have been forgotten. " a href="/nodes" { "All nodes" } } };
        return (StatusCode::NOT_FOUND, frame("No such node", "/nodes", &html! {}, &gone)).into_response();
    };
    let samples: Vec<Sample> =
        monitor.registry().node(&node.id).into_iter().flat_map(|node| node.samples.all().copied()).collect();
    // Entries of earlier versions do not say which of two namesakes they are of.
    let is_its = |entry: &ErrorEntry| match entry.node.as_str() {
        "" => entry.name == node.name && entry.role == node.role,
        id => id == node.id,
    };
    let errors = monitor.errors(100, is_its);
    let live = html! {
        h1 { (text(&node.name, usize::MAX)) " " (state(&node)) }
        dl {
            @for (term, value) in details(&node, monitor.now().unix_ms) {
                dt { (term) } dd { (text(&value, usize::MAX)) }
            }
        }
        (curves(&samples, monitor.now().unix_ms))
        section {
            h2 { "Its errors" }
            (errors_table(&errors))
            p { a href={ "/errors?all=true&node=" (query_text(&node.name)) } { "Older ones of its name" } }
        }
    };
    frame("Node", "/nodes", &html! {}, &live).into_response()
}

pub(super) fn frame(title: &str, here: &str, fixed: &Markup, live: &Markup) -> Html<String> {
    framed(title, here, fixed, Some(live))
}

/// A page that does not renew itself has no `live` part.
pub(super) fn framed(title: &str, here: &str, fixed: &Markup, live: Option<&Markup>) -> Html<String> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " – Logferry" }
                link rel="stylesheet" href="/style.css";
                link rel="icon" href="/icon.svg";
                @if live.is_some() { script src="/live.js" defer {} }
            }
            body {
                a.skip href="#main" { "To the content" }
                header {
                    strong { "Logferry" }
                    nav aria-label="Pages" {
                        @for (path, name) in PAGES {
                            a href=(path) aria-current=[(path == here).then_some("page")] { (name) }
                        }
                    }
                    span #stale role="status" {}
                }
                main #main { (fixed) @if let Some(live) = live { div #live { (live) } } }
                footer { "logferry-monitor " (env!("CARGO_PKG_VERSION")) " · " a href="/api/nodes" { "/api" } " · "
                    a href="/api/openapi.json" { "OpenAPI" } " · " a href="/metrics" { "/metrics" } }
            }
        }
    };
    Html(page.into_string())
}

/// A text of somebody else.
pub(super) fn text(value: &str, chars_max: usize) -> Markup {
    let shown = if chars_max == usize::MAX { value.to_owned() } else { clip(value, chars_max) };
    let is_cut = shown.len() != value.len();
    html! { bdi title=[is_cut.then(|| clip(value, TITLE_CHARS))] { (shown) } }
}

fn database_note(monitor: &Monitor) -> Markup {
    let problems = monitor.status().problems;
    html! { @for problem in problems { p.note.bad role="alert" { (text(&problem, TEXT_CHARS)) } } }
}

fn flow_section(nodes: &[NodeView]) -> Markup {
    let tiers = flow::tiers(nodes);
    html! {
        section aria-labelledby="flow" {
            h1 #flow { "The relay" }
            @match flow::blocking(nodes) {
                Some((node, why)) => p.note.bad {
                    "Look here first: " (node.tier) " " a href=(link(node)) { (text(&node.name, NAME_CHARS)) } " – " (text(&why, TEXT_CHARS))
                },
                None if nodes.is_empty() => p.note { "No node has registered yet. Set monitor in [node] of their configurations to this monitor's address." },
                None => p.note.good { "Nothing blocks." },
            }
            ol.flow { @for tier in &tiers { (tier_card(tier)) } }
        }
    }
}

fn tier_card(tier: &Tier<'_>) -> Markup {
    html! {
        li {
            h2 { (tier.name) "s" }
            p.sum {
                strong { (bytes(tier.rate_bytes)) "/s" }
                span { "waiting " (bytes(tier.lag_bytes)) }
                span { "spool " (bytes(tier.spool_bytes)) }
            }
            ul {
                @for node in tier.nodes.iter().take(FLOW_NODES) {
                    li data-key=(node.id) class=[node.is_troubled().then_some("bad")] {
                        (state(node)) " " a href=(link(node)) { (text(&node.name, NAME_CHARS)) }
                        span.rate { (rate(node)) }
                    }
                }
                @if tier.nodes.len() > FLOW_NODES { li { a href="/nodes" { "and " (tier.nodes.len() - FLOW_NODES) " more" } } }
                @if tier.nodes.is_empty() { li.none { "none" } }
            }
        }
    }
}

fn nodes_table(nodes: &[NodeView], now_ms: i64) -> Markup {
    let columns = ["State", "Name", "Role", "Waiting", "Rate", "Spool", "Version", "Last seen", "Problems"];
    let rows = html! { @for node in nodes { (node_row(node, now_ms)) } };
    stacking_table("nodes", "Table of nodes", &columns, &rows, nodes.is_empty())
}

/// A table whose rows become blocks where the window is narrow. The roles are said because blocks are no rows to a browser.
fn stacking_table(class: &str, label: &str, columns: &[&str], rows: &Markup, is_empty: bool) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(label) {
            table class={ "stack " (class) } role="table" {
                thead role="rowgroup" {
                    tr role="row" { @for column in columns { th scope="col" role="columnheader" { (column) } } }
                }
                tbody role="rowgroup" {
                    (rows)
                    @if is_empty { tr role="row" { td role="cell" colspan=(columns.len()) { "none" } } }
                }
            }
        }
    }
}

fn node_row(node: &NodeView, now_ms: i64) -> Markup {
    html! {
        tr role="row" data-key=(node.id) class=[node.is_troubled().then_some("bad")] {
            td role="cell" { (state(node)) }
            th scope="row" role="rowheader" {
                a href=(link(node)) { (text(&node.name, NAME_CHARS)) } " " small { (text(&node.addr, NAME_CHARS)) }
            }
            td role="cell" data-label="Role" { (text(&node.role, NAME_CHARS)) }
            td role="cell" data-label="Waiting" { (lag(node)) }
            td role="cell" data-label="Rate" { (rate(node)) }
            td role="cell" data-label="Spool" { (node.spool_bytes.map_or_else(|| "–".to_owned(), bytes)) }
            td role="cell" data-label="Version" { (text(&node.version, NAME_CHARS)) }
            td role="cell" data-label="Seen" { (node.seen_ms.map_or_else(|| "–".to_owned(), |seen| ago(seen, now_ms))) }
            td.text role="cell" { @for problem in &node.problems { p { (text(problem, TEXT_CHARS)) } } }
        }
    }
}

pub(super) fn errors_table(errors: &[ErrorEntry]) -> Markup {
    let rows = html! {
        @for error in errors {
            tr role="row" {
                td role="cell" { (time(error.unix_ms)) }
                td role="cell" { (text(&error.kind, NAME_CHARS)) }
                td role="cell" { (text(&error.role, NAME_CHARS)) }
                td role="cell" { (text(&error.name, NAME_CHARS)) " " small { (text(&address(&error.ip, error.port), NAME_CHARS)) } }
                td.text role="cell" { (text(&error.text, TEXT_CHARS)) }
            }
        }
    };
    stacking_table(
        "errors",
        "Table of errors",
        &["Time", "Kind", "Role", "Node", "Text"],
        &rows,
        errors.is_empty(),
    )
}

fn state(node: &NodeView) -> Markup {
    let word = node.state.word();
    let (class, word) = match node.state {
        NodeState::Up if node.is_troubled() => ("troubled", "up, with problems"),
        _ => (word, word),
    };
    html! { span class={ "state " (class) } { (word) } }
}

fn link(node: &NodeView) -> String {
    format!("/node?id={}", query_text(&node.id))
}

/// A text as it stands in an address.
pub fn query_text(text: &str) -> String {
    let mut query = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => query.push(char::from(byte)),
            other => query.push_str(&format!("%{other:02X}")),
        }
    }
    query
}

fn lag(node: &NodeView) -> String {
    match (node.lag_bytes, node.lag_s) {
        (Some(count), Some(age)) if age > 0 => format!("{} for {}", bytes(count), seconds(age)),
        (Some(count), _) => bytes(count),
        _ => "–".to_owned(),
    }
}

fn rate(node: &NodeView) -> String {
    match (node.rate_bytes, node.rate_lines) {
        (Some(count), Some(lines)) => format!("{}/s, {lines} lines/s", bytes(count)),
        (Some(count), None) => format!("{}/s", bytes(count)),
        _ => "–".to_owned(),
    }
}

fn ago(unix_ms: i64, now_ms: i64) -> String {
    format!("{} ago", seconds(u64::try_from((now_ms - unix_ms) / 1000).unwrap_or(0)))
}

pub(super) fn time(unix_ms: i64) -> Markup {
    let stamp = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default();
    let local = stamp.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string();
    html! { time datetime=(stamp) { (local) } }
}

fn last_warning(node: &NodeView, now_ms: i64) -> Option<String> {
    let text = node.last_error.clone()?;
    Some(match node.last_error_ms {
        Some(logged) => format!("{}: {text}", ago(logged, now_ms)),
        None => text,
    })
}

fn details(node: &NodeView, now_ms: i64) -> Vec<(&'static str, String)> {
    let known = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    let since = seconds(u64::try_from((now_ms - node.since_ms) / 1000).unwrap_or(0));
    let mut details = vec![
        ("Role", node.role.clone()),
        ("Address", node.addr.clone()),
        ("Host", node.host.clone()),
        ("Version", node.version.clone()),
        ("In this state for", since),
        ("Last seen", known(node.seen_ms.map(|seen| ago(seen, now_ms)))),
        ("Up for", known(node.uptime_s.map(seconds))),
        ("Waiting", lag(node)),
        ("Rate", rate(node)),
        ("Spool", known(node.spool_bytes.map(bytes))),
        ("Last warning", known(last_warning(node, now_ms))),
        ("Id", node.id.clone()),
    ];
    // an id that a node has chosen is nothing to be pasted into a shell unless it is plain
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_');
    if node.state != NodeState::Up
        && node.id.starts_with(char::is_alphanumeric)
        && node.id.chars().all(is_plain)
    {
        details.push(("If it is gone for good", format!("ferryctl nodes --forget {}", node.id)));
    }
    details.extend(node.problems.iter().map(|problem| ("Problem", problem.clone())));
    details
}
