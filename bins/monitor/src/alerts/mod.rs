//! Alerts: what somebody should hear of, said once when it begins and once when it is over.
//!
//! [`conditions`] says what is wrong now; the [`Book`] compares that with what was announced and gives the changes; the
//! [`keeper`] stores them in `var_dir`, so that a restart repeats nothing, and [`webhook`] sends them.

pub mod book;
pub mod conditions;
mod delivery;
pub(crate) mod keeper;
pub(crate) mod settings;
pub(crate) mod webhook;

pub use book::{AlertRow, AlertState, Book};
pub use settings::{AlertSettings, WebhookFormat, WebhookSettings};
