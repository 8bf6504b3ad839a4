//! OTLP-JSON lines: one `ExportTraceServiceRequest` per line.

use std::fs::File;
use std::future::Future;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::otlp::convert;
use super::{Cause, Exporter, Feed, Tally};
use crate::output_file::{self, OutputError};

/// Lines are written when this much has gathered.
const BUFFER_BYTES: usize = 256 << 10;
/// Or after this time.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// Writes spans into a file.
#[derive(Debug)]
pub struct FileExporter {
    path: PathBuf,
    file: File,
}

impl FileExporter {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// When it cannot be opened for writing.
    pub fn create(path: &Path) -> Result<Self, OutputError> {
        Ok(Self { path: path.to_owned(), file: output_file::create(path)? })
    }
}

impl Exporter for FileExporter {
    fn name(&self) -> String {
        format!("file:{}", self.path.display())
    }

    fn run(self: Box<Self>, mut feed: Feed) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let mut lines = Lines::new(self.file, Arc::clone(feed.tally()));
            let mut flush_at = Instant::now() + FLUSH_INTERVAL;
            loop {
                // Nothing is waiting for the next flush most of the time.
                let next = if lines.buffer.is_empty() {
                    let next = feed.next().await;
                    flush_at = Instant::now() + FLUSH_INTERVAL;
                    Ok(next)
                } else {
                    timeout_at(flush_at, feed.next()).await
                };
                match next {
                    Ok(Some(batch)) => {
                        lines.push(&convert::request(std::slice::from_ref(&batch)), batch.spans.len() as u64);
                        if lines.buffer.len() >= BUFFER_BYTES {
                            lines.flush();
                        }
                    }
                    Ok(None) => return lines.flush(),
                    Err(_) => lines.flush(),
                }
            }
        })
    }
}

/// A buffer of whole lines in front of a file.
struct Lines {
    file: File,
    tally: Arc<Tally>,
    buffer: Vec<u8>,
    /// Spans in the buffer.
    spans: u64,
    /// Where the last good line ends.
    end: u64,
}

impl Lines {
    fn new(file: File, tally: Arc<Tally>) -> Self {
        Self { file, tally, buffer: Vec::new(), spans: 0, end: 0 }
    }

    fn push(&mut self, request: &impl serde::Serialize, spans: u64) {
        let before = self.buffer.len();
        match serde_json::to_writer(&mut self.buffer, request) {
            Ok(()) => {
                self.buffer.push(b'\n');
                self.spans += spans;
            }
            Err(error) => {
                self.buffer.truncate(before);
                self.tally.dropped(Cause::EncodeError, spans);
                self.tally.failed(error.to_string());
            }
        }
    }

    /// Writes the buffer whole, or cuts the file back so that every line in it stays whole.
    fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let spans = std::mem::take(&mut self.spans);
        match self.file.write_all(&self.buffer) {
            Ok(()) => {
                self.end += self.buffer.len() as u64;
                self.tally.exported(spans);
            }
            Err(error) => {
                self.tally.dropped(Cause::WriteFailed, spans);
                self.tally.failed(error.to_string());
                self.cut();
            }
        }
        self.buffer.clear();
    }

    /// Takes back what was written of a line that broke off.
    fn cut(&mut self) {
        // Pipes and devices cannot be cut; whoever reads them has seen the broken line already.
        let _ = self.file.set_len(self.end).and_then(|()| self.file.seek(SeekFrom::Start(self.end)));
    }
}

#[cfg(test)]
mod tests;
