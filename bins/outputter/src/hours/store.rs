//! The books of a store, read from its header files alone, beside a running outputter or without one.

use super::books::Books;
use super::calendar::Calendar;
use super::catch_up;
use super::marks::Marks;
use crate::file::{replace, walk};
use logferry_durable::RealDisk;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Reads the books of the store in `dir`. A file that cannot be read fails the whole: what is missing could not be told.
pub fn read(disk: &RealDisk, dir: &Path, calendar: &Calendar, now_ms: i64) -> io::Result<Books> {
    let headers = dir.join("headers");
    let below = walk::files_below(disk, &headers, "")?;
    if let Some((folder, error)) = below.unlisted.into_iter().next() {
        return Err(io::Error::new(error.kind(), format!("{folder}: {error}")));
    }
    let mut books = Books::default();
    for path in below.files.into_iter().filter(|path| !replace::is_aside(path)) {
        let file = disk.open_for_reading(&headers.join(&path))?;
        let to = file.len()?;
        let zone = calendar.own_zone();
        if catch_up::read(&*file, (0, to), zone, now_ms, |said| books.take(&path, &said))? {
            books.removed(&path);
        }
    }
    let marks = Marks::new(Arc::new(*disk), dir.join("received"), None);
    let keys: Vec<_> = books.hours().map(|(key, _)| key.clone()).collect();
    let found = marks.find(keys.iter())?;
    for (key, lines) in found {
        books.marked(key, lines.into_iter().max());
        // All files were read: the hour has no others.
        let packs = books.hour(key).map_or(0, |book| book.sum().packs());
        books.mark_was_true(key, packs.max(1));
    }
    Ok(books)
}
