//! The USDT site of a real binary under a real kernel: this test listens to itself.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use object::{Object, ObjectSymbol, SymbolKind};
use support::{Listener, offsets, sites};
use tracer_shim::record::{Item, SpanRecord, Value};
use tracer_shim::{Context, Message};

/// The kernel counts probes per file, so tests of this file take turns.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn there_is_one_site_and_every_way_to_attach_sees_each_span_once() {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let path = std::env::current_exe().unwrap();
    assert_eq!(sites(&path).len(), 1);
    for offset in offsets() {
        let mut listener = Listener::attach(&path, offset).unwrap();
        let mut expected = Vec::new();
        for n in 0..1000 {
            let mut span = tracer_shim::span("work");
            assert!(span.is_recorded(), "the semaphore is up");
            span.attribute("n", n);
            expected.push((n, span.context()));
        }
        let mut seen = Vec::new();
        listener.drain(|bytes| {
            let span = SpanRecord::parse(bytes).unwrap();
            let Some(Item::Attribute("n", Value::Int(n))) = span.items().next() else { panic!("{span:?}") };
            assert_eq!(span.name, "work");
            seen.push((n as i32, (span.head.trace_id, span.head.span_id)));
        });
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(n, context): (i32, Context)| (n, (context.trace_id().to_bytes(), context.span_id().to_bytes())))
            .collect();
        assert_eq!(seen, expected);
        drop(listener);
        assert!(!tracer_shim::span("after").is_recorded(), "the semaphore is down again");
    }
}

/// A leaf-like function whose locals may live below the stack pointer, with the site inlined in the middle of its work.
#[inline(never)]
fn with_live_locals(seed: u64) -> u64 {
    let mut locals = [0_u64; 12];
    for (i, local) in locals.iter_mut().enumerate() {
        // SAFETY: a reference to a local.
        unsafe { std::ptr::write_volatile(local, seed.rotate_left(i as u32)) };
    }
    drop(tracer_shim::Span::with_parent(Context::NONE, "red zone"));
    let mut sum = 0;
    for local in &locals {
        // SAFETY: a reference to a local.
        sum ^= unsafe { std::ptr::read_volatile(local) };
    }
    sum
}

#[test]
fn no_byte_of_the_stack_changes_under_the_probe() {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let path = std::env::current_exe().unwrap();
    let expected: Vec<_> = (0..64).map(|seed| (seed, with_live_locals(seed))).collect();
    for offset in offsets() {
        let mut listener = Listener::attach(&path, offset).unwrap();
        for round in 0..200 {
            for (seed, value) in &expected {
                assert_eq!(with_live_locals(*seed), *value, "round {round} at +{offset}");
            }
        }
        assert_eq!(listener.drain(|bytes| assert!(SpanRecord::parse(bytes).is_ok())), 200 * 64);
    }
}

#[test]
fn a_message_is_one_hit() {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let path = std::env::current_exe().unwrap();
    let mut listener = Listener::attach(&path, 0).unwrap();
    let bytes = "text".to_owned().encode_to_vec();
    assert_eq!(String::decode(&bytes[..]).unwrap(), "text");
    let mut names = Vec::new();
    listener.drain(|bytes| {
        let span = SpanRecord::parse(bytes).unwrap();
        names.push((span.operation as u8, span.name.to_owned(), span.head.size));
    });
    let size = bytes.len() as u64;
    assert_eq!(names, [(1, "alloc::string::String".to_owned(), size), (2, "alloc::string::String".to_owned(), size)]);
}

#[test]
fn the_thread_context_is_in_the_dynamic_symbol_table_and_needs_no_library() {
    let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let symbol = file.dynamic_symbols().find(|symbol| symbol.name() == Ok("otel_thread_ctx_v1"));
    let symbol = symbol.expect("otel_thread_ctx_v1 is exported");
    assert_eq!((symbol.kind(), symbol.size()), (SymbolKind::Tls, 8));
    let libraries = file.section_by_name_bytes(b".dynstr").unwrap();
    let needed = object::ObjectSection::data(&libraries).unwrap();
    assert!(!needed.windows(13).any(|name| name == b"otelctxexport"));
}
