//! Logging to stderr as text or JSON, and a memory of the last warning for `/readyz`.

use crate::config::NodeSettings;
use crate::monitor::queue::ReportQueue;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

/// The last WARN or ERROR that was logged, as one line.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastProblem(Arc<Mutex<Option<(Instant, String)>>>);

/// Longest text that is kept, in bytes: it goes into every heartbeat.
const LAST_PROBLEM_BYTES_MAX: usize = 1024;

impl LastProblem {
    /// Its text, and when it was logged.
    pub(crate) fn get(&self) -> Option<(Instant, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, mut text: String) {
        if text.len() > LAST_PROBLEM_BYTES_MAX {
            let end = (0..=LAST_PROBLEM_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), text));
    }
}

/// Installs the process's subscriber. A process that has one (tests) keeps it.
pub(crate) fn init(settings: &NodeSettings, last: LastProblem, reports: Arc<ReportQueue>) {
    // the filter was checked when the configuration was read; a hand-made setting falls back to "info"
    let filter = EnvFilter::try_new(&settings.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    let watch = Watch { last, reports };
    let registry = tracing_subscriber::registry().with(filter).with(watch);
    let outcome = if settings.log_format == "json" {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()
    } else {
        let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
        registry.with(fmt::layer().with_ansi(colours).with_writer(std::io::stderr)).try_init()
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "another log subscriber is in place and stays");
    }
}

/// Counts events by level, remembers the last problem, and hands problems over for the monitor.
struct Watch {
    last: LastProblem,
    reports: Arc<ReportQueue>,
}

/// What is said about the way to the monitor is not sent to it: it would come when it is no longer true.
const NOT_REPORTED: &str = "logferry_node::monitor";

impl<S: Subscriber> Layer<S> for Watch {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let level = *event.metadata().level();
        metrics::counter!("logferry_log_messages_total", "level" => level_label(level)).increment(1);
        if level <= Level::WARN {
            let mut line = Line::default();
            event.record(&mut line);
            let text = format!("{}{}", line.message, line.fields);
            if !event.metadata().target().starts_with(NOT_REPORTED) {
                self.reports.push(if level == Level::ERROR { "ERROR" } else { "WARNING" }, &text);
            }
            self.last.set(format!("{level} {text}"));
        }
    }
}

fn level_label(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// An event as text: message, then ` key=value` for each field.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}
impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            name => {
                let _ = write!(self.fields, " {name}={value}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_warning_is_remembered_with_its_fields_and_infos_are_not() {
        let last = LastProblem::default();
        let subscriber =
            tracing_subscriber::registry().with(Watch { last: last.clone(), reports: Arc::default() });
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("fine");
            assert!(last.get().is_none());
            tracing::warn!(target = "a:1302", tries = 3, "cannot connect");
            tracing::info!("fine again");
        });
        let (_, text) = last.get().expect("a warning");
        assert_eq!(text, "WARN cannot connect target=a:1302 tries=3");
    }

    #[test]
    fn a_long_warning_is_cut_at_a_character() {
        let last = LastProblem::default();
        last.set("é".repeat(LAST_PROBLEM_BYTES_MAX));
        let (_, text) = last.get().expect("set");
        assert_eq!(text.chars().count(), LAST_PROBLEM_BYTES_MAX / 2 + 1);
        assert!(text.ends_with('…'));
    }
}
