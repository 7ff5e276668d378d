//! What a legacy receiver had seen before a node of ours took its place: its `footprint.json`, taken over once, so that packs whose answer
//! was lost in the change are not stored a second time.
//!
//! | file | content |
//! |---|---|
//! | `footprint.json`, theirs | `{"<MD5 of a body, hex>":{"Time":<seconds since 1970>,"Id":"<ip>_<hour>_<id>"},…}`, `_done` behind the ids of done packs |
//! | `v1-footprint.json` in `var_dir`, ours | `{"<stream id of the adopted pack>":<seconds since 1970, until when it is known>,…}` |
//!
//! Ours is written in one piece, and its being there says that theirs is not to be read any more.

use logferry_durable::{Disk, replace};
use logferry_node::config::ListenSettings;
use logferry_pack::{LEGACY_KEEP_SECS, Pack, StreamId};
use metrics::counter;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Name of the file of ours in `var_dir`.
const OURS: &str = "v1-footprint.json";
/// Name of theirs, looked for in `var_dir` when the configuration names none.
const THEIRS: &str = "footprint.json";
/// What follows the id of a done pack there.
const DONE_SUFFIX: &str = "_done";
/// Most packs that are taken over; about 1 GB of their file.
const PACKS_MAX: usize = 10_000_000;

/// Packs that a legacy node took within a day before this node took its place.
#[derive(Debug, Default)]
pub struct LegacyFootprint {
    /// Seconds since 1970 until when a pack is known.
    until: BTreeMap<StreamId, u64>,
}

/// What was read of a file of theirs.
#[derive(Debug, Default)]
struct Read {
    until: BTreeMap<StreamId, u64>,
    /// Older than a day.
    old: u64,
    /// Entries that say nothing we understand.
    unreadable: u64,
}

impl LegacyFootprint {
    /// Takes the file over at the first start, and reads what was taken over at later ones. A damaged file is taken over as far as it can
    /// be read, with an error in the log; it stays where it is.
    ///
    /// # Errors
    /// The file that the configuration names is not there, or the disk fails; with the path.
    pub fn take_over(
        disk: &dyn Disk,
        listen: &ListenSettings,
        var_dir: &Path,
    ) -> io::Result<LegacyFootprint> {
        if !listen.v1 {
            return Ok(LegacyFootprint::default());
        }
        let now = now_unix();
        let ours = var_dir.join(OURS);
        if let Some(known) = read_ours(disk, &ours, now)? {
            return Ok(known);
        }
        let is_named = !listen.v1_footprint.is_empty();
        let theirs = if is_named { PathBuf::from(&listen.v1_footprint) } else { var_dir.join(THEIRS) };
        let bytes = match disk.read(&theirs) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_named => {
                return Ok(LegacyFootprint::default());
            }
            Err(error) => return Err(named(&error, "listen.v1_footprint", &theirs)),
        };
        let Read { until, old, unreadable } = read_theirs(&bytes, now, &theirs);
        let text = serde_json::to_vec(&until).map_err(io::Error::other)?;
        replace(disk, &ours, &text).map_err(|error| named(&error, "node.var_dir", &ours))?;
        tracing::info!(
            file = %theirs.display(), packs = until.len(), old, unreadable,
            "the footprint of a legacy node was taken over: these packs are not stored again; the file is not needed any more"
        );
        Ok(LegacyFootprint { until })
    }

    /// Whether a legacy pack that was adopted was seen there. Packs that are not to be dropped as seen (`repull`) never were.
    pub(crate) fn knows(&self, pack: &Pack) -> bool {
        let (false, false, Some(ours)) = (self.until.is_empty(), pack.header.repull, &pack.header.ours)
        else {
            return false;
        };
        self.until.get(&ours.identity.stream).is_some_and(|until| now_unix() < *until)
    }

    /// Number of packs.
    pub fn packs(&self) -> usize {
        self.until.len()
    }
}

fn now_unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn named(error: &io::Error, key: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{key}: {}: {error}", path.display()))
}

/// What was taken over at an earlier start; `None`: nothing was, or it is damaged.
fn read_ours(disk: &dyn Disk, path: &Path, now: u64) -> io::Result<Option<LegacyFootprint>> {
    let bytes = match disk.read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(named(&error, "node.var_dir", path)),
    };
    match serde_json::from_slice::<BTreeMap<StreamId, u64>>(&bytes) {
        Ok(mut until) => {
            until.retain(|_, until| *until > now);
            Ok(Some(LegacyFootprint { until }))
        }
        Err(error) => {
            report_damage(path, &error, 0);
            Ok(None)
        }
    }
}

fn read_theirs(bytes: &[u8], now: u64, path: &Path) -> Read {
    let mut read = Read::default();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let outcome = Entries { read: &mut read, now }.deserialize(&mut json).and_then(|()| json.end());
    if let Err(error) = outcome {
        report_damage(path, &error, read.until.len());
    } else if read.unreadable > 0 {
        tracing::error!(
            file = %path.display(), entries = read.unreadable,
            "entries of the legacy footprint are none: packs that they stood for are stored again if they come again"
        );
    }
    read
}

fn report_damage(path: &Path, error: &serde_json::Error, packs: usize) {
    counter!("logferry_link_v1_footprint_damaged_total").increment(1);
    tracing::error!(
        file = %path.display(), %error, packs,
        "the legacy footprint is damaged: packs before the damage are known, others are stored again if they come again"
    );
}

