//! Messages on a byte stream: four bytes of length, little-endian, and the message.

use std::io::{self, Read, Write};

/// A longer frame is not one of ours.
const MAX: usize = 64 * 1024;

/// Reads one message; `None` at the end of the stream.
///
/// # Errors
/// The stream breaks off, or a length is not possible.
pub fn read(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

/// Writes one message with one call.
///
/// # Errors
/// The stream is broken.
pub fn write(stream: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let mut frame = Vec::with_capacity(4 + bytes.len());
    frame.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    frame.extend_from_slice(bytes);
    stream.write_all(&frame)
}
