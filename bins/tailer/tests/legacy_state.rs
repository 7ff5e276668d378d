//! A host moves over from the legacy system without loss or repetition.

mod common;

use common::{Rig, Tier, append, figure, lines, wait_until};
use logferry_tailer::config::Start;

fn sorted(mut contents: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    contents.sort();
    contents
}

#[tokio::test(flavor = "multi_thread")]
async fn hourly_files_go_on_after_the_lines_of_the_legacy_state() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.config.source[0].path = rig.at("app.log.<%Y%m%d%H>").to_str().expect("plain").into();
    let record = rig.folder.path().join("line.rec");
    rig.config.source[0].line_record = record.to_str().expect("plain").into();
    for hour in [15, 16, 17] {
        append(&rig.at(&format!("app.log.20161219{hour}")), lines(hour * 1_000, 100));
    }
    std::fs::write(&record, format!("{} 30\n", rig.at("app.log.2016121916").display())).expect("written");
    let tailer = rig.start();
    let expected = [lines(16_030, 70), lines(17_000, 100)].concat();
    tier.wait_stored(&expected);
    wait_until("both hours are closed", || tier.lock().marks.len() == 2);
    tailer.stop().await.expect("a clean stop");
    // The state is our own from now on.
    std::fs::write(&record, format!("{} 0\n", rig.at("app.log.2016121915").display())).expect("written");
    append(&rig.at("app.log.2016121915"), "late\n");
    let tailer = rig.start();
    let expected = vec![lines(16_030, 70), lines(17_000, 100), b"late\n".to_vec()];
    wait_until("only what is new", || sorted(tier.contents()) == sorted(expected.clone()));
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_file_goes_on_and_a_legacy_state_that_is_none_falls_back_to_start() {
    for (record, expected) in [("{file} 2", "three\n"), ("nonsense", ""), ("{file} 99", "one\ntwo\nthree\n")]
    {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        let path = rig.folder.path().join("line.rec");
        std::fs::write(&path, record.replace("{file}", rig.log().to_str().expect("plain"))).expect("written");
        rig.config.source[0].line_record = path.to_str().expect("plain").into();
        rig.config.source[0].start = Start::End;
        append(&rig.log(), "one\ntwo\nthree\n");
        let tailer = rig.start();
        wait_until("the file is open", || figure(&tailer, "files") == 1);
        append(&rig.log(), "four\n");
        tier.wait_stored(format!("{expected}four\n").as_bytes());
        tailer.stop().await.expect("a clean stop");
    }
}
