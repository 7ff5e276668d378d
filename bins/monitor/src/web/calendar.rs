//! The completeness calendar: a day's hours by host and source.

use super::page::{frame, text};
use super::view::bytes as bytes_of;
use crate::alerts::conditions::runs;
use crate::monitor::Monitor;
use crate::registry::{HourView, covered};
use axum::Json;
use axum::extract::{Query, State};
use axum::response::Html;
use jiff::ToSpan;
use jiff::civil::Date;
use logferry_node::monitor::hours::HourState;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Rows of one page.
const ROWS_MAX: usize = 200;
/// Hours of one answer of /api/hours, unless fewer or more are asked for.
const HOURS: usize = 2_400;
/// Most hours of one answer.
const HOURS_MAX: usize = 20_000;

/// What the page's form offers of [`HourFilter::state`].
const STATES: [(&str, &str); 7] = [
    ("", "in any state"),
    ("incomplete", "not complete"),
    ("missing", "that miss packs"),
    ("unclosed", "never closed"),
    ("late", "with late lines"),
    ("open", "running"),
    ("complete", "complete"),
];

/// Which hours are asked for: the same words in the page's form and in /api/hours. Empty texts ask for nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct HourFilter {
    /// Part of the host's name, in any case.
    pub(super) host: String,
    /// Source, whole.
    pub(super) source: String,
    /// `YYYYMMDD` or `YYYY-MM-DD`; the page takes the newest day that there is.
    pub(super) day: String,
    /// `complete`, `open`, `late`, `unclosed`, `missing`; `incomplete` is all but `complete` and `open`.
    pub(super) state: String,
    /// At most so many hours.
    pub(super) limit: Option<usize>,
}

/// The answer of /api/hours.
#[derive(Serialize)]
pub(super) struct HoursAnswer {
    hours: Vec<HourView>,
    /// There are more.
    truncated: bool,
}

impl HourFilter {
    fn date(&self) -> Option<Date> {
        let digits: String = self.day.chars().filter(char::is_ascii_digit).collect();
        date_of(digits.parse().ok()?)
    }

    fn wants(&self, hour: &HourView) -> bool {
        self.wants_state(hour.state) && self.wants_row(hour)
    }

    fn wants_state(&self, state: HourState) -> bool {
        match self.state.as_str() {
            "" => true,
            "incomplete" => !matches!(state, HourState::Complete | HourState::Open),
            wanted => wanted == state_word(state),
        }
    }

    fn wants_row(&self, hour: &HourView) -> bool {
        (self.source.is_empty() || self.source == hour.source)
            && (self.host.is_empty() || hour.host.to_lowercase().contains(&self.host.to_lowercase()))
    }
}

/// Of `YYYYMMDD`.
fn date_of(day: u32) -> Option<Date> {
    let part = |value: u32| i8::try_from(value).ok();
    Date::new(i16::try_from(day / 10_000).ok()?, part(day / 100 % 100)?, part(day % 100)?).ok()
}

fn number(date: Date) -> u32 {
    u32::try_from(i32::from(date.year()) * 10_000 + i32::from(date.month()) * 100 + i32::from(date.day()))
        .unwrap_or(0)
}

/// The first and the last hour of a day; years far ahead have none.
fn hours_of(day: u32) -> (u32, u32) {
    let first = day.saturating_mul(100);
    (first, first.saturating_add(23))
}

fn state_word(state: HourState) -> &'static str {
    match state {
        HourState::Complete => "complete",
        HourState::Open => "open",
        HourState::Late => "late",
        HourState::Unclosed => "unclosed",
        HourState::Missing => "missing",
    }
}

pub(super) async fn api(
    State(monitor): State<Arc<Monitor>>,
    Query(filter): Query<HourFilter>,
) -> Result<Json<HoursAnswer>, (axum::http::StatusCode, &'static str)> {
    let (first, last) = match filter.date().map(number) {
        Some(day) => hours_of(day),
        None if filter.day.is_empty() => (0, u32::MAX),
        None => return Err((axum::http::StatusCode::BAD_REQUEST, "day: YYYYMMDD is expected\n")),
    };
    let limit = filter.limit.unwrap_or(HOURS).min(HOURS_MAX);
    let registry = monitor.registry();
    // the newest first, so that a limit leaves out the oldest
    let mut wanted = registry.hours().between(first, last).rev().filter(|hour| filter.wants(hour));
    let hours = wanted.by_ref().take(limit).collect();
    Ok(Json(HoursAnswer { hours, truncated: wanted.next().is_some() }))
}

type Rows = BTreeMap<(String, String), [Option<HourView>; 24]>;

/// The rows of a day that have an hour in the wanted state, with all their hours, and whether there are more than are shown.
fn rows(monitor: &Monitor, filter: &HourFilter, day: u32) -> (Rows, bool) {
    let registry = monitor.registry();
    let (first, last) = hours_of(day);
    let of_day = || registry.hours().between(first, last).filter(|hour| filter.wants_row(hour));
    let row_of = |hour: &HourView| (hour.host.clone(), hour.source.clone());
    let wanted: BTreeSet<_> =
        of_day().filter(|hour| filter.wants_state(hour.state)).map(|hour| row_of(&hour)).collect();
    let has_more = wanted.len() > ROWS_MAX;
    let mut rows: Rows = wanted.into_iter().take(ROWS_MAX).map(|row| (row, Default::default())).collect();
    for hour in of_day() {
        let Some(row) = rows.get_mut(&row_of(&hour)) else { continue };
        let place = usize::try_from(hour.hour % 100).unwrap_or(0);
        if let Some(cell) = row.get_mut(place) {
            *cell = Some(hour);
        }
    }
    (rows, has_more)
}

