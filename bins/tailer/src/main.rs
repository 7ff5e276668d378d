//! `logferry-tailer`: a thin shell over the library.

fn main() {}
