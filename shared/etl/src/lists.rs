//! The lists of spiders, of hosts and of addresses, and what they say of a record.

use crate::cell::{Cell, Record};
use aho_corasick::{AhoCorasick, MatchKind};
use regex::RegexSet;
use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Field with the user agent.
pub const AGENT_FIELD: &str = "event_useragent";
/// Field with the address of who asked.
pub const ADDRESS_FIELD: &str = "event_ip";
/// Field with the host that was asked.
pub const HOST_FIELD: &str = "host";
/// Whether the user agent is a spider's.
pub const IS_SPIDER_FIELD: &str = "event_isspider";
/// The entry of the list that the user agent contains.
pub const SPIDER_FIELD: &str = "event_spiderdetail";

/// A list that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadList {
    /// Cannot be read.
    #[error("cannot read {path}: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A line that is not what the list holds.
    #[error("{path}:{line}: {what}")]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// Without an entry it would drop every record.
    #[error("{path} names no host, so every line would be dropped: leave hosts_white_list away to keep all")]
    NoHost {
        /// The file.
        path: PathBuf,
    },
}

/// Where the lists are; an empty path is no list.
#[derive(Clone, Debug, Default)]
pub struct ListFiles {
    /// A substring of user agents a line.
    pub spiders: PathBuf,
    /// A regular expression of hosts a line.
    pub hosts: PathBuf,
    /// An address a line, `#` comments.
    pub addresses: PathBuf,
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sieved {
    /// Kept.
    Kept {
        /// Marked as of a spider.
        is_spider: bool,
    },
    /// Its address is on the black list.
    BadAddress,
    /// Its host is not on the white list.
    OtherHost,
}

/// The lists, loaded.
#[derive(Debug, Default)]
pub struct Lists {
    spiders: Option<Spiders>,
    hosts: Option<RegexSet>,
    addresses: HashSet<IpAddr>,
}

impl Lists {
    /// Loads the lists that are set.
    ///
    /// # Errors
    /// Names the file, the line and what is wrong.
    pub fn load(files: &ListFiles) -> Result<Lists, BadList> {
        let spiders = entries(&files.spiders)?.into_iter().map(|(_, text)| text).collect();
        let hosts = match files.hosts.as_os_str().is_empty() {
            true => None,
            false => Some(hosts(&files.hosts)?),
        };
        Ok(Lists { spiders: Spiders::new(spiders), hosts, addresses: addresses(&files.addresses)? })
    }

    /// Judges `record` and marks spiders. A record without a host passes no white list; one without an address
    /// or with a text that is none is on no black list.
    pub fn sieve(&self, record: &mut Record) -> Sieved {
        if !self.addresses.is_empty() && self.is_bad_address(record) {
            return Sieved::BadAddress;
        }
        if let Some(hosts) = &self.hosts {
            let host = record.get(HOST_FIELD).and_then(Cell::text);
            if !host.is_some_and(|host| hosts.is_match(&host)) {
                return Sieved::OtherHost;
            }
        }
        Sieved::Kept { is_spider: self.mark_spider(record) }
    }

    fn is_bad_address(&self, record: &Record) -> bool {
        let address = record.get(ADDRESS_FIELD).and_then(Cell::text);
        let address = address.and_then(|text| text.parse::<IpAddr>().ok());
        address.is_some_and(|address| self.addresses.contains(&address.to_canonical()))
    }

    fn mark_spider(&self, record: &mut Record) -> bool {
        let Some(spiders) = &self.spiders else { return false };
        let spider = match record.get(AGENT_FIELD) {
            Some(Cell::Text(agent)) => spiders.find(agent),
            _ => None,
        };
        record.insert(IS_SPIDER_FIELD.to_owned(), Cell::Bool(spider.is_some()));
        let detail = spider.map_or(Cell::Null, |spider| Cell::Text(spider.to_owned()));
        record.insert(SPIDER_FIELD.to_owned(), detail);
        spider.is_some()
    }
}

#[derive(Debug)]
struct Spiders {
    names: Vec<String>,
    search: AhoCorasick,
}

impl Spiders {
    fn new(names: Vec<String>) -> Option<Spiders> {
        // Fails only for lists of gigabytes.
        let search = AhoCorasick::builder().match_kind(MatchKind::Standard).build(&names).ok()?;
        (!names.is_empty()).then_some(Spiders { names, search })
    }

    /// The first entry of the list that `agent` contains.
    fn find(&self, agent: &str) -> Option<&str> {
        let first = self.search.find_overlapping_iter(agent).map(|found| found.pattern().as_usize()).min()?;
        Some(&self.names[first])
    }
}

/// Lines that are not blank, with their numbers.
fn entries(path: &Path) -> Result<Vec<(usize, String)>, BadList> {
    if path.as_os_str().is_empty() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| BadList::Unreadable { path: path.to_owned(), error })?;
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim().to_owned()));
    Ok(lines.filter(|(_, line)| !line.is_empty()).collect())
}

