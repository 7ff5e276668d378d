//! What is done where the database is unlike what was written to it.

use super::Monitor;
use crate::registry::{Change, NodeRow, address};
use metrics::counter;

/// Hours that are written again at a time.
const HOURS_AGAIN: usize = 1_000;

impl Monitor {
    /// The row of a node that has left could not be deleted from the legacy table.
    pub(crate) async fn say_kept(&self, row: &NodeRow, why: &str) {
        let address = address(&row.ip, row.port);
        tracing::warn!(
            address,
            why,
            "a row of registered_node cannot be deleted: it is passed over while it is as it is"
        );
        let (row, why) = (row.clone(), why.to_owned());
        self.decide_or_owe(move |registry, now| vec![registry.row_kept(row, &why, now)]).await;
    }

    /// The database knows less than it once had, because it was replaced, or is an older one: what is known of nodes and hours goes to it again.
    pub(crate) async fn write_again(&self, applied: u64) {
        let written = self.journal.written_up_to();
        tracing::error!(
            applied,
            written,
            "the database has lost what was written to it: nodes and hours are written again, errors and alerts of before are not"
        );
        counter!("logferry_monitor_database_lost_total").increment(1);
        let hours = {
            let mut registry = self.registry();
            registry.owe_nodes();
            registry.hours().all().cloned().map(Change::Hour).collect::<Vec<_>>()
        };
        for part in hours.chunks(HOURS_AGAIN) {
            if let Err(error) = self.journal.append_of_nodes(part.to_vec()).await {
                tracing::error!(%error, "not all hours are written to the database again");
                return;
            }
        }
    }
}
