//! SIGHUP, which other programs take for "read your configuration again", and terminals send when they are closed: it ends none of ours, and each says
//! what to do instead.

use logferry_tests::monitored::Monitored;
use logferry_tests::{Program, RelayOptions, append, trial, wait_until};
use rustix::process::Signal;

#[test]
fn a_hangup_ends_none_of_the_programs_and_each_says_that_a_restart_is_needed() {
    let _trial = trial!();
    let mut all = Monitored::new("hangup", &RelayOptions::default(), "");
    all.relay.start();
    let log = all.relay.log_files[0].clone();
    append(&log, b"before\n");
    all.relay.wait_identical(&[b"before\n".to_vec()]);
    let mut programs: Vec<&mut Program> = all.relay.programs();
    programs.push(&mut all.monitor);
    for program in programs {
        program.signal(Signal::HUP);
        let is_said = |program: &Program| {
            program
                .log_text()
                .lines()
                .any(|line| line.contains("WARN") && line.contains("SIGHUP") && line.contains("restart"))
        };
        wait_until("it is said", || is_said(program));
        assert!(program.exited().is_none() && program.status().is_some(), "{}", program.name);
    }
    append(&log, b"after\n");
    all.relay.wait_identical(&[b"before\nafter\n".to_vec()]);
}
