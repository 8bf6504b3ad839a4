//! The form of a request on disk: one file, whose name says its place in the order and its spans.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `TRSPOOL1`: what it is, and the version |
//! | 4 | spans, as in the name |
//! | 4 | length of the rest after the checksum |
//! | 4 | CRC-32 of the two numbers and the rest |
//! | … | the encoded request, gzip: spans repeat themselves, and a tenth is written |
//!
//! Numbers are little-endian. The name ends with the version too, so an older agent leaves files alone that it cannot read.

use std::ffi::OsStr;
use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use crate::export::otlp::MAX_REQUEST_BYTES;
use crate::export::otlp::encode::Request;

const MAGIC: &[u8; 8] = b"TRSPOOL1";
const HEADER_BYTES: usize = 20;
const SUFFIX: &str = ".otlp1";
/// A larger file is none of ours: gzip makes what it cannot compress larger by less than this.
pub(super) const MAX_FILE_BYTES: u64 = MAX_REQUEST_BYTES as u64 + (64 << 10);

/// Why a file is no request any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damage {
    /// It ends early: the agent or the machine died while it was written.
    #[error("it is torn")]
    Torn,
    /// It was changed, or is of another origin.
    #[error("it was changed since it was written")]
    Changed,
}

/// The name of a file.
pub(super) fn name(number: u64, spans: u64) -> String {
    format!("{number:016x}-{spans}{SUFFIX}")
}

/// Number and spans of a file with such a name. Numbers of the upper half are refused, so that there is always a next one.
pub(super) fn parse_name(file: &OsStr) -> Option<(u64, u64)> {
    let (number, spans) = file.to_str()?.strip_suffix(SUFFIX)?.split_once('-')?;
    let parsed = (u64::from_str_radix(number, 16).ok()?, u64::from(spans.parse::<u32>().ok()?));
    (parsed.0 < u64::MAX / 2 && name(parsed.0, parsed.1).as_str() == file).then_some(parsed)
}

/// The content of a file.
pub(super) fn encode(request: &Request) -> Vec<u8> {
    let mut file = Vec::with_capacity(HEADER_BYTES + request.body.len() / 4);
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&u32::try_from(request.spans).unwrap_or(u32::MAX).to_le_bytes());
    file.resize(HEADER_BYTES, 0);
    let mut gzip = GzEncoder::new(file, Compression::fast());
    gzip.write_all(&request.body).expect("a Vec takes everything");
    let mut file = gzip.finish().expect("a Vec takes everything");
    let length = u32::try_from(file.len() - HEADER_BYTES).expect("requests are smaller than 4 GiB");
    file[12..16].copy_from_slice(&length.to_le_bytes());
    let checksum = checksum(&file);
    file[16..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    file
}

/// The request of a file whose name says `spans`. The file may hold anything.
pub(super) fn decode(file: &[u8], spans: u64) -> Result<Request, Damage> {
    let magic = &file[..file.len().min(MAGIC.len())];
    if magic != &MAGIC[..magic.len()] {
        return Err(Damage::Changed);
    }
    let Some(header) = file.get(..HEADER_BYTES) else {
        return Err(Damage::Torn);
    };
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    match (file.len() - HEADER_BYTES).cmp(&(number(12) as usize)) {
        std::cmp::Ordering::Less => return Err(Damage::Torn),
        std::cmp::Ordering::Greater => return Err(Damage::Changed),
        std::cmp::Ordering::Equal => {}
    }
    if u64::from(number(8)) != spans || number(16) != checksum(file) {
        return Err(Damage::Changed);
    }
    // The checksum is no seal: somebody else may have made the file, so the result is bounded as well.
    let mut body = Vec::new();
    let limit = MAX_REQUEST_BYTES as u64;
    match GzDecoder::new(&file[HEADER_BYTES..]).take(limit + 1).read_to_end(&mut body) {
        Ok(read) if read as u64 <= limit => Ok(Request { body: Bytes::from(body), spans }),
        _ => Err(Damage::Changed),
    }
}

/// Of everything but the magic and the checksum itself.
fn checksum(file: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&file[8..16]);
    hasher.update(&file[HEADER_BYTES..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

    use proptest::prelude::*;

    use super::*;

    fn request(body: &[u8]) -> Request {
        Request { body: Bytes::copy_from_slice(body), spans: 7 }
    }

    #[test]
    fn a_file_torn_at_any_byte_is_known_as_torn() {
        let file = encode(&request(&[b"order ".as_slice(); 100].concat()));
        for end in 0..file.len() {
            assert_eq!(decode(&file[..end], 7).unwrap_err(), Damage::Torn, "{end} of {}", file.len());
        }
        assert_eq!(decode(&file, 7).unwrap().body, [b"order ".as_slice(); 100].concat());
    }

    #[test]
    fn a_flipped_bit_is_found_wherever_it_is() {
        let file = encode(&request(b"order order order order"));
        for bit in 0..file.len() * 8 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped, 7).is_err(), "bit {bit}");
        }
        assert_eq!(decode(&file, 8).unwrap_err(), Damage::Changed, "a name of other spans");
        let longer = [file.as_slice(), b"x"].concat();
        assert_eq!(decode(&longer, 7).unwrap_err(), Damage::Changed);
    }

    #[test]
    fn a_small_file_cannot_become_a_large_request() {
        let bomb = encode(&request(&vec![0; 4 * MAX_REQUEST_BYTES]));
        assert!((bomb.len() as u64) < MAX_FILE_BYTES);
        assert_eq!(decode(&bomb, 7).unwrap_err(), Damage::Changed);
    }

    #[test]
    fn names_are_read_only_as_they_are_written() {
        assert_eq!(name(0x1f, 2_048), "000000000000001f-2048.otlp1");
        assert_eq!(parse_name(OsStr::new("000000000000001f-2048.otlp1")), Some((0x1f, 2_048)));
        for other in [
            "lock",
            "1f-2048.otlp1",
            "000000000000001F-2048.otlp1",
            "000000000000001f-02048.otlp1",
            "000000000000001f-+1.otlp1",
            "000000000000001f-4294967296.otlp1",
            "ffffffffffffffff-1.otlp1",
            "000000000000001f-1.otlp2",
            "000000000000001f-1.otlp1~",
        ] {
            assert_eq!(parse_name(OsStr::new(other)), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(body in proptest::collection::vec(any::<u8>(), 0..5_000)) {
            prop_assert_eq!(&decode(&encode(&request(&body)), 7).unwrap().body[..], &body[..]);
        }

        #[test]
        fn anything_may_be_in_a_file(mut file in proptest::collection::vec(any::<u8>(), 0..200), real in any::<bool>()) {
            if real && file.len() >= HEADER_BYTES {
                let length = (file.len() - HEADER_BYTES) as u32;
                file[..8].copy_from_slice(MAGIC);
                file[8..12].copy_from_slice(&7_u32.to_le_bytes());
                file[12..16].copy_from_slice(&length.to_le_bytes());
                let sum = checksum(&file);
                file[16..20].copy_from_slice(&sum.to_le_bytes());
            }
            prop_assert!(decode(&file, 7).is_err());
        }
    }
}
