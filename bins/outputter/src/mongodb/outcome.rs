//! What became of each document of a bulk write: pure, from what the server or the driver said.

/// What the server says of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteFault {
    /// Place in the bulk.
    pub index: usize,
    /// Code.
    pub code: i32,
    /// Text.
    pub message: String,
}

/// How a bulk write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BulkEnd {
    /// The server answered: these documents failed, and, if so, why the write concern was not reached.
    Answered {
        /// Documents that failed.
        faults: Vec<WriteFault>,
        /// Why the others do not count as stored.
        write_concern: Option<String>,
    },
    /// The server refused the whole command.
    Refused {
        /// Code.
        code: i32,
        /// Text.
        message: String,
    },
    /// The driver refused a document before it was sent.
    Unsendable(String),
    /// No answer: a lost connection, a time-out, no server.
    NoAnswer(String),
}

/// What is to become of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is there.
    Stored,
    /// It is to be sent again.
    Again,
    /// There is a document with the same value in a unique index: whether it is the same one must be asked.
    Ask(String),
    /// It is never taken: why.
    Dead(String),
}

/// What is to be done after a bulk write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// For each document.
    pub fates: Vec<Fate>,
    /// What an operator should know while it stays so.
    pub problem: Option<String>,
    /// One of the documents is the cause, but not which: send them in halves.
    pub halve: bool,
}

/// Duplicate key, in its three spellings.
const DUPLICATE_KEY: [i32; 3] = [11_000, 11_001, 12_582];

/// Codes after which the same write can succeed: the server changes its role, is busy, full, or not allowed to yet.
const TRANSIENT: [i32; 29] = [
    6, 7, 13, 18, 24, 46, 50, 63, 64, 89, 91, 112, 133, 134, 150, 189, 202, 234, 262, 290, 9_001, 10_058,
    10_107, 11_600, 11_602, 13_388, 13_435, 13_436, 14_031,
];

/// Codes of a refused command that come from one of its documents.
const OF_A_DOCUMENT: [i32; 14] = [2, 9, 14, 22, 52, 53, 54, 55, 56, 57, 121, 10_334, 17_419, 17_420];

/// Judges a bulk of `count` documents. In an `ordered` one nothing behind the first fault was tried.
pub fn judge(end: &BulkEnd, count: usize, ordered: bool) -> Judgement {
    match end {
        BulkEnd::Answered { faults, write_concern } => {
            answered(faults, write_concern.as_deref(), count, ordered)
        }
        BulkEnd::Refused { code, message } if OF_A_DOCUMENT.contains(code) => {
            of_some_document(count, &format!("{message} (code {code})"))
        }
        BulkEnd::Refused { code, message } => {
            again(count, format!("the server refuses to write: {message} (code {code})"))
        }
        BulkEnd::Unsendable(message) => of_some_document(count, message),
        BulkEnd::NoAnswer(message) => again(count, message.clone()),
    }
}

fn again(count: usize, problem: String) -> Judgement {
    Judgement { fates: vec![Fate::Again; count], problem: Some(problem), halve: false }
}

fn of_some_document(count: usize, message: &str) -> Judgement {
    let fate = if count == 1 { Fate::Dead(message.to_owned()) } else { Fate::Again };
    Judgement { fates: vec![fate; count], problem: None, halve: count > 1 }
}

fn answered(faults: &[WriteFault], write_concern: Option<&str>, count: usize, ordered: bool) -> Judgement {
    let unnamed = if write_concern.is_some() { Fate::Again } else { Fate::Stored };
    let mut fates = vec![unnamed.clone(); count];
    for fault in faults {
        let Some(fate) = fates.get_mut(fault.index) else { continue };
        *fate = match of_fault(fault) {
            // Without the write concern nothing counts as stored.
            Fate::Stored => unnamed.clone(),
            other => other,
        };
    }
    if ordered && let Some(first) = faults.iter().map(|fault| fault.index).min() {
        fates.iter_mut().skip(first + 1).for_each(|fate| *fate = Fate::Again);
    }
    let transient = faults.iter().find(|fault| TRANSIENT.contains(&fault.code));
    let problem = write_concern
        .map(|message| format!("the write concern is not reached: {message}"))
        .or_else(|| transient.map(|fault| format!("{} (code {})", fault.message, fault.code)));
    Judgement { fates, problem, halve: false }
}

