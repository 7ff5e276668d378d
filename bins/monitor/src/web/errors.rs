//! The error log: the latest entries from memory, and all others from the database when somebody asks for them.

use super::filter::Filter;
use super::page::{errors_table, frame, framed, text};
use super::view::ErrorView;
use crate::error_log::{Found, Rest};
use crate::monitor::Monitor;
use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Html;
use maud::{Markup, html};
use std::sync::Arc;

/// Header of an answer of /api/errors: what of older entries that are not in it.
pub const MORE: &str = "logferry-more";
/// Header of an answer of /api/errors: `before` of the question that goes on where this one ends.
pub const NEXT: &str = "logferry-next";

impl Rest {
    /// As [`MORE`] says it.
    pub fn word(&self) -> &'static str {
        match self {
            Rest::None => "no",
            Rest::Older | Rest::Below(_) => "yes",
            Rest::Away(_) => "database-away",
        }
    }
}

pub(super) async fn api(
    State(monitor): State<Arc<Monitor>>,
    Query(filter): Query<Filter>,
) -> (HeaderMap, Json<Vec<ErrorView>>) {
    let Found { entries, rest } = filter.find(&monitor).await;
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static(MORE), HeaderValue::from_static(rest.word()));
    if let Rest::Below(row) = rest {
        headers.insert(HeaderName::from_static(NEXT), row.into());
    }
    (headers, Json(entries.iter().map(ErrorView::from).collect()))
}

pub(super) async fn page(State(monitor): State<Arc<Monitor>>, Query(filter): Query<Filter>) -> Html<String> {
    let form = html! {
        h1 { "Errors" }
        form method="get" action="/errors" {
            @for (name, label, value) in [
                ("node", "Node", &filter.node),
                ("role", "Role", &filter.role),
                ("kind", "Kind", &filter.kind),
                ("text", "Text", &filter.text),
            ] {
                label { (label) " " input type="search" name=(name) value=(value) dir="auto" maxlength="300"; }
            }
            @if filter.is_of_all() { input type="hidden" name="all" value="true"; }
            button type="submit" { "Filter" }
            a href="/errors" { "all" }
        }
    };
    let found = filter.find(&monitor).await;
    let shown = html! { (errors_table(&found.entries)) (rest(&filter, &found.rest)) };
    match filter.is_of_all() {
        // it would ask the database each second
        true => framed("Errors", "/errors", &html! { (form) (shown) }, None),
        false => frame("Errors", "/errors", &form, &shown),
    }
}

/// What of the entries that are not shown.
fn rest(filter: &Filter, rest: &Rest) -> Markup {
    let older = |before, label| html! { p { a href={ "/errors" (filter.query(before)) } { (label) } } };
    match rest {
        Rest::None => html! {},
        Rest::Older => older(None, "There are older ones: show them from the database"),
        Rest::Below(row) => older(Some(*row), "Older ones"),
        Rest::Away(why) => html! {
            p.note.bad role="alert" { "Older ones are left out: the database does not answer (" (text(why, 600)) ")" }
        },
    }
}
