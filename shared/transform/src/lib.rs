//! Makes documents of lines: by a program in VRL, or by a named format.
//!
//! Not in here: files of lines, databases, tables, threads. A line goes in as bytes, a [`Document`] comes out.
//! The crate is empty without its feature `vrl`, because the compiler behind it takes minutes to build.
//!
//! The nouns: a [`Transform`] is what was configured, a [`Format`] or a [`Program`]; a [`Runner`] applies it, one per thread; the
//! [`Origin`] says where lines came from; an [`Outcome`] is a document, or nothing, or a reason.
//!
//! ```
//! use logferry_transform::{Origin, Outcome, Program, Runner, Transform};
//!
//! let program = Program::compile("status.vrl", r#"
//!     . = parse_apache_log!(.message, format: "combined")
//!     if .status == 204 { abort }
//!     .host = %host
//! "#).expect("a good program");
//! let mut runner = Runner::new(Transform::Program(program), "UTC").expect("a known zone");
//! let origin = Origin::new("web-1", "access", "2026112013", "0f");
//! let line = br#"192.0.2.1 - - [20/Nov/2026:13:00:01 +0000] "GET / HTTP/1.1" 200 5 "-" "curl""#;
//! let Outcome::Document(document) = runner.run(&line[..].into(), &origin, 0) else { panic!("no document") };
//! assert_eq!(document.get("status").and_then(|status| status.as_integer()), Some(200));
//! assert_eq!(document.get("host").and_then(|host| host.as_str()).as_deref(), Some("web-1"));
//! ```
#![cfg(feature = "vrl")]

mod diagnostics;
mod format;
mod line;
mod program;
mod transform;

pub use format::Format;
pub use line::{Origin, text};
pub use program::{Program, ProgramError};
pub use transform::{Outcome, Runner, Transform, UnknownZone};
/// Values in a list that is built by hand, such as test expectations.
pub use vrl::value;
/// What becomes of a line: keys in their alphabetical order.
pub use vrl::value::ObjectMap as Document;
/// A value in a document: what VRL has. Text and bytes are both `Value::Bytes`; what is no UTF-8 is binary.
pub use vrl::value::Value;
