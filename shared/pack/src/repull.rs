//! What the header of a pack says of the repull that ships it, beside `repull`, which packs without lines have, too.
//!
//! | key of `Route[0]` | meaning |
//! |---|---|
//! | `repull_job` | names the repull. Somebody waits for what the store says of the pack: no tier on the way answers for the store |
//! | `fewer_lines` | `1` on the last pack of a replacement: it may have fewer lines than what it replaces |
//!
//! Both are beyond wire.md. A node that does not know them passes them on.

use crate::Header;
use serde_json::Value;

const JOB_KEY: &str = "repull_job";
const FEWER_LINES_KEY: &str = "fewer_lines";

impl Header {
    /// Names the repull that ships the pack; `None` for a pack of a first delivery.
    pub fn repull_job(&self) -> Option<&str> {
        self.origin_rest.get(JOB_KEY).and_then(Value::as_str).filter(|_| self.repull)
    }

    /// Makes it the header of a pack of a repull.
    pub fn set_repull_job(&mut self, job: &str) {
        self.repull = true;
        self.origin_rest.insert(JOB_KEY.to_owned(), job.into());
    }

    /// Whether a replacement may have fewer lines than what it replaces.
    pub fn allows_fewer_lines(&self) -> bool {
        self.origin_rest.get(FEWER_LINES_KEY).and_then(Value::as_str) == Some("1")
    }

    /// Says that it may.
    pub fn allow_fewer_lines(&mut self) {
        self.origin_rest.insert(FEWER_LINES_KEY.to_owned(), "1".into());
    }
}
