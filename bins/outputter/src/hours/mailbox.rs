//! From the committer (and from whoever runs hooks) to the keeper of the books, in bounded memory: when the keeper cannot
//! follow, packs are not told any more, and it reads them from the header files.

use super::fact::Fact;
use super::runner::Ended;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Packs that may wait to be counted.
pub const FACTS_MAX: usize = 16_384;

/// What became of a header file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Path below the folder.
    pub path: String,
    /// Committed length before.
    pub from: u64,
    /// Committed length now.
    pub to: u64,
    /// The packs between the two; `None`: to be read from the file.
    pub facts: Option<Vec<Fact>>,
    /// It was rebuilt, and another file put in its place: what it holds is to be counted anew.
    pub is_replaced: bool,
}

impl News {
    /// Of a header file with this committed length: what is new in it is to be read.
    pub fn to_be_read(path: String, to: u64) -> News {
        News { path, from: to, to, facts: None, is_replaced: false }
    }
}

/// What came since the keeper last looked.
#[derive(Debug, Default)]
pub struct Mail {
    /// In the order of the commits.
    pub news: Vec<News>,
    /// Hooks and repulls that have ended.
    pub ended: Vec<Ended>,
    /// No more news will come.
    pub is_closed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Mailbox {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    mail: Mail,
    /// Where the newest news of a path are in the mail.
    newest: HashMap<String, usize>,
    facts: usize,
}

impl Mailbox {
    /// Tells of a header file.
    pub fn put(&self, mut news: News) {
        let mut inner = self.lock();
        let count = news.facts.as_ref().map_or(0, Vec::len);
        if inner.facts + count > FACTS_MAX {
            news.facts = None;
        } else {
            inner.facts += count;
        }
        let inner = &mut *inner;
        let newest = inner.newest.get(&news.path).and_then(|at| inner.mail.news.get_mut(*at));
        match newest.filter(|newest| newest.to == news.from && !news.is_replaced) {
            Some(newest) => {
                newest.to = news.to;
                match (&mut newest.facts, news.facts) {
                    (Some(facts), Some(more)) => facts.extend(more),
                    (facts, _) => *facts = None,
                }
            }
            None => {
                inner.newest.insert(news.path.clone(), inner.mail.news.len());
                inner.mail.news.push(news);
            }
        }
        self.changed.notify_one();
    }

    /// A hook or repull has ended.
    pub fn put_ended(&self, ended: Ended) {
        self.lock().mail.ended.push(ended);
        self.changed.notify_one();
    }

    /// No more news will come.
    pub fn close(&self) {
        self.lock().mail.is_closed = true;
        self.changed.notify_one();
    }

    /// Whether no more news will come.
    pub fn is_closed(&self) -> bool {
        self.lock().mail.is_closed
    }

    /// What came, or nothing after `timeout`.
    pub fn wait(&self, timeout: Duration) -> Mail {
        let nothing = |inner: &mut Inner| {
            let Mail { news, ended, is_closed } = &inner.mail;
            news.is_empty() && ended.is_empty() && !is_closed
        };
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, nothing);
        let mut inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        inner.facts = 0;
        inner.newest.clear();
        let is_closed = inner.mail.is_closed;
        Mail { is_closed, ..std::mem::take(&mut inner.mail) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The committer's end: closes the mailbox when the committer ends.
#[derive(Debug)]
pub struct Teller(Arc<Mailbox>);

impl Teller {
    /// For `mailbox`.
    pub fn new(mailbox: Arc<Mailbox>) -> Teller {
        Teller(mailbox)
    }

    /// A header file has grown by these packs.
    pub fn grew(&self, path: &str, from: u64, to: u64, facts: Vec<Fact>) {
        self.0.put(News { path: path.to_owned(), from, to, facts: Some(facts), is_replaced: false });
    }

    /// A header file has this committed length; what is new in it is to be read.
    pub fn found(&self, path: &str, to: u64) {
        self.0.put(News::to_be_read(path.to_owned(), to));
    }

    /// A header file was rebuilt from what its source has, and has this length now.
    pub fn replaced(&self, path: &str, to: u64) {
        self.0.put(News { path: path.to_owned(), from: 0, to, facts: None, is_replaced: true });
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::super::fact::HourKey;
    use super::*;

    fn news(path: &str, from: u64, to: u64, facts: usize) -> News {
        let key = HourKey { source: String::new(), host: "h".into(), hour: 2026112100.try_into().unwrap() };
        let fact = Fact {
            key,
            id: 1,
            is_numbered: true,
            done: false,
            lines: 0,
            bytes: 0,
            range: None,
            hour_ranges: None,
            at_ms: 0,
        };
        News { path: path.into(), from, to, facts: Some(vec![fact; facts]), is_replaced: false }
    }

    #[test]
    fn news_of_a_file_that_follow_one_another_become_one() {
        let mailbox = Mailbox::default();
        for news in [news("a", 0, 5, 1), news("b", 0, 9, 1), news("a", 5, 7, 2), news("a", 0, 3, 1)] {
            mailbox.put(news);
        }
        let mail = mailbox.wait(Duration::ZERO);
        assert_eq!(mail.news, [news("a", 0, 7, 3), news("b", 0, 9, 1), news("a", 0, 3, 1)]);
    }

    #[test]
    fn packs_that_find_no_room_are_to_be_read() {
        let mailbox = Mailbox::default();
        mailbox.put(news("a", 0, 5, FACTS_MAX));
        mailbox.put(news("a", 5, 6, 1));
        mailbox.put(news("b", 0, 1, 1));
        let mail = mailbox.wait(Duration::ZERO);
        assert!(mail.news.iter().all(|news| news.facts.is_none()));
        assert_eq!(mail.news[0].to, 6);
        mailbox.put(news("b", 1, 2, 1));
        assert!(mailbox.wait(Duration::ZERO).news[0].facts.is_some());
    }

    #[test]
    fn the_mailbox_closes_with_its_teller() {
        let mailbox = Arc::new(Mailbox::default());
        drop(Teller::new(mailbox.clone()));
        assert!(mailbox.wait(Duration::from_secs(60)).is_closed);
    }
}