fn of_fault(fault: &WriteFault) -> Fate {
    let message = format!("{} (code {})", fault.message, fault.code);
    if DUPLICATE_KEY.contains(&fault.code) {
        // The index is named in the text only: `… index: _id_ dup key: …`.
        return if fault.message.contains("index: _id_ ") { Fate::Stored } else { Fate::Ask(message) };
    }
    if TRANSIENT.contains(&fault.code) { Fate::Again } else { Fate::Dead(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(index: usize, code: i32, message: &str) -> WriteFault {
        WriteFault { index, code, message: message.to_owned() }
    }

    fn answered(faults: Vec<WriteFault>, write_concern: Option<&str>) -> BulkEnd {
        BulkEnd::Answered { faults, write_concern: write_concern.map(str::to_owned) }
    }

    #[test]
    fn a_bulk_without_faults_is_stored() {
        let judgement = judge(&answered(vec![], None), 2, false);
        assert_eq!(judgement, Judgement { fates: vec![Fate::Stored; 2], problem: None, halve: false });
    }

    #[test]
    fn our_own_id_is_success_and_another_index_must_be_asked() {
        let faults = vec![
            fault(0, 11_000, "E11000 duplicate key error collection: l.c index: _id_ dup key: { _id: 1 }"),
            fault(2, 11_000, "E11000 duplicate key error collection: l.c index: user_1 dup key: { user: 1 }"),
        ];
        let fates = judge(&answered(faults, None), 3, false).fates;
        assert_eq!(fates[..2], [Fate::Stored, Fate::Stored]);
        assert!(matches!(&fates[2], Fate::Ask(message) if message.contains("user_1")));
    }

    #[test]
    fn a_poison_document_dies_alone() {
        let fates = judge(&answered(vec![fault(1, 121, "Document failed validation")], None), 3, false).fates;
        assert_eq!((&fates[0], &fates[2]), (&Fate::Stored, &Fate::Stored));
        assert_eq!(fates[1], Fate::Dead("Document failed validation (code 121)".into()));
    }

    #[test]
    fn nothing_behind_the_first_fault_of_an_ordered_bulk_was_tried() {
        let fates = judge(&answered(vec![fault(1, 121, "bad")], None), 4, true).fates;
        assert_eq!(fates, [Fate::Stored, Fate::Dead("bad (code 121)".into()), Fate::Again, Fate::Again]);
    }

    #[test]
    fn a_write_concern_that_is_not_reached_is_no_success() {
        let faults = vec![fault(0, 11_000, "index: _id_ dup key"), fault(1, 2, "bad")];
        let judgement = judge(&answered(faults, Some("timed out")), 3, false);
        assert_eq!(judgement.fates, [Fate::Again, Fate::Dead("bad (code 2)".into()), Fate::Again]);
        assert!(judgement.problem.unwrap().contains("timed out"));
    }

    #[test]
    fn a_change_of_the_primary_and_a_lost_reply_are_tried_again() {
        for end in [
            BulkEnd::Refused { code: 10_107, message: "not primary".into() },
            BulkEnd::Refused { code: 13, message: "not authorised".into() },
            BulkEnd::NoAnswer("connection closed".into()),
            answered(vec![fault(0, 10_107, "not primary"), fault(1, 10_107, "not primary")], None),
        ] {
            let judgement = judge(&end, 2, false);
            assert_eq!(judgement.fates, [Fate::Again, Fate::Again]);
            assert!(judgement.problem.is_some() && !judgement.halve);
        }
    }

    #[test]
    fn a_command_that_a_document_spoils_is_halved_down_to_it() {
        let end = BulkEnd::Refused { code: 22, message: "invalid BSON".into() };
        assert!(judge(&end, 2, false).halve);
        assert_eq!(judge(&end, 1, false).fates, [Fate::Dead("invalid BSON (code 22)".into())]);
        assert!(judge(&BulkEnd::Unsendable("too large".into()), 2, false).halve);
    }
}
