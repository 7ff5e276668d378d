//! A node that an operator takes out because it is gone for good: found by what people call it, and kept while it lives, unless they insist.

use super::said::TEXT_CHARS_MAX;
use super::{Change, ErrorEntry, Node, NodeRow, Now, Registry, State, clip};
use logferry_node::config::nearest;
use serde::{Deserialize, Serialize};

/// Namesakes that are named.
const NAMESAKES_MAX: usize = 20;

/// A node that was taken out, as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// What it was known by.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: String,
    /// `ip:port` of its heartbeat port.
    pub addr: String,
    /// What it was: `up`, `silent`, `left`.
    pub state: State,
    /// When it would be back, for people.
    pub note: String,
}

/// Why no node was taken out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotForgotten {
    /// There is none of this id, address or name.
    #[error("no node is called \"{name}\"{}", did_you_mean(.near))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What was probably meant.
        near: Option<String>,
    },
    /// Several nodes have this name or address.
    #[error("{} nodes are called \"{name}\": say the id of one of them", .namesakes.len())]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// Their ids, each with who it is.
        namesakes: Vec<String>,
    },
    /// It lives, and would be back.
    #[error("{0} is up: stop it first, or insist with force")]
    Alive(String),
}

fn did_you_mean(near: &Option<String>) -> String {
    near.as_ref().map_or(String::new(), |near| format!("; did you mean \"{near}\"?"))
}

impl Registry {
    /// Takes out the node of this id, else of this address, else of this name.
    ///
    /// # Errors
    /// There is none, there are several, or it is up and nobody insists.
    pub fn forget_called(&mut self, name: &str, force: bool) -> Result<(Forgotten, Change), NotForgotten> {
        let node = self.called(name)?;
        if node.row.state == State::Up && !force {
            return Err(NotForgotten::Alive(who(node)));
        }
        let (id, role, addr) = (node.row.id.clone(), node.row.role.clone(), node.address());
        let (state, name, note) = (node.row.state, node.row.name.clone(), note(node).to_owned());
        let unknown = NotForgotten::Unknown { name: id.clone(), near: None };
        let change = self.forget(&id).ok_or(unknown)?;
        Ok((Forgotten { id, name, role, addr, state, note }, change))
    }

    /// The row of a node that has left could not be deleted from the legacy table.
    pub fn row_kept(&mut self, row: NodeRow, why: &str, now: Now) -> Change {
        let text = format!(
            "it has left, and its row of registered_node cannot be deleted ({why}): the row is passed over while it is as it is; grant DELETE, or delete it by hand"
        );
        let entry = ErrorEntry {
            unix_ms: now.unix_ms,
            ip: row.ip,
            port: row.port,
            role: row.role,
            name: row.name,
            kind: "legacy row".to_owned(),
            text: clip(&text, TEXT_CHARS_MAX),
            node: row.id,
        };
        self.keep(entry.clone());
        Change::Error(entry)
    }

    /// All nodes are to be stored again.
    pub fn owe_nodes(&mut self) {
        self.nodes.values_mut().for_each(|node| node.owed = true);
    }

    fn called(&self, name: &str) -> Result<&Node, NotForgotten> {
        if let Some(node) = self.node(name) {
            return Ok(node);
        }
        let of_address = |node: &&Node| node.row.port > 0 && node.address() == name;
        let mut found: Vec<&Node> = self.nodes().filter(of_address).collect();
        if found.is_empty() {
            found = self.nodes().filter(|node| node.row.name == name).collect();
        }
        match found[..] {
            [node] => Ok(node),
            [] => {
                let known = self.nodes().flat_map(|node| [node.row.name.as_str(), node.row.id.as_str()]);
                let near = nearest(name, known).map(str::to_owned);
                Err(NotForgotten::Unknown { name: name.to_owned(), near })
            }
            _ => {
                let namesake =
                    |node: &&Node| format!("{}: {}, {}", node.row.id, who(node), node.row.state.word());
                let namesakes = found.iter().take(NAMESAKES_MAX).map(namesake).collect();
                Err(NotForgotten::Ambiguous { name: name.to_owned(), namesakes })
            }
        }
    }
}

fn who(node: &Node) -> String {
    format!("{} {} ({})", node.row.role, node.row.name, node.address())
}

/// Legacy nodes say who they are only when they start.
fn note(node: &Node) -> &'static str {
    match node.row.version.is_empty() {
        true => "a legacy node that still runs registers when it is started again, and not before",
        false => "if it still runs, it registers anew with its next heartbeat",
    }
}
