//! `ferryctl`: a thin shell over the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ferryctl::main(std::env::args_os())
}
