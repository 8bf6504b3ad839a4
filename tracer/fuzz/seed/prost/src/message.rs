//! A stand-in for prost that is small enough for a fuzzer: same names, same file.

/// Writes bytes.
pub trait BufMut {
    /// Adds one.
    fn put(&mut self, byte: u8);
}

/// As `prost::Message`.
pub trait Message: Sized {
    /// Bytes of the fields.
    fn encoded_len(&self) -> usize;
    /// Writes the fields.
    fn encode_raw(&self, buf: &mut impl BufMut);

    /// Writes the message.
    #[inline(always)]
    fn encode<B: BufMut>(&self, buf: &mut B) -> bool {
        let required = self.encoded_len();
        if required > 64 {
            return false;
        }
        self.encode_raw(buf);
        true
    }
}
