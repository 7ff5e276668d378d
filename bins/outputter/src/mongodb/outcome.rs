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
    /// Fields of the unique index that has the value already, where the server says them apart from the text.
    pub key: Option<Vec<String>>,
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
    /// There is a document with the same `_id`.
    Known(String),
    /// There is a document with the same value in another unique index: whether it is the same one must be asked.
    Ask(String),
    /// It was refused for a reason that it can give, but the state of the server, too: it is to be sent again, alone.
    Suspect(String),
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
    /// What was refused as a whole for a reason that a document can give, but a setting or the state of the server, too: if the
    /// server takes another write, one of the documents is the cause. Else they are to be sent again as they are.
    pub suspect: Option<String>,
}

/// Duplicate key, in its three spellings.
const DUPLICATE_KEY: [i32; 3] = [11_000, 11_001, 12_582];

/// Codes after which the same write can succeed: the server changes its role, is busy, full, or not allowed to yet.
const TRANSIENT: [i32; 35] = [
    6, 7, 13, 18, 24, 46, 50, 63, 64, 89, 91, 112, 117, 133, 134, 150, 175, 189, 202, 215, 234, 237, 246,
    262, 290, 9_001, 10_058, 10_107, 11_600, 11_601, 11_602, 13_388, 13_435, 13_436, 14_031,
];

/// Codes that the server gives of a document for what is in it, and for nothing else. Whatever is in neither list may be either's.
const OF_CONTENT: [i32; 21] =
    [2, 9, 14, 15, 22, 28, 40, 52, 53, 54, 55, 56, 57, 66, 121, 171, 10_334, 16_755, 17_280, 17_419, 17_420];

/// Codes of a refused command that can come from one of its documents.
const OF_A_DOCUMENT: [i32; 14] = [2, 9, 14, 22, 52, 53, 54, 55, 56, 57, 121, 10_334, 17_419, 17_420];

/// Judges a bulk of `count` documents. In an `ordered` one nothing behind the first fault was tried.
pub fn judge(end: &BulkEnd, count: usize, ordered: bool) -> Judgement {
    match end {
        BulkEnd::Answered { faults, write_concern } => {
            answered(faults, write_concern.as_deref(), count, ordered)
        }
        BulkEnd::Refused { code, message } if OF_A_DOCUMENT.contains(code) => {
            of_some_document(count, format!("{message} (code {code})"))
        }
        BulkEnd::Refused { code, message } => {
            again(count, format!("the server refuses to write: {message} (code {code})"))
        }
        BulkEnd::Unsendable(message) => of_some_document(count, message.clone()),
        BulkEnd::NoAnswer(message) => again(count, message.clone()),
    }
}

fn again(count: usize, problem: String) -> Judgement {
    Judgement { fates: vec![Fate::Again; count], problem: Some(problem), suspect: None }
}

fn of_some_document(count: usize, message: String) -> Judgement {
    Judgement { fates: vec![Fate::Again; count], problem: None, suspect: Some(message) }
}