pub(super) async fn page(
    State(monitor): State<Arc<Monitor>>,
    Query(filter): Query<HourFilter>,
) -> Html<String> {
    let newest = monitor.registry().hours().newest().and_then(|hour| date_of(hour / 100));
    let date = filter.date().or(newest).unwrap_or_else(|| jiff::Zoned::now().date());
    let (rows, has_more) = rows(&monitor, &filter, number(date));
    let shown = date.to_string();
    let form = html! {
        h1 { "Hours" }
        form method="get" action="/hours" {
            label { "Host " input type="search" name="host" value=(filter.host) dir="auto" maxlength="300"; }
            label { "Source " input type="search" name="source" value=(filter.source) dir="auto" maxlength="300"; }
            label { "Day " input type="date" name="day" value=(shown); }
            label { "With hours " select name="state" {
                @for (state, word) in STATES { option value=(state) selected[state == filter.state] { (word) } }
            } }
            button type="submit" { "Show" }
            a href="/hours" { "newest" }
        }
    };
    let live = html! {
        (legend(&rows))
        nav.days aria-label="Days" {
            @for (days, word) in [(-1, "← the day before"), (1, "the day after →")] {
                @if let Ok(other) = date.checked_add(days.days()) {
                    a href=(link(&filter, other)) { (word) }
                }
            }
        }
        (table(&rows, &shown))
        @if has_more { p.note { "Only " (ROWS_MAX) " rows are shown: ask for a host or a source." } }
        (kept(&monitor, date))
    };
    frame("Hours", "/hours", &form, &live)
}

/// Says that older hours are not shown because they are not kept.
fn kept(monitor: &Monitor, shown: Date) -> Markup {
    let days = monitor.config.check.keep_hours.0.as_secs() / 86_400;
    let first = date_of(monitor.first_hour_kept() / 100);
    html! {
        p.note {
            @if first.is_some_and(|first| shown < first) { "This day is not kept any more. " }
            "Hours are kept for " (days) " days (keep_hours in [check])"
            @if let Some(first) = first { ": nothing is shown of days before " (first) }
            "."
        }
    }
}

fn link(filter: &HourFilter, date: Date) -> String {
    let escaped = super::page::query_text;
    let HourFilter { host, source, state, .. } = filter;
    format!("/hours?day={date}&host={}&source={}&state={}", escaped(host), escaped(source), escaped(state))
}

/// How an hour is drawn: class, sign, words. The sign alone tells, without colour.
fn cell(hour: Option<&HourView>) -> (&'static str, String, String) {
    let Some(hour) = hour else { return ("none", "·".into(), "none".into()) };
    let figures = format!("{} packs, {} lines, {}", hour.packs, hour.lines, bytes_of(hour.bytes));
    match hour.state {
        HourState::Complete => ("complete", "✔".into(), format!("complete: {figures}")),
        HourState::Open => ("open", "…".into(), format!("running: {figures} at the last change")),
        HourState::Late => ("late", "+".into(), format!("complete, and more has come since: {figures}")),
        HourState::Unclosed => ("unclosed", "?".into(), format!("over, but never closed: {figures}")),
        HourState::Missing => {
            let more = if hour.missing_packs > covered(&hour.missing) { ", …" } else { "" };
            let ids = format!("{}{more}", runs(&hour.missing));
            let sign = if hour.missing_packs > 0 {
                format!("✖{}", short(hour.missing_packs))
            } else {
                "✖".into()
            };
            ("missing", sign, format!("missing {} packs: {ids}; there: {figures}", hour.missing_packs))
        }
    }
}

/// In at most three characters.
fn short(count: u64) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..100_000 => format!("{}k", count / 1_000),
        _ => "∞".to_owned(),
    }
}

fn legend(rows: &Rows) -> Markup {
    let cells = || rows.values().flatten().flatten();
    let count = |state: HourState| cells().filter(|hour| hour.state == state).count();
    html! {
        ul.legend aria-label="What the signs mean" {
            @for (class, sign, word, state) in [
                ("complete", "✔", "complete", HourState::Complete),
                ("open", "…", "running", HourState::Open),
                ("missing", "✖3", "packs missing", HourState::Missing),
                ("unclosed", "?", "over, never closed", HourState::Unclosed),
                ("late", "+", "more came later", HourState::Late),
            ] {
                li { span class={ "hour " (class) } { (sign) } " " (word) ": " (count(state)) }
            }
            li { span.hour.none { "·" } " none" }
        }
    }
}

fn table(rows: &Rows, day: &str) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Hours by host and source" {
            table.calendar {
                caption { "Hours of " (day) ", by the clock of each host" }
                thead { tr {
                    th scope="col" { "Host" } th scope="col" { "Source" }
                    @for hour in 0..24 { th.h scope="col" { (format!("{hour:02}")) } }
                } }
                tbody {
                    @for ((host, source), hours) in rows {
                        tr {
                            th scope="row" { (text(host, 40)) }
                            td { (text(source, 40)) }
                            @for hour in hours {
                                @let (class, sign, words) = cell(hour.as_ref());
                                td.h { span class={ "hour " (class) } title=(words) role="img" aria-label=(words) { (sign) } }
                            }
                        }
                    }
                    @if rows.is_empty() { tr { td colspan="26" { "none" } } }
                }
            }
        }
        @let missing: Vec<_> = rows.values().flatten().flatten().filter(|hour| hour.state == HourState::Missing).collect();
        @if !missing.is_empty() {
            section {
                h2 { "What is missing" }
                ul.missing {
                    @for hour in missing.iter().take(ROWS_MAX) {
                        li { (text(&hour.host, 40)) " " (text(&hour.source, 40)) " " (hour.hour) ": " (cell(Some(hour)).2) }
                    }
                }
            }
        }
    }
}
