//! From a binary to a probe plan. Pure: bytes in, plan out.
