//! The packets before the first command. Credentials in them are passed over.

use super::dialect::{COMPRESS, CONNECT_WITH_DB, LENENC_AUTH, MYSQL, PROTOCOL_41, SECURE_CONNECTION, SSL, ZSTD};
use super::packet::{Fields, Packet};

/// Protocol version of every server since MySQL 3.21.
const VERSION: u8 = 10;
const MAX_VERSION_TEXT: usize = 255;
/// Body of a client's packet that asks for TLS.
const SSL_REQUEST: u64 = 32;
/// Longest schema name is 64 characters of at most four bytes.
pub(super) const MAX_DATABASE: usize = 256;

/// What the server said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub capabilities: u64,
    pub mariadb: bool,
    /// Its character set has ASCII bytes only where they mean themselves.
    pub ascii_safe: bool,
}

/// The server's first packet.
pub(super) fn greeting(packet: &Packet<'_>) -> Option<Greeting> {
    let mut fields = Fields(packet.head);
    if packet.seq != 0 || fields.u8()? != VERSION {
        return None;
    }
    let version = fields.until_zero()?;
    if version.is_empty()
        || version.len() > MAX_VERSION_TEXT
        || !version.iter().all(|byte| (b' '..=b'~').contains(byte))
    {
        return None;
    }
    // Connection number, first part of the challenge, a zero.
    fields.bytes(4 + 8)?;
    if fields.u8()? != 0 {
        return None;
    }
    let mut capabilities = fields.int(2)?;
    let mariadb = memchr::memmem::find(version, b"MariaDB").is_some();
    // Old servers end here.
    let charset = fields.u8();
    // Behind the status.
    if fields.bytes(2).is_some()
        && let Some(high) = fields.int(2)
    {
        capabilities |= high << 16;
        // Length of the challenge, six reserved bytes.
        fields.bytes(7)?;
        let extended = fields.int(4)?;
        if capabilities & MYSQL == 0 {
            capabilities |= extended << 32;
        }
    }
    Some(Greeting { capabilities, mariadb, ascii_safe: charset.is_some_and(is_ascii_safe) })
}

/// What the client answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// TLS from here on.
    Encrypted,
    /// Everything after the authentication is compressed.
    Compressed,
    /// The protocol of MySQL 4.0 and before, or nothing that can be understood.
    Unsupported,
    /// What both sides can do, and the schema to begin with.
    Plain { capabilities: u64, database: Option<String>, ascii_safe: bool },
}

/// The client's first packet.
pub(super) fn login(packet: &Packet<'_>, server: u64) -> Login {
    let mut fields = Fields(packet.head);
    let Some(low) = fields.int(4) else { return Login::Unsupported };
    if low & PROTOCOL_41 == 0 {
        return Login::Unsupported;
    }
    if low & server & SSL != 0 && packet.len == SSL_REQUEST {
        return Login::Encrypted;
    }
    plain(&mut fields, low, server).unwrap_or(Login::Unsupported)
}

fn plain(fields: &mut Fields<'_>, low: u64, server: u64) -> Option<Login> {
    // Packet size.
    fields.bytes(4)?;
    let ascii_safe = is_ascii_safe(fields.u8()?);
    // Reserved bytes; the last four are MariaDB's.
    fields.bytes(19)?;
    let extended = fields.int(4)?;
    let client = if low & MYSQL == 0 { low | (extended << 32) } else { low };
    let capabilities = client & server;
    if capabilities & (COMPRESS | ZSTD) != 0 {
        return Some(Login::Compressed);
    }
    fields.until_zero()?;
    if client & LENENC_AUTH != 0 {
        fields.lenenc_bytes()?;
    } else if client & SECURE_CONNECTION != 0 {
        let len = usize::from(fields.u8()?);
        fields.bytes(len)?;
    } else {
        fields.until_zero()?;
    }
    let database = if client & CONNECT_WITH_DB != 0 { schema(fields.0) } else { None };
    Some(Login::Plain { capabilities, database, ascii_safe })
}

/// Collations of ASCII, Latin-1, UTF-8 and of bytes. Of the others some (Big5, GBK, GB18030, Shift-JIS, CP932) have characters
/// whose second byte is a `\` or a backtick. Larger numbers are cut off by the protocol.
fn is_ascii_safe(collation: u8) -> bool {
    matches!(collation, 5 | 8 | 11 | 15 | 31 | 33 | 45..=49 | 63 | 65 | 83 | 94 | 192..=215 | 223..=247 | 255)
}

/// The schema of COM_CHANGE_USER.
pub(super) fn changed_database(body: &[u8]) -> Option<String> {
    let mut fields = Fields(body);
    fields.until_zero()?;
    let len = usize::from(fields.u8()?);
    fields.bytes(len)?;
    schema(fields.0)
}

/// A name up to a zero byte or the end.
pub(super) fn schema(bytes: &[u8]) -> Option<String> {
    let name = bytes.split(|byte| *byte == 0).next()?;
    (!name.is_empty() && name.len() <= MAX_DATABASE).then(|| String::from_utf8_lossy(name).into_owned())
}
