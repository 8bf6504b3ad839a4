//! Trace and span ids, and the generator that makes them.

use std::cell::Cell;
use std::fmt;

/// Declares an id of `$len` bytes.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        #[repr(transparent)]
        pub struct $name([u8; $len]);

        impl $name {
            /// The all-zero id, which W3C Trace Context forbids and the shim uses for "none".
            pub const INVALID: Self = Self([0; $len]);

            /// From bytes in the order in which the hexadecimal form shows them.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes, in the order in which the hexadecimal form shows them.
            pub const fn to_bytes(self) -> [u8; $len] {
                self.0
            }

            /// False for the all-zero id.
            #[inline]
            pub fn is_valid(self) -> bool {
                self.0 != [0; $len]
            }

            #[doc = concat!("From exactly ", stringify!($len), " times two hexadecimal digits of either case; `None` for")]
            /// anything else and for the all-zero id.
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut id = [0; $len];
                crate::hex::decode(text.as_bytes(), &mut id)?;
                Some(Self(id)).filter(|id| id.is_valid())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = [0; 2 * $len];
                f.pad(crate::hex::encode(&self.0, &mut text))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id! {
    /// Id of a trace: 16 bytes, shown as 32 lower-case hexadecimal digits.
    TraceId, 16
}

id! {
    /// Id of a span: 8 bytes, shown as 16 lower-case hexadecimal digits.
    SpanId, 8
}

/// A xoshiro256++ generator (Blackman and Vigna, public domain): four words of state so that the sequences of many
/// threads do not meet, no allocation, no lock, about a nanosecond per word.
pub(crate) struct Generator {
    state: Cell<[u64; 4]>,
}

impl Generator {
    /// Not seeded: the first use seeds it.
    pub(crate) const fn new() -> Self {
        Self { state: Cell::new([0; 4]) }
    }

    /// Forgets the state, so that the next use seeds it again.
    pub(crate) fn reset(&self) {
        self.state.set([0; 4]);
    }

    pub(crate) fn trace_id(&self) -> TraceId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.nonzero().to_ne_bytes());
        id[8..].copy_from_slice(&self.next().to_ne_bytes());
        TraceId(id)
    }

    pub(crate) fn span_id(&self) -> SpanId {
        SpanId(self.nonzero().to_ne_bytes())
    }

    fn nonzero(&self) -> u64 {
        loop {
            let value = self.next();
            if value != 0 {
                return value;
            }
        }
    }

    fn next(&self) -> u64 {
        let mut s = self.state.get();
        if s == [0; 4] {
            s = seed();
        }
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        self.state.set(s);
        result
    }
}

#[cold]
fn seed() -> [u64; 4] {
    crate::fork::watch();
    let mut words = [0; 4];
    for word in &mut words {
        *word = crate::os::random();
    }
    // All zero is the one state that the generator cannot leave.
    words[0] |= 1;
    words
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_generator_is_the_published_xoshiro256_plus_plus() {
        // First outputs for the state 1, 2, 3, 4, from the reference implementation.
        let generator = Generator { state: Cell::new([1, 2, 3, 4]) };
        let expected = [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386];
        assert_eq!([0; 4].map(|_: u64| generator.next()), expected);
    }

    #[test]
    fn ids_are_valid_and_do_not_repeat() {
        let generator = Generator::new();
        let spans: HashSet<_> = (0..10_000).map(|_| generator.span_id()).collect();
        let traces: HashSet<_> = (0..10_000).map(|_| generator.trace_id()).collect();
        assert_eq!((spans.len(), traces.len()), (10_000, 10_000));
        assert!(spans.iter().all(|id| id.is_valid()) && traces.iter().all(|id| id.is_valid()));
    }

    #[test]
    fn two_generators_differ() {
        assert_ne!(Generator::new().trace_id(), Generator::new().trace_id());
    }

    #[test]
    fn hex_round_trip_and_rejects() {
        let id = TraceId::from_bytes(core::array::from_fn(|i| i as u8 * 17));
        assert_eq!(id.to_string(), "00112233445566778899aabbccddeeff");
        assert_eq!(TraceId::from_hex("00112233445566778899AABBccddeeff"), Some(id));
        for bad in ["", "00", "0011223344556677", "g0112233445566778899aabbccddeeff", &"0".repeat(32), &"1".repeat(33)]
        {
            assert_eq!(TraceId::from_hex(bad), None, "{bad}");
        }
        assert_eq!(SpanId::from_hex("00000000000000ff").unwrap().to_bytes(), [0, 0, 0, 0, 0, 0, 0, 255]);
    }
}
