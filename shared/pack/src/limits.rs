//! Limits for everything that comes from outside.

/// Objects in a route: the origin and its hops. A pack that went in a circle is refused here, long before its
/// header is too large to read.
pub const ROUTE_OBJECTS_MAX: usize = 64;

/// Limits for everything that comes from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of header JSON, default 64 KiB.
    pub header_bytes_max: usize,
    /// Bytes of a whole pack, default 16 MiB.
    pub pack_bytes_max: usize,
    /// Bytes of a decompressed body, default 64 MiB.
    pub raw_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { header_bytes_max: 64 << 10, pack_bytes_max: 16 << 20, raw_bytes_max: 64 << 20 }
    }
}
