//! Files that two sources lead to, at the same time or one after the other.

use crate::common::{Rig, Tier, append, figure, lines, wait_until};
use logferry_tailer::config::SourceSettings;

/// `app.log` is of one source, what it is renamed to of another.
fn rig(tier: &Tier) -> Rig {
    let mut rig = Rig::new(tier);
    let path = rig.at("app.log.*").to_str().expect("plain").to_owned();
    let rotated = SourceSettings { name: "rotated".into(), path, ..rig.config.source[0].clone() };
    rig.config.source.push(rotated);
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_renamed_from_one_source_to_another_is_shipped_once() {
    for down in [false, true] {
        let tier = Tier::start().await;
        let rig = rig(&tier);
        append(&rig.log(), lines(0, 100));
        let mut tailer = Some(rig.start());
        tier.wait_stored(&lines(0, 100));
        wait_until("settled", || figure(tailer.as_ref().expect("it runs"), "caught_up") == 1);
        if down {
            tailer.take().expect("it runs").stop().await.expect("a clean stop");
        }
        std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed");
        append(&rig.log(), lines(500, 100));
        let mut expected = [lines(0, 100), lines(500, 100)].concat();
        let mut running = tailer.take().unwrap_or_else(|| rig.start());
        tier.wait_stored(&expected);
        if !down {
            wait_until("the first source is done with it", || figure(&running, "files") == 1);
            running.stop().await.expect("a clean stop");
            running = rig.start();
        }
        for restart in 0..3 {
            wait_until("both files are followed", || figure(&running, "files") == 2);
            wait_until("settled", || figure(&running, "caught_up") == 1);
            running.stop().await.expect("a clean stop");
            running = rig.start();
            append(&rig.log(), format!("on {restart}\n"));
            expected.extend(format!("on {restart}\n").into_bytes());
            tier.wait_stored(&expected);
        }
        append(&rig.at("app.log.1"), "late\n");
        wait_until("what comes late", || tier.stored().len() == expected.len() + 5);
        assert_eq!(tier.lock().conflicts, 0);
        running.stop().await.expect("a clean stop");
    }
}