/// Reads the entries one by one, so that those before a damaged place count.
struct Entries<'a> {
    read: &'a mut Read,
    now: u64,
}

impl Entries<'_> {
    fn take(&mut self, key: &str, value: &serde_json::Value) {
        let entry = (|| {
            let time = value.get("Time")?.as_i64()?;
            let body_md5 = md5_of_hex(key)?;
            let id = value.get("Id")?.as_str()?;
            let name = id.strip_suffix(DONE_SUFFIX).unwrap_or(id);
            Some((u64::try_from(time).ok()?, StreamId::of_legacy(name, body_md5)))
        })();
        match entry {
            None => self.read.unreadable += 1,
            Some((time, _)) if time.saturating_add(LEGACY_KEEP_SECS) <= self.now => self.read.old += 1,
            Some((time, stream)) if self.read.until.len() < PACKS_MAX => {
                // A clock that went ahead there is not to keep an entry for ever.
                self.read.until.insert(stream, time.min(self.now) + LEGACY_KEEP_SECS);
            }
            Some(_) => self.read.unreadable += 1,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of MD5 sums")
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((key, value)) = map.next_entry::<String, serde_json::Value>()? {
            self.take(&key, &value);
        }
        Ok(())
    }
}

fn md5_of_hex(text: &str) -> Option<[u8; 16]> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u128::from_str_radix(text, 16).ok())?.map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use logferry_durable::RealDisk;
    use logferry_pack::{Decoded, Limits, decode_header};

    /// The recorded packs of a legacy tail, and the footprint that its collector had after them.
    const PACKS: &[u8] = include_bytes!("../../../pack/tests/data/tail-packs.bin");
    const FOOTPRINT: &str = include_str!("../../tests/data/footprint.json");

    fn packs() -> Vec<Pack> {
        let (mut left, mut packs) = (PACKS, Vec::new());
        while let Ok(Decoded::Header { pack_len, .. }) = decode_header(left, &Limits::default()) {
            let (pack, rest) = left.split_at(pack_len);
            let mut pack = Pack::parse(pack.to_vec().into(), &Limits::default()).unwrap();
            pack.adopt(&Limits::default()).unwrap();
            packs.push(pack);
            left = rest;
        }
        packs
    }

    /// The recorded footprint as of now.
    fn recent() -> String {
        let mut entries: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(FOOTPRINT).unwrap();
        entries.values_mut().for_each(|entry| entry["Time"] = now_unix().into());
        serde_json::to_string(&entries).unwrap()
    }

    fn listen(v1_footprint: &str) -> ListenSettings {
        ListenSettings { v1: true, v1_footprint: v1_footprint.to_owned(), ..ListenSettings::default() }
    }

    #[test]
    fn packs_that_the_legacy_node_had_seen_are_known_unless_they_are_repulled() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(THEIRS), recent()).unwrap();
        let take_over = || LegacyFootprint::take_over(&RealDisk, &listen(""), dir.path()).unwrap();
        let footprint = take_over();
        let packs = packs();
        let known =
            |footprint: &LegacyFootprint| packs.iter().map(|pack| footprint.knows(pack)).collect::<Vec<_>>();
        // The empty done pack is marked as repulled.
        assert_eq!(known(&footprint), [true, true, false, true, true, true, true]);
        let mut other = packs[0].clone();
        other.header.ours = None;
        other.header.id = 9;
        other.adopt(&Limits::default()).unwrap();
        assert!(!footprint.knows(&other), "the same body under another number is another pack");
        // Once: what becomes of their file afterwards changes nothing.
        std::fs::write(dir.path().join(THEIRS), "{").unwrap();
        assert_eq!(known(&take_over()), known(&footprint));
    }

    #[test]
    fn what_is_older_than_a_day_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("theirs.json");
        std::fs::write(&path, FOOTPRINT.replace("\"Time\":1", "\"Time\":0")).unwrap();
        let footprint = LegacyFootprint::take_over(&RealDisk, &listen(path.to_str().unwrap()), dir.path());
        assert_eq!(footprint.unwrap().packs(), 0);
    }

    #[test]
    fn a_torn_file_is_taken_over_up_to_where_it_is_torn() {
        let text = recent();
        let all = serde_json::from_str::<serde_json::Value>(&text).unwrap().as_object().unwrap().len();
        let mut most = 0;
        for cut in 0..=text.len() {
            let read = read_theirs(&text.as_bytes()[..cut], now_unix(), Path::new("footprint.json"));
            assert!(read.until.len() >= most && read.unreadable == 0, "cut at {cut}");
            most = read.until.len();
        }
        assert_eq!(most, all);
        for nonsense in [r#"{"zz":{"Time":1,"Id":"a"}}"#, r#"{"00000000000000000000000000000000":7}"#] {
            assert_eq!(read_theirs(nonsense.as_bytes(), 0, Path::new("")).unreadable, 1);
        }
    }

    #[test]
    fn a_file_that_is_named_and_not_there_is_an_error_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let error = LegacyFootprint::take_over(&RealDisk, &listen("/nowhere/footprint.json"), dir.path());
        let text = error.unwrap_err().to_string();
        assert!(text.contains("listen.v1_footprint") && text.contains("/nowhere/footprint.json"), "{text}");
        assert_eq!(LegacyFootprint::take_over(&RealDisk, &listen(""), dir.path()).unwrap().packs(), 0);
    }
}
