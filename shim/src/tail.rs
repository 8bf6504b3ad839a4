//! The end of a message that comes in several pieces.

use crate::context::Context;
use crate::header::{self, TRAILER_LEN};
use bytes::{Buf, Bytes};
use prost::encoding::encoded_len_varint;

/// A buffer that remembers the last bytes that were taken from it.
#[derive(Debug)]
pub(crate) struct Tail<B> {
    inner: B,
    taken: usize,
    last: [u8; TRAILER_LEN],
}

impl<B: Buf> Tail<B> {
    pub(crate) fn new(inner: B) -> Self {
        Self { inner, taken: 0, last: [0; TRAILER_LEN] }
    }

    /// The header of the message that everything taken so far was.
    pub(crate) fn header(&self) -> Option<Context> {
        header::parse(&self.last, self.taken.checked_sub(TRAILER_LEN)?)
    }

    /// The header of the message that everything taken so far was, its length included.
    pub(crate) fn header_length_delimited(&self) -> Option<Context> {
        let prefix = (1..=10).find(|prefix| {
            let len = self.taken.saturating_sub(*prefix);
            encoded_len_varint(len as u64) == *prefix
        })?;
        header::parse(&self.last, self.taken.checked_sub(prefix + TRAILER_LEN)?)
    }

    fn remember(&mut self, bytes: &[u8]) {
        self.taken += bytes.len();
        let bytes = &bytes[bytes.len().saturating_sub(TRAILER_LEN)..];
        self.last.rotate_left(bytes.len() % TRAILER_LEN);
        self.last[TRAILER_LEN - bytes.len()..].copy_from_slice(bytes);
    }
}

impl<B: Buf> Buf for Tail<B> {
    fn remaining(&self) -> usize {
        self.inner.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.inner.chunk()
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let len = self.inner.chunk().len().min(count);
            assert!(len > 0, "cannot advance past the end");
            // Only the last bytes matter, and they fit here.
            let mut kept = [0; TRAILER_LEN];
            let kept = &mut kept[..len.min(TRAILER_LEN)];
            kept.copy_from_slice(&self.inner.chunk()[len - kept.len()..len]);
            self.taken += len - kept.len();
            self.remember(kept);
            self.inner.advance(len);
            count -= len;
        }
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        let bytes = self.inner.copy_to_bytes(len);
        self.remember(&bytes);
        bytes
    }
}
