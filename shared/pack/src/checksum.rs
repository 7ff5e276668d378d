//! crc32c (Castagnoli, RFC 3720 appendix B.4): the checksum of bodies and of stream ranges.

/// crc32c of `bytes`; 0 for no bytes. Uses the processor's instructions where it has them.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// crc32c of all that `sum` stands for with `bytes` behind it.
pub fn crc32c_append(sum: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(sum, bytes)
}

/// crc32c of two runs one behind the other, from their sums and the length of the second in bytes.
pub fn crc32c_combine(first: u32, second: u32, second_len: usize) -> u32 {
    crc32c::crc32c_combine(first, second, second_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_is_that_of_the_castagnoli_polynomial() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
    }

    #[test]
    fn appending_and_combining_give_the_sum_of_the_whole() {
        let whole = b"one line\nanother line\n";
        for cut in 0..=whole.len() {
            let (head, tail) = whole.split_at(cut);
            assert_eq!(crc32c_append(crc32c(head), tail), crc32c(whole));
            assert_eq!(crc32c_combine(crc32c(head), crc32c(tail), tail.len()), crc32c(whole));
        }
    }
}
