//! What tells one node from another of the same name: an id that belongs to its `var_dir`.

use logferry_durable::{RealDisk, replace};
use std::io::{self, Read};
use std::path::Path;

/// File in `var_dir` with the id.
const INSTANCE_FILE: &str = "instance";
/// Hex digits of an id.
const INSTANCE_DIGITS: usize = 32;

/// The id of this `var_dir`, made at the first start. Where it cannot be stored it lasts for this run.
pub(crate) fn instance(var_dir: &Path) -> String {
    let file = var_dir.join(INSTANCE_FILE);
    if let Ok(text) = std::fs::read_to_string(&file) {
        let text = text.trim();
        if text.len() == INSTANCE_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return text.to_owned();
        }
    }
    let id = new_id().unwrap_or_else(|_| format!("{:032x}", u128::from(std::process::id())));
    if let Err(error) = replace(&RealDisk, &file, format!("{id}\n").as_bytes()) {
        tracing::debug!(%error, file = %file.display(), "this node's id cannot be stored");
    }
    id
}

fn new_id() -> io::Result<String> {
    let mut bytes = [0; INSTANCE_DIGITS / 2];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_id_and_another_folder_has_another() {
        let (one, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let id = instance(one.path());
        assert_eq!(instance(one.path()), id);
        assert_ne!(instance(other.path()), id);
        std::fs::write(one.path().join(INSTANCE_FILE), "<script>").expect("written");
        assert_eq!(instance(one.path()).len(), INSTANCE_DIGITS);
    }
}