fn hosts(path: &Path) -> Result<RegexSet, BadList> {
    let lines = entries(path)?;
    if lines.is_empty() {
        return Err(BadList::NoHost { path: path.to_owned() });
    }
    for (line, text) in &lines {
        regex::Regex::new(text).map_err(|error| BadList::Line {
            path: path.to_owned(),
            line: *line,
            what: error.to_string(),
        })?;
    }
    RegexSet::new(lines.iter().map(|(_, text)| text)).map_err(|error| BadList::Line {
        path: path.to_owned(),
        line: lines.len(),
        what: error.to_string(),
    })
}

fn addresses(path: &Path) -> Result<HashSet<IpAddr>, BadList> {
    let mut found = HashSet::new();
    for (line, text) in entries(path)? {
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let address = text.parse::<IpAddr>().map_err(|_| BadList::Line {
            path: path.to_owned(),
            line,
            what: format!("{text:?} is no address"),
        })?;
        found.insert(address.to_canonical());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lists(spiders: &str, hosts: &str, addresses: &str) -> Result<Lists, BadList> {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let hosts = if hosts.is_empty() { PathBuf::new() } else { file("hosts", hosts) };
        Lists::load(&ListFiles {
            spiders: file("spiders", spiders),
            hosts,
            addresses: file("addresses", addresses),
        })
    }

    fn record(host: &str, address: &str, agent: &str) -> Record {
        [(HOST_FIELD, host), (ADDRESS_FIELD, address), (AGENT_FIELD, agent)]
            .map(|(name, text)| (name.to_owned(), Cell::Text(text.to_owned())))
            .into()
    }

    #[test]
    fn spiders_are_marked_by_the_first_entry_that_the_agent_contains() {
        let lists = lists("Googlebot\nbot\n\nSpider Two\n", "", "").unwrap();
        for (agent, detail) in [
            ("Mozilla/5.0 (compatible; Googlebot/2.1)", Some("Googlebot")),
            ("a bot, not Google's", Some("bot")),
            ("the Spider Two", Some("Spider Two")),
            ("Mozilla/5.0 (X11; Linux)", None),
        ] {
            let mut record = record("h", "10.0.0.1", agent);
            assert_eq!(lists.sieve(&mut record), Sieved::Kept { is_spider: detail.is_some() });
            assert_eq!(record[IS_SPIDER_FIELD], Cell::Bool(detail.is_some()));
            assert_eq!(record[SPIDER_FIELD].text().as_deref(), detail, "{agent}");
        }
    }

    #[test]
    fn hosts_pass_by_any_expression_and_addresses_fail_in_any_writing() {
        let lists = lists("", "^www\\.\nshop", "10.0.0.7 # noisy\n# all\n2001:db8::1\n").unwrap();
        let judge = |host: &str, address: &str| lists.sieve(&mut record(host, address, ""));
        let kept = Sieved::Kept { is_spider: false };
        assert_eq!(judge("www.example.com", "10.0.0.1"), kept);
        assert_eq!(judge("my-shop.example.com", "not an address"), kept);
        assert_eq!(judge("old.www.example.com", "10.0.0.1"), Sieved::OtherHost);
        for address in ["10.0.0.7", "::ffff:10.0.0.7", "2001:0db8:0::1"] {
            assert_eq!(judge("www.example.com", address), Sieved::BadAddress, "{address}");
        }
        assert_eq!(lists.sieve(&mut Record::new()), Sieved::OtherHost);
    }

    #[test]
    fn bad_lists_are_named_with_the_line() {
        let error = lists("", "good\n(bad\n", "").unwrap_err().to_string();
        assert!(error.contains("hosts:2:"), "{error}");
        let error = lists("", "", "10.0.0.1\n10.0.0.300\n").unwrap_err().to_string();
        assert!(error.contains("addresses:2: \"10.0.0.300\" is no address"), "{error}");
        assert!(lists("", " \n", "").unwrap_err().to_string().contains("names no host"));
        let files = ListFiles { spiders: "/no/list".into(), ..ListFiles::default() };
        assert!(Lists::load(&files).unwrap_err().to_string().contains("/no/list"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn spiders_are_those_of_a_plain_search(names in prop::collection::vec("[ab]{1,4}", 1..6), agent in "[abc]{0,12}") {
            let plain = names.iter().find(|name| agent.contains(name.as_str())).map(String::as_str);
            let spiders = Spiders::new(names.clone()).unwrap();
            prop_assert_eq!(spiders.find(&agent), plain);
        }
    }
}
