//! A capture in a file: the same items, so that `tracer replay` makes the same spans without root.
//!
//! The file begins with [`MAGIC`] and a JSON header line. Then come frames: kind (1 byte), length (u32, little endian),
//! content: a record of the eBPF programs as it was, or JSON.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Item;
use crate::model::{ProbeInfo, ProcessInfo};
use crate::output_file::{self, OutputError};

/// First line of a recording; the number is the version of the format.
pub const MAGIC: &[u8] = b"tracer recording 4\n";

const PROCESS: u8 = 1;
const PROBE: u8 = 2;
const RECORD: u8 = 3;
const END: u8 = 4;

/// Longer frames are damage: the largest record has 16 KiB of payload, and command lines are cut.
const MAX_FRAME: usize = 1 << 20;

/// What is said once about a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Seed of the ids: the same spans again.
    pub seed: u64,
    /// `CLOCK_REALTIME - CLOCK_MONOTONIC` when it was made, in nanoseconds.
    pub clock_offset_ns: i64,
}

/// What the programs had counted at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footer {
    /// Counters of the eBPF programs by name.
    pub counters: Vec<(String, u64)>,
}

/// Why a recording could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file system said no.
    #[error("recording {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The file could not be made.
    #[error("recording")]
    Output(#[from] OutputError),
    /// The file is something else.
    #[error("{0} is not a recording of this version of tracer: make one with `tracer record`")]
    NotARecording(PathBuf),
    /// The file is damaged.
    #[error("recording {path} is damaged at byte {at}; what came before was replayed")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
    },
}

/// Writes a recording.
#[derive(Debug)]
pub struct Writer {
    file: BufWriter<File>,
    path: PathBuf,
}

impl Writer {
    /// Creates the file, or empties it; only its owner can read it, because it holds all that the targets sent and received.
    pub fn create(path: &Path, header: &Header) -> Result<Self, RecordingError> {
        let failed = |source| RecordingError::Io { path: path.to_owned(), source };
        let mut file = BufWriter::with_capacity(1 << 20, output_file::create(path)?);
        let header = serde_json::to_string(header).map_err(|error| failed(error.into()))?;
        file.write_all(MAGIC).and_then(|()| writeln!(file, "{header}")).map_err(failed)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Appends an item.
    pub fn write(&mut self, item: &Item<'_>) -> Result<(), RecordingError> {
        match item {
            Item::Process(process) => self.json(PROCESS, process),
            Item::Probe(probe) => self.json(PROBE, probe),
            Item::Record(bytes) => self.frame(RECORD, bytes),
        }
    }

    /// Ends the recording.
    pub fn finish(mut self, footer: &Footer) -> Result<(), RecordingError> {
        self.json(END, footer)?;
        self.file.flush().map_err(|source| RecordingError::Io { path: self.path, source })
    }

    fn json<T: Serialize>(&mut self, kind: u8, value: &T) -> Result<(), RecordingError> {
        let bytes = serde_json::to_vec(value)
            .map_err(|error| RecordingError::Io { path: self.path.clone(), source: error.into() })?;
        self.frame(kind, &bytes)
    }

    fn frame(&mut self, kind: u8, bytes: &[u8]) -> Result<(), RecordingError> {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        self.file
            .write_all(&[kind])
            .and_then(|()| self.file.write_all(&len))
            .and_then(|()| self.file.write_all(bytes))
            .map_err(|source| RecordingError::Io { path: self.path.clone(), source })
    }
}

/// Reads a recording.
#[derive(Debug)]
pub struct Reader {
    file: BufReader<File>,
    path: PathBuf,
    header: Header,
    footer: Option<Footer>,
    buffer: Vec<u8>,
    at: u64,
}

impl Reader {
    /// Opens the file and reads its header.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let failed = |source| RecordingError::Io { path: path.to_owned(), source };
        let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(failed)?);
        let mut lines = Vec::new();
        for _ in 0..2 {
            file.by_ref().take(4096).read_until(b'\n', &mut lines).map_err(failed)?;
        }
        let header = lines
            .strip_prefix(MAGIC)
            .and_then(|line| serde_json::from_slice(line).ok())
            .ok_or_else(|| RecordingError::NotARecording(path.to_owned()))?;
        Ok(Self { file, path: path.to_owned(), header, footer: None, buffer: Vec::new(), at: lines.len() as u64 })
    }

    /// What was said once.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What the programs had counted, once the end was read.
    pub fn footer(&self) -> Option<&Footer> {
        self.footer.as_ref()
    }

    /// The next item, `None` at the end. A recording that was cut off ends with [`RecordingError::Damaged`].
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, RecordingError> {
        if self.footer.is_some() {
            return Ok(None);
        }
        let damaged = RecordingError::Damaged { path: self.path.clone(), at: self.at };
        let mut head = [0; 5];
        if self.file.read_exact(&mut head).is_err() {
            return Err(damaged);
        }
        let [kind, len @ ..] = head;
        let len = u32::from_le_bytes(len) as usize;
        if len > MAX_FRAME {
            return Err(damaged);
        }
        self.buffer.resize(len, 0);
        if self.file.read_exact(&mut self.buffer).is_err() {
            return Err(damaged);
        }
        self.at += (head.len() + len) as u64;
        match kind {
            RECORD => Ok(Some(Item::Record(&self.buffer))),
            PROCESS => match serde_json::from_slice::<ProcessInfo>(&self.buffer) {
                Ok(process) => Ok(Some(Item::Process(process))),
                Err(_) => Err(damaged),
            },
            PROBE => match serde_json::from_slice::<ProbeInfo>(&self.buffer) {
                Ok(probe) => Ok(Some(Item::Probe(probe))),
                Err(_) => Err(damaged),
            },
            END => match serde_json::from_slice(&self.buffer) {
                Ok(footer) => {
                    self.footer = Some(footer);
                    Ok(None)
                }
                Err(_) => Err(damaged),
            },
            _ => Err(damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Footer, Header, Reader, RecordingError, Writer};
    use crate::capture::Item;
    use crate::model::{CallOf, Operation, ProbeInfo, ProcessInfo};

    fn items() -> Vec<Item<'static>> {
        vec![
            Item::Process(ProcessInfo { id: Default::default(), service: "svc".into(), attributes: Vec::new() }),
            Item::Probe(ProbeInfo {
                index: 3,
                call_of: CallOf::Message(Operation::Encode),
                message_type: None,
                call: None,
            }),
            Item::Record(b"bytes"),
        ]
    }

    #[test]
    fn what_is_written_is_read_and_a_cut_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recording");
        let header = Header { seed: 7, clock_offset_ns: -5 };
        let mut writer = Writer::create(&path, &header).unwrap();
        for item in items() {
            writer.write(&item).unwrap();
        }
        let footer = Footer { counters: vec![("messages".into(), 1)] };
        writer.finish(&footer).unwrap();

        let mut reader = Reader::open(&path).unwrap();
        assert_eq!(reader.header(), &header);
        for item in items() {
            assert_eq!(reader.next_item().unwrap(), Some(item));
        }
        assert_eq!(reader.next_item().unwrap(), None);
        assert_eq!(reader.footer(), Some(&footer));

        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        for _ in items() {
            reader.next_item().unwrap();
        }
        assert!(matches!(reader.next_item(), Err(RecordingError::Damaged { .. })));
    }

    #[test]
    fn another_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other");
        std::fs::write(&path, "hello\nworld\n").unwrap();
        assert!(matches!(Reader::open(&path), Err(RecordingError::NotARecording(_))));
    }
}