fn answered(faults: &[WriteFault], write_concern: Option<&str>, count: usize, ordered: bool) -> Judgement {
    let unnamed = if write_concern.is_some() { Fate::Again } else { Fate::Stored };
    let mut fates = vec![unnamed.clone(); count];
    for fault in faults {
        let Some(fate) = fates.get_mut(fault.index) else { continue };
        *fate = match of_fault(fault) {
            // Without the write concern nothing counts as stored, and nothing is asked.
            Fate::Known(_) | Fate::Ask(_) | Fate::Suspect(_) if write_concern.is_some() => Fate::Again,
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
    Judgement { fates, problem, suspect: None }
}

fn of_fault(fault: &WriteFault) -> Fate {
    let message = format!("{} (code {})", fault.message, fault.code);
    if DUPLICATE_KEY.contains(&fault.code) {
        return if is_of_id(fault) { Fate::Known(message) } else { Fate::Ask(message) };
    }
    match fault.code {
        code if TRANSIENT.contains(&code) => Fate::Again,
        code if OF_CONTENT.contains(&code) => Fate::Dead(message),
        _ => Fate::Suspect(message),
    }
}

/// Whether a duplicate is one of `_id`. The text is `… index: NAME dup key: VALUES`, and the values are the document's own: they may say
/// anything.
fn is_of_id(fault: &WriteFault) -> bool {
    match &fault.key {
        Some(fields) => fields == &["_id"],
        None => {
            let before = fault.message.split(" dup key: ").next().unwrap_or_default();
            // Servers before 3.0 put the collection before the name: `index: db.collection.$_id_`.
            before.ends_with(" index: _id_") || before.ends_with(".$_id_")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(index: usize, code: i32, message: &str) -> WriteFault {
        WriteFault { index, code, message: message.to_owned(), key: None }
    }

    fn answered(faults: Vec<WriteFault>, write_concern: Option<&str>) -> BulkEnd {
        BulkEnd::Answered { faults, write_concern: write_concern.map(str::to_owned) }
    }

    #[test]
    fn a_bulk_without_faults_is_stored() {
        let judgement = judge(&answered(vec![], None), 2, false);
        assert_eq!(judgement, Judgement { fates: vec![Fate::Stored; 2], problem: None, suspect: None });
    }

    #[test]
    fn a_known_id_is_told_from_another_index_that_must_be_asked_about() {
        let text = |index: &str, value: &str| {
            format!("E11000 duplicate key error collection: l.c index: {index} dup key: {{ m: \"{value}\" }}")
        };
        let faults = vec![
            fault(0, 11_000, &text("_id_", "1")),
            fault(2, 11_000, &text("user_1", "1")),
            fault(3, 11_000, &text("message_1", "evil index: _id_ dup key: x")),
            fault(4, 11_000, "E11000 duplicate key error index: l.c.$_id_ dup key: { : 1 }"),
        ];
        let fates = judge(&answered(faults, None), 5, false).fates;
        assert!(matches!(fates[0], Fate::Known(_)) && matches!(fates[4], Fate::Known(_)));
        assert_eq!(fates[1], Fate::Stored);
        assert!(matches!(&fates[2], Fate::Ask(message) if message.contains("user_1")));
        assert!(matches!(&fates[3], Fate::Ask(message) if message.contains("message_1")));
    }

    #[test]
    fn the_fields_of_the_index_count_more_than_the_text() {
        let with_key = |key: &str| WriteFault {
            key: Some(vec![key.to_owned()]),
            ..fault(0, 11_000, "E11000 duplicate key error, index: _id_ dup key: x")
        };
        let fate = |fault| judge(&answered(vec![fault], None), 1, false).fates.remove(0);
        assert!(matches!(fate(with_key("message")), Fate::Ask(_)));
        assert!(matches!(fate(with_key("_id")), Fate::Known(_)));
    }

    #[test]
    fn a_poison_document_dies_alone() {
        let fates = judge(&answered(vec![fault(1, 121, "Document failed validation")], None), 3, false).fates;
        assert_eq!((&fates[0], &fates[2]), (&Fate::Stored, &Fate::Stored));
        assert_eq!(fates[1], Fate::Dead("Document failed validation (code 121)".into()));
    }

    #[test]
    fn a_document_refused_with_a_code_that_the_server_can_have_of_itself_is_not_condemned() {
        for code in [1, 8, 96, 314, 40_000, -1] {
            let faults = vec![fault(1, code, "cannot")];
            let fates = judge(&answered(faults.clone(), None), 3, true).fates;
            let suspect = Fate::Suspect(format!("cannot (code {code})"));
            assert_eq!(fates, [Fate::Stored, suspect, Fate::Again]);
            let fates = judge(&answered(faults, Some("timed out")), 3, false).fates;
            assert_eq!(fates, [Fate::Again, Fate::Again, Fate::Again]);
        }
        for code in [117, 175, 215] {
            let judgement = judge(&answered(vec![fault(0, code, "busy")], None), 1, false);
            assert_eq!(judgement.fates, [Fate::Again]);
            assert!(judgement.problem.is_some());
        }
    }

    #[test]
    fn nothing_behind_the_first_fault_of_an_ordered_bulk_was_tried() {
        let fates = judge(&answered(vec![fault(1, 121, "bad")], None), 4, true).fates;
        assert_eq!(fates, [Fate::Stored, Fate::Dead("bad (code 121)".into()), Fate::Again, Fate::Again]);
    }

    #[test]
    fn a_write_concern_that_is_not_reached_is_no_success() {
        let faults = vec![fault(0, 11_000, "c index: _id_ dup key: 1"), fault(1, 2, "bad")];
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
            assert!(judgement.problem.is_some() && judgement.suspect.is_none());
        }
    }

    #[test]
    fn a_command_that_a_document_may_have_spoiled_condemns_none() {
        for end in [
            BulkEnd::Refused { code: 22, message: "invalid BSON".into() },
            BulkEnd::Refused { code: 2, message: "cannot use 'w' > 1 when a host is not replicated".into() },
            BulkEnd::Unsendable("too large".into()),
        ] {
            for count in [1, 2] {
                let judgement = judge(&end, count, false);
                assert_eq!(judgement.fates, vec![Fate::Again; count]);
                assert!(judgement.suspect.is_some() && judgement.problem.is_none());
            }
        }
    }
}
