//! A process that may open few files: those that were rotated are read one after another, none is taken for gone, and nothing is told in floods.

#[path = "it/common/mod.rs"]
mod common;

use common::{Rig, Tier, append, figure, sorted, wait_until};
use logferry_node::config::Interval;
use rustix::process::{Resource, Rlimit, setrlimit};

const FILES: usize = 400;
/// Most descriptors of this process.
const DESCRIPTORS: u64 = 200;

fn line(number: usize, what: &str) -> Vec<u8> {
    format!("file {number} {what}\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_rotated_while_there_are_few_descriptors_are_all_read() {
    setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), maximum: Some(DESCRIPTORS) })
        .expect("less is always allowed");
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("*.log");
    rig.config.source[0].rotate_wait = Interval::secs(1);
    let path = |number: usize| rig.at(&format!("app-{number:03}.log"));
    (0..FILES).for_each(|number| append(&path(number), line(number, "one")));
    let tailer = rig.start();
    wait_until("all is shipped", || (figure(&tailer, "caught_up"), tier.contents().len()) == (1, FILES));
    for number in 0..FILES {
        append(&path(number), line(number, "two"));
        std::fs::rename(path(number), rig.at(&format!("app-{number:03}.log.1"))).expect("renamed");
        append(&path(number), line(number, "three"));
    }
    let old = |number| [line(number, "one"), line(number, "two")].concat();
    let expected = sorted((0..FILES).flat_map(|number| [old(number), line(number, "three")]).collect());
    let mut open_max = 0;
    wait_until("the rest of the old files and all of the new ones", || {
        open_max = open_max.max(figure(&tailer, "files_open"));
        sorted(tier.contents()) == expected
    });
    assert!(open_max < DESCRIPTORS - 40, "{open_max} were open: others need some, too");
    wait_until("the old ones are let go", || figure(&tailer, "files") == FILES as u64);
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}
