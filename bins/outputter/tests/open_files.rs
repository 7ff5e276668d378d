//! Open files are bounded, and a file that is written to is the one its path means, at the length that is committed.

#![allow(clippy::unwrap_used)] // test code outside of test functions

#[path = "it/common/mod.rs"]
mod common;

use common::running::{Client, folders_in, start, until};
use common::{Bodies, assert_exactly, pack, stream};
use logferry_durable::RealDisk;
use logferry_durable::faulty::Random;
use logferry_link::Outcome;
use logferry_pack::{Codec, Pack, StreamId};
use std::fs;
use std::path::Path;

const HOUR: u32 = 2026112100;

fn line(host: &str, offset: u64) -> Pack {
    pack(StreamId(host.len() as u128), host, HOUR, offset, format!("{offset:9}\n").as_bytes(), Codec::None)
}

/// Descriptors of this process that point below `dir`.
fn descriptors_below(dir: &Path) -> usize {
    let links =
        fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    links.filter(|target| target.starts_with(dir)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptors_stay_below_the_setting_and_closed_files_are_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(5);
    // Two streams share a file.
    let streams: Vec<_> = (0..20).map(|number| stream(number, 4, Bodies::Verbatim, &mut random)).collect();
    let running = start(dir.path(), |file| file.open_files_max = 3).await;
    let mut client = Client::new(&running.addr);
    for index in 0..4 {
        for stream in &streams {
            assert_eq!(client.deliver([&stream.packs[index]].into_iter()).await, [Outcome::Ok]);
            assert!(running.figures.by_name(&Default::default())["files_open"] <= 3);
            let out = descriptors_below(&dir.path().join("out/log_data/access"))
                + descriptors_below(&dir.path().join("out/headers/access"));
            assert!(out <= 6, "{out} descriptors");
        }
    }
    running.stop().await;
    assert_exactly(&RealDisk, &folders_in(dir.path()), &streams, true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_moved_away_or_deleted_while_it_is_open_gets_no_more_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (data, headers) = (dir.path().join("out/log_data/access"), dir.path().join("out/headers/access"));
    let running = start(dir.path(), |_| {}).await;
    let mut client = Client::new(&running.addr);
    assert_eq!(client.deliver([line("a", 0)].iter()).await, [Outcome::Ok]);
    let name = format!("a_{HOUR}");
    fs::rename(data.join(&name), data.join("moved")).unwrap();
    fs::rename(headers.join(&name), headers.join("moved")).unwrap();
    assert_eq!(client.deliver([line("a", 10)].iter()).await, [Outcome::Ok]);
    assert_eq!(fs::read_to_string(data.join("moved")).unwrap(), "        0\n");
    assert_eq!(fs::read_to_string(data.join(&name)).unwrap(), "       10\n");
    fs::remove_file(data.join(&name)).unwrap();
    assert_eq!(client.deliver([line("a", 20)].iter()).await, [Outcome::Ok]);
    assert_eq!(fs::read_to_string(data.join(&name)).unwrap(), "       20\n");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_file_of_the_same_length_is_noticed_when_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), |file| file.open_files_max = 2).await;
    let mut client = Client::new(&running.addr);
    for host in ["a", "bb", "ccc"] {
        assert_eq!(client.deliver([line(host, 0)].iter()).await, [Outcome::Ok]);
    }
    let path = dir.path().join(format!("out/log_data/access/a_{HOUR}"));
    let headers = dir.path().join(format!("out/headers/access/a_{HOUR}"));
    fs::write(path.with_extension("new"), "someone's\n").unwrap();
    fs::rename(path.with_extension("new"), &path).unwrap();
    for host in ["a", "bb", "ccc"] {
        assert_eq!(client.deliver([line(host, 10)].iter()).await, [Outcome::Ok]);
    }
    running.stop().await;
    assert_eq!(fs::read_to_string(&path).unwrap(), "someone's\n       10\n");
    assert!(fs::read_to_string(&headers).unwrap().contains("{\"DataAt\":10}"), "the header file says so");
    let untouched = dir.path().join(format!("out/headers/access/bb_{HOUR}"));
    assert!(!fs::read_to_string(&untouched).unwrap().contains("DataAt"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_removed_and_made_again_is_guarded_as_the_first_one_was() {
    let dir = tempfile::tempdir().unwrap();
    let (out, outside) = (dir.path().join("out"), dir.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    let running = start(dir.path(), |_| {}).await;
    let mut client = Client::new(&running.addr);
    assert_eq!(client.deliver([line("a", 0)].iter()).await, [Outcome::Ok]);
    fs::remove_dir_all(&out).unwrap();
    let data = out.join("log_data/access");
    fs::create_dir_all(out.join("headers")).unwrap();
    fs::create_dir_all(&data).unwrap();
    assert_eq!(client.deliver([line("a", 10)].iter()).await, [Outcome::Ok]);
    let name = data.join(format!("a_{HOUR}"));
    fs::rename(&name, data.join("moved")).unwrap();
    assert_eq!(client.deliver([line("a", 20)].iter()).await, [Outcome::Ok]);
    assert_eq!(fs::read_to_string(data.join("moved")).unwrap(), "       10\n");
    assert_eq!(fs::read_to_string(&name).unwrap(), "       20\n");
    fs::remove_dir_all(&data).unwrap();
    std::os::unix::fs::symlink(&outside, &data).unwrap();
    client.submit(&line("bb", 0)).await;
    until("the link is named", || !running.figures.problems().is_empty()).await;
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "a link is not followed");
    running.stop().await;
}
