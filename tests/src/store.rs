//! What an outputter's folder says of one source of one host: every pack in the order of its file, with its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A pack, as the header file beside a log file describes it.
#[derive(Clone, Debug)]
pub struct StoredPack {
    /// The hour of its file.
    pub hour: String,
    /// Its number in that hour.
    pub id: u64,
    /// Whether it is a done pack.
    pub done: bool,
    /// Lines in it.
    pub lines: u64,
    /// Stream id.
    pub stream: String,
    /// Offset in the stream.
    pub offset: u64,
    /// Stream bytes that it stands for; 0: a pack without lines.
    pub span: u64,
    /// crc32c of these.
    pub sum: u32,
    /// Its body.
    pub body: Vec<u8>,
}

impl StoredPack {
    /// Where it lies, in words.
    pub fn place(&self) -> String {
        let StoredPack { hour, id, stream, offset, span, .. } = self;
        let begin = String::from_utf8_lossy(&self.body[..self.body.len().min(30)]);
        format!("{hour} #{id}{} {stream} {offset}+{span} {begin:?}", if self.done { " done" } else { "" })
    }
}

/// All packs of a source of a host, hour by hour. While programs run the last ones may be missing.
pub fn packs(output: &Path, source: &str, host: &str) -> Vec<StoredPack> {
    let prefix = format!("{host}_");
    let folder = std::fs::read_dir(output.join("headers").join(source));
    let names = folder.into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let hours: BTreeSet<String> =
        names.filter_map(|name| Some(name.strip_prefix(&prefix)?.to_owned())).collect();
    let read = |kind: &str, hour: &str| {
        std::fs::read(output.join(kind).join(source).join(format!("{host}_{hour}"))).unwrap_or_default()
    };
    hours.iter().flat_map(|hour| packs_of(hour, &read("headers", hour), &read("log_data", hour))).collect()
}

fn packs_of(hour: &str, headers: &[u8], data: &[u8]) -> Vec<StoredPack> {
    let mut packs = Vec::new();
    let mut at = 0;
    // A line that is being written just now has no end.
    for line in headers.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        let Ok(header) = serde_json::from_slice::<serde_json::Value>(line) else { continue };
        if let Some(data_at) = header["DataAt"].as_u64() {
            at = data_at as usize;
            continue;
        }
        let origin = &header["Route"][0];
        let text = |key: &str| origin[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| text(key).parse::<u64>().unwrap_or_default();
        assert_eq!(text("hour"), hour, "a pack lies in the file of its hour");
        let end = at + number("raw") as usize;
        // The bodies come first: one that is not there was cut off by a recovery that goes on now.
        let Some(body) = data.get(at..end) else { break };
        at = end;
        packs.push(StoredPack {
            hour: hour.to_owned(),
            id: number("id"),
            done: text("done") == "1",
            lines: number("lines"),
            stream: text("stream"),
            offset: number("offset"),
            span: number("span"),
            sum: u32::from_str_radix(&text("sum"), 16).unwrap_or_default(),
            body: body.to_owned(),
        });
    }
    packs
}

/// The numbers of the packs of one hour.
#[derive(Clone, Default, Debug, PartialEq)]
pub struct Book {
    /// Numbers of all packs, each once, in order.
    pub ids: Vec<u64>,
    /// Numbers of the done packs.
    pub done: Vec<u64>,
    /// Lines.
    pub lines: u64,
    /// Packs with lines.
    pub with_lines: u64,
}

impl Book {
    /// The newest done pack's number is that of the packs, and all are there.
    pub fn is_complete(&self) -> bool {
        self.done.last().is_some_and(|total| self.ids.iter().copied().eq(1..=*total))
    }
}

/// The books of all hours that have packs.
pub fn books(packs: &[StoredPack]) -> BTreeMap<String, Book> {
    let mut books: BTreeMap<String, Book> = BTreeMap::new();
    for pack in packs {
        let book = books.entry(pack.hour.clone()).or_default();
        book.ids.push(pack.id);
        book.done.extend(pack.done.then_some(pack.id));
        book.lines += pack.lines;
        book.with_lines += u64::from(pack.span > 0);
    }
    for book in books.values_mut() {
        for numbers in [&mut book.ids, &mut book.done] {
            numbers.sort_unstable();
            numbers.dedup();
        }
    }
    books
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(id: u64, raw: usize, done: &str) -> String {
        format!(
            "{{\"Route\":[{{\"hour\":\"2026112101\",\"id\":\"{id}\",\"raw\":\"{raw}\",\"span\":\"{raw}\",\"done\":\"{done}\"}}]}}\n"
        )
    }

    #[test]
    fn bodies_follow_their_headers_and_what_is_not_whole_is_left_out() {
        let text =
            [header(1, 2, "0"), "{\"DataAt\":3}\n".into(), header(2, 1, "1"), header(3, 9, "0")].concat();
        let packs = packs_of("2026112101", text.as_bytes(), b"ab-c");
        let bodies: Vec<&[u8]> = packs.iter().map(|pack| pack.body.as_slice()).collect();
        assert_eq!(bodies, [&b"ab"[..], b"c"]);
        assert!(books(&packs)["2026112101"].is_complete());
        assert!(!books(&packs[..1])["2026112101"].is_complete());
        assert!(!books(&packs[1..])["2026112101"].is_complete());
    }
}
