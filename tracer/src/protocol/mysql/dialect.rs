//! What both sides agreed on, as far as it changes the framing of replies.

/// The client was written for MySQL, or the server is one; MariaDB leaves the bit out.
pub(super) const MYSQL: u64 = 1;
pub(super) const CONNECT_WITH_DB: u64 = 1 << 3;
pub(super) const COMPRESS: u64 = 1 << 5;
pub(super) const PROTOCOL_41: u64 = 1 << 9;
pub(super) const SSL: u64 = 1 << 11;
pub(super) const SECURE_CONNECTION: u64 = 1 << 15;
pub(super) const LENENC_AUTH: u64 = 1 << 21;
pub(super) const DEPRECATE_EOF: u64 = 1 << 24;
pub(super) const OPTIONAL_METADATA: u64 = 1 << 25;
pub(super) const ZSTD: u64 = 1 << 26;
pub(super) const QUERY_ATTRIBUTES: u64 = 1 << 27;
/// MariaDB's own capabilities are the upper half.
pub(super) const MARIADB_CACHE_METADATA: u64 = 1 << 36;

/// A byte beside the column count that says whether column definitions follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetadataByte {
    None,
    /// MySQL has it before the count.
    Before,
    /// MariaDB has it behind.
    Behind,
}

/// `None` is not known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dialect {
    /// No EOF packet behind column definitions, and an OK packet at the end of the rows.
    pub deprecate_eof: Option<bool>,
    pub metadata_byte: Option<MetadataByte>,
    /// COM_QUERY has parameters before the text.
    pub query_attributes: Option<bool>,
}

impl Dialect {
    pub(super) fn new(capabilities: u64) -> Self {
        let has = |flag| capabilities & flag != 0;
        Self {
            deprecate_eof: Some(has(DEPRECATE_EOF)),
            metadata_byte: Some(if has(MARIADB_CACHE_METADATA) {
                MetadataByte::Behind
            } else if has(OPTIONAL_METADATA) {
                MetadataByte::Before
            } else {
                MetadataByte::None
            }),
            query_attributes: Some(has(QUERY_ATTRIBUTES)),
        }
    }
}
