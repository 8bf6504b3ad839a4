//! What a client says first, and the settings that matter here. Nothing of the authentication is looked at.

use super::message::Fields;

/// Longest database name that is taken.
const MAX_NAME: usize = 256;
const CANCEL: u32 = 80_877_102;
const TLS: u32 = 80_877_103;
const GSSAPI: u32 = 80_877_104;
/// Upper half of the number of every version since 2003.
const VERSION: u32 = 3;

/// A client's first message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Startup {
    /// It asks for encryption; the server answers with one byte.
    Encryption,
    /// It asks for the end of another connection's command; there is no answer.
    Cancel,
    /// It logs in, to this database.
    Login { database: Option<String> },
    /// Nothing that is known.
    Unsupported,
}

/// Whether bytes begin with a client's first message.
pub(super) fn is_startup(bytes: &[u8]) -> bool {
    match bytes.split_first_chunk::<4>() {
        Some(([0, 0, ..], rest)) => code(rest).is_some_and(is_known),
        _ => false,
    }
}

fn code(body: &[u8]) -> Option<u32> {
    body.first_chunk().map(|code| u32::from_be_bytes(*code))
}

fn is_known(code: u32) -> bool {
    code >> 16 == VERSION || (CANCEL..=GSSAPI).contains(&code)
}

/// Reads the body of a client's first message.
pub(super) fn startup(body: &[u8]) -> Startup {
    match code(body) {
        Some(TLS | GSSAPI) => Startup::Encryption,
        Some(CANCEL) => Startup::Cancel,
        Some(code) if code >> 16 == VERSION => Startup::Login { database: database(&body[4..]) },
        _ => Startup::Unsupported,
    }
}

/// The database that the client wants, which is called like the user where it does not say.
fn database(settings: &[u8]) -> Option<String> {
    let mut fields = Fields(settings);
    let (mut user, mut database) = (None, None);
    while let Some(name) = fields.text().filter(|name| !name.is_empty()) {
        let value = fields.text()?;
        match name {
            b"user" => user = Some(value),
            b"database" => database = Some(value),
            _ => {}
        }
    }
    let name = database.filter(|name| !name.is_empty()).or(user)?;
    (!name.is_empty() && name.len() <= MAX_NAME).then(|| String::from_utf8_lossy(name).into_owned())
}

/// Settings that say how SQL is read. The server tells of them at the beginning and whenever they change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// `\` escapes in every string, as standard_conforming_strings = off has it.
    pub backslash: Option<bool>,
    /// The client's character set has ASCII bytes only where they mean themselves.
    pub ascii_safe: bool,
}

impl Settings {
    /// Takes a ParameterStatus.
    pub(super) fn set(&mut self, body: &[u8]) {
        let mut fields = Fields(body);
        let Some((name, value)) = fields.text().and_then(|name| Some((name, fields.text()?))) else { return };
        match name {
            b"standard_conforming_strings" => {
                self.backslash = match value {
                    b"on" => Some(false),
                    b"off" => Some(true),
                    _ => None,
                };
            }
            b"client_encoding" => self.ascii_safe = is_ascii_safe(value),
            _ => {}
        }
    }
}

/// All but BIG5, GB18030, GBK, JOHAB, SJIS, SHIFT_JIS_2004 and UHC, which may have a `\` as the second half of a character.
fn is_ascii_safe(encoding: &[u8]) -> bool {
    let known = [&b"UTF8"[..], b"SQL_ASCII", b"LATIN", b"EUC_", b"ISO_8859_", b"KOI8", b"WIN125"];
    known.iter().any(|name| encoding.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_messages_are_told_from_other_bytes() {
        assert!(is_startup(b"\0\0\0\x08\x04\xd2\x16\x2f"));
        assert!(is_startup(b"\0\0\0\x20\0\x03\0\0user\0"));
        assert!(!is_startup(b"\0\0\0\x20\0\x02\0\0user\0"));
        assert!(!is_startup(b"\0\0\0\x08"));
        assert!(!is_startup(b"GET / HTTP/1.1"));
    }

    #[test]
    fn the_database_is_called_like_its_user_if_nothing_else_is_said() {
        let login = |settings: &[u8]| startup(&[b"\0\x03\0\0", settings].concat());
        let named = |name: &str| Startup::Login { database: Some(name.to_owned()) };
        assert_eq!(login(b"user\0tester\0database\0shop\0\0"), named("shop"));
        assert_eq!(login(b"user\0tester\0\0"), named("tester"));
        assert_eq!(login(b""), Startup::Login { database: None });
        assert_eq!(startup(b"\x04\xd2\x16\x2e\0\0\0\x01SECR"), Startup::Cancel);
        assert_eq!(startup(b"abc"), Startup::Unsupported);
    }

    #[test]
    fn settings_are_those_that_the_server_tells() {
        let mut settings = Settings::default();
        settings.set(b"standard_conforming_strings\0on\0");
        settings.set(b"client_encoding\0UTF8\0");
        assert_eq!(settings, Settings { backslash: Some(false), ascii_safe: true });
        settings.set(b"client_encoding\0SJIS\0");
        settings.set(b"standard_conforming_strings\0off\0");
        settings.set(b"application_name\0x\0");
        settings.set(b"cut off");
        assert_eq!(settings, Settings { backslash: Some(true), ascii_safe: false });
    }
}
