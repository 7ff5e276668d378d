//! The alerts: what is open, and the history.

use super::page::{frame, text, time};
use crate::alerts::{AlertRow, AlertState};
use crate::monitor::Monitor;
use axum::Json;
use axum::extract::{Query, State};
use axum::response::Html;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Changes of the history that one answer has when nothing else is asked for.
const HISTORY: usize = 200;
const NAME_CHARS: usize = 120;
const TEXT_CHARS: usize = 400;

/// How much of the history is wanted.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct HowMany {
    limit: Option<usize>,
}

/// The answer of /api/alerts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AlertsView {
    /// What was announced and is not over, oldest first.
    pub open: Vec<AlertRow>,
    /// The latest changes, newest first.
    pub history: Vec<AlertRow>,
}

fn view(monitor: &Monitor, limit: usize) -> AlertsView {
    let book = monitor.alerts.book();
    let mut open: Vec<AlertRow> = book.open().map(|(_, row)| row.clone()).collect();
    open.sort_by_key(|row| row.id);
    AlertsView { open, history: book.history().take(limit).cloned().collect() }
}

pub(super) async fn api(
    State(monitor): State<Arc<Monitor>>,
    Query(wanted): Query<HowMany>,
) -> Json<AlertsView> {
    Json(view(&monitor, wanted.limit.unwrap_or(HISTORY)))
}

pub(super) async fn page(State(monitor): State<Arc<Monitor>>) -> Html<String> {
    let alerts = view(&monitor, HISTORY);
    let live = html! {
        h1 { "Alerts" }
        section { h2 { "Open" } (table("Open alerts", &alerts.open)) }
        section { h2 { "History" } (table("History of alerts", &alerts.history)) }
    };
    frame("Alerts", "/alerts", &html! {}, &live)
}

/// For the overview: how many are open, and the first of them.
pub(super) fn note(monitor: &Monitor) -> Markup {
    let alerts = view(monitor, 0);
    html! {
        @if let Some(first) = alerts.open.first() {
            p.note.bad {
                a href="/alerts" { (alerts.open.len()) @if alerts.open.len() == 1 { " open alert" } @else { " open alerts" } }
                ": " (first.kind) ", " (text(&first.subject, NAME_CHARS)) ": " (text(&first.text, TEXT_CHARS))
            }
        }
    }
}

fn table(name: &str, rows: &[AlertRow]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(name) {
            table.errors {
                thead { tr { @for column in ["Time", "State", "Kind", "About", "Text", "Webhooks"] { th scope="col" { (column) } } } }
                tbody {
                    @for row in rows {
                        tr {
                            td { (time(row.unix_ms)) }
                            td { (state(row.state)) }
                            td { (text(&row.kind, NAME_CHARS)) }
                            td { (text(&row.subject, NAME_CHARS)) }
                            td.text { (text(&row.text, TEXT_CHARS)) }
                            td { @for (webhook, outcome) in &row.delivery { p { (text(webhook, NAME_CHARS)) ": " (outcome) } } }
                        }
                    }
                    @if rows.is_empty() { tr { td colspan="6" { "none" } } }
                }
            }
        }
    }
}

fn state(state: AlertState) -> Markup {
    let class = match state {
        AlertState::Raised => "silent",
        AlertState::Resolved => "up",
    };
    html! { span class={ "state " (class) } { (state.word()) } }
}
