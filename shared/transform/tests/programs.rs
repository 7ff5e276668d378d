//! Programs: what they see, what they leave, and how their errors read.
#![cfg(feature = "vrl")]
#![allow(clippy::unwrap_used)] // test code outside of test functions

use bytes::Bytes;
use logferry_transform::{Origin, Outcome, Program, Runner, Transform, Value};

fn runner(source: &str) -> Runner {
    Runner::new(Transform::Program(Program::compile("p.vrl", source).unwrap()), "Local").unwrap()
}

fn run(runner: &mut Runner, line: &[u8]) -> Outcome {
    let origin = Origin::new("web-1", "access", "2026112013", "0f");
    runner.run(&Bytes::copy_from_slice(line), &origin, 1234)
}

fn wrong(source: &str) -> String {
    Program::compile("p.vrl", source).expect_err("a wrong program").to_string()
}

#[test]
fn a_program_sees_the_line_and_where_it_came_from() {
    let mut runner = runner(
        ". = {\"n\": length(.message), \"from\": join!([%host, %source, %hour, %stream]), \"at\": %offset}",
    );
    let Outcome::Document(document) = run(&mut runner, b"four\n") else { panic!() };
    assert_eq!(document["n"], Value::Integer(4));
    assert_eq!(document["from"].as_str().unwrap(), "web-1access20261120130f");
    assert_eq!(document["at"], Value::Integer(1234));
}

#[test]
fn bytes_that_are_no_text_are_there_too() {
    let mut runner = runner(".has_raw = exists(.raw)");
    let Outcome::Document(document) = run(&mut runner, b"\xff\n") else { panic!() };
    assert_eq!(
        (&document["has_raw"], &document["raw"]),
        (&Value::Boolean(true), &Value::Bytes(Bytes::from_static(b"\xff")))
    );
    let Outcome::Document(document) = run(&mut runner, b"x\n") else { panic!() };
    assert_eq!(document["has_raw"], Value::Boolean(false));
}

#[test]
fn abort_leaves_a_line_out_and_an_error_names_its_place() {
    let mut runner = runner("if .message == \"no\" { abort }\n.n = to_int!(.message)");
    assert_eq!(run(&mut runner, b"no\n"), Outcome::Dropped);
    let Outcome::Failed(reason) = run(&mut runner, b"seven\n") else { panic!() };
    assert!(reason.starts_with("p.vrl:2:6: "), "{reason}");
    assert!(reason.contains("seven"), "{reason}");
}

#[test]
fn nothing_is_left_from_the_line_before() {
    let mut runner = runner("x = 0\nif .message == \"set\" { x = 1; %seen = 1 }\n.x = x\n.seen = %seen");
    let Outcome::Document(document) = run(&mut runner, b"set") else { panic!() };
    assert_eq!(document["x"], Value::Integer(1));
    let Outcome::Document(document) = run(&mut runner, b"look") else { panic!() };
    assert_eq!((&document["x"], &document["seen"]), (&Value::Integer(0), &Value::Null));
}

#[test]
fn a_document_must_be_an_object() {
    let Outcome::Failed(reason) = run(&mut runner(". = [1]"), b"x") else { panic!() };
    assert!(reason.contains("array"), "{reason}");
}

#[test]
fn errors_of_the_compiler_name_file_line_and_what_helps() {
    let text = wrong(".a = 1\n.b = to_int(.message)\n");
    assert!(text.starts_with("p.vrl:2:6: "), "{text}");
    assert!(
        text.contains("\n    .b = to_int(.message)\n         ^ ")
            && text.contains(".b, err = to_int(.message)"),
        "{text}"
    );
    let text = wrong(".a = 1\n  .b = = 2\n");
    assert!(text.starts_with("p.vrl:2:8: "), "{text}");
    let text = wrong("upcas(.message)");
    assert!(text.contains("upcase"), "{text}");
    let text = wrong(".n = .massage + 1");
    assert!(text.starts_with("p.vrl:1:"), "a misspelt field is found when the program is compiled: {text}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Program::from_file("/no/such/program.vrl".as_ref()).expect_err("no file").to_string();
    assert!(error.contains("/no/such/program.vrl"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("good.vrl");
    std::fs::write(&path, ".a = 1").unwrap();
    assert_eq!(Program::from_file(&path).unwrap().name(), path.display().to_string());
}

#[test]
fn an_unknown_zone_is_refused() {
    let program = Program::compile("p.vrl", ".").unwrap();
    let error = Runner::new(Transform::Program(program), "Europe/Atlantis").err().expect("no zone");
    assert!(error.to_string().contains("Europe/Atlantis"));
}
