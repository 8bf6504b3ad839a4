//! Any bytes are read as a span record or refused; what is read can be walked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_shim::record::SpanRecord;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(span) = SpanRecord::parse(bytes) {
        assert_eq!(span.items().count(), usize::from(span.head.items));
    }
});
