//! The tailer's own spool: files may vanish while no collector is there.

use logferry_tests::lines::many_lines;
use logferry_tests::{Relay, RelayOptions, wait_until};

#[test]
fn a_file_that_vanished_while_the_collector_was_down_is_stored_from_the_spool() {
    let source_sections =
        "[[source]]\nname = \"app-0\"\npath = \"{dir}/app-0.log\"\nspool = true\n".to_owned();
    let mut relay = Relay::new("own-spool", &RelayOptions { source_sections, ..RelayOptions::default() });
    let written = many_lines(50, 20_000);
    std::fs::write(&relay.log_files[0], &written).expect("log file");
    relay.tailer.start_and_wait();
    wait_until("all is in the spool", || relay.tailer.figure("spool_packs") > 0 && relay.is_acknowledged());
    std::fs::remove_file(&relay.log_files[0]).expect("delete the log file");
    relay.tailer.kill();
    relay.tailer.start_and_wait();
    relay.outputter.start_and_wait();
    relay.collectors[0].start_and_wait();
    relay.wait_identical(&[written]);
    wait_until("the spool is empty", || relay.tailer.figure("spool_packs") == 0);
    assert_eq!(relay.tailer.told("lost_bytes"), 0, "what the spool has is not lost");
}
