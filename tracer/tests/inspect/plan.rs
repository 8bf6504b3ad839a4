//! What the plans of the sample must say.

use std::collections::BTreeSet;

use tracer::inspect::{ExitKind, MessageFn, Operation, ProbePlan, RemarkKind, TypeSource, inspect_file};
use tracer_common::map::{
    BUFFER_INPUT, BUFFER_OUTPUT, BUFFER_RESULT, BUFFER_SLICE, BUFFER_UNKNOWN, PROBE_ENCODE_RESULT,
};

use crate::sample::{FAT_LTO, LEGACY, V0, stripped};

const MESSAGES: [&str; 8] = ["Order", "Leg", "Ping", "Price", "Empty", "Envelope", "Event", "other::Order"];

fn function<'p>(plan: &'p ProbePlan, operation: Operation, message: &str, buffer: Option<&str>) -> &'p MessageFn {
    let message = format!("inspect_sample::{message}");
    let mut found = plan.messages.iter().filter(|function| {
        function.operation == operation
            && function.message_type.as_deref() == Some(&message)
            && function.buffer_type.as_deref() == buffer
    });
    let first = found.next().unwrap_or_else(|| panic!("no {} of {message} from {buffer:?}", operation.name()));
    assert!(found.next().is_none(), "two {} of {message} from {buffer:?}", operation.name());
    first
}

fn place(function: &MessageFn) -> (u8, u8, u8, u8, u8) {
    let probe = function.probe;
    (probe.buffer, probe.reg_a, probe.reg_b, probe.ptr_offset, probe.len_offset)
}

#[test]
fn v0_symbols_say_everything() {
    let plan = V0.plan();
    assert!(plan.is_rust && !plan.stripped && !plan.static_exe);
    assert!(plan.producer.as_deref().is_some_and(|producer| producer.starts_with("rustc version 1.")));
    assert!(plan.messages.iter().all(|function| function.type_source == TypeSource::Symbol));

    let encode = |buffer| function(&plan, Operation::Encode, "Order", Some(buffer));
    assert_eq!(place(encode("alloc::vec::Vec<u8>")), (BUFFER_OUTPUT, 2, 0, 8, 16));
    assert_eq!(place(encode("bytes::bytes_mut::BytesMut")), (BUFFER_OUTPUT, 2, 0, 0, 8));
    assert_eq!(encode("alloc::vec::Vec<u8>").probe.flags, PROBE_ENCODE_RESULT);
    // Its pointer and length move while it is written to.
    assert_eq!(encode("&mut [u8]").probe.buffer, BUFFER_UNKNOWN);
    assert_eq!(place(function(&plan, Operation::EncodeToVec, "Order", None)), (BUFFER_RESULT, 0, 0, 8, 16));
    assert_eq!(
        place(function(&plan, Operation::EncodeLengthDelimitedToVec, "Order", None)),
        (BUFFER_RESULT, 0, 0, 8, 16)
    );
    let delimited = function(&plan, Operation::EncodeLengthDelimited, "Order", Some("alloc::vec::Vec<u8>"));
    assert_eq!(place(delimited), (BUFFER_OUTPUT, 2, 0, 8, 16));

    // The result of a large message is written through rdi, so the buffer comes behind it.
    let decode = |message, buffer| place(function(&plan, Operation::Decode, message, Some(buffer)));
    assert_eq!(decode("Order", "&[u8]"), (BUFFER_SLICE, 1, 2, 0, 0));
    assert_eq!(decode("Order", "bytes::bytes::Bytes"), (BUFFER_INPUT, 1, 0, 8, 16));
    assert_eq!(decode("Order", "bytes::bytes_mut::BytesMut"), (BUFFER_INPUT, 1, 0, 0, 8));
    assert_eq!(decode("Order", "&mut &[u8]"), (BUFFER_INPUT, 1, 0, 0, 8));
    // That of a small one comes in registers.
    assert_eq!(decode("Ping", "&[u8]"), (BUFFER_SLICE, 0, 1, 0, 0));
    assert_eq!(decode("Ping", "bytes::bytes::Bytes"), (BUFFER_INPUT, 0, 0, 8, 16));
    let merge = function(&plan, Operation::Merge, "Order", Some("&[u8]"));
    assert_eq!(place(merge), (BUFFER_SLICE, 1, 2, 0, 0));
    assert_eq!(merge.probe.flags, 0);
    let delimited = function(&plan, Operation::DecodeLengthDelimited, "Event", Some("&[u8]"));
    assert_eq!(place(delimited), (BUFFER_SLICE, 1, 2, 0, 0));
}

#[test]
fn every_site_is_one_that_the_kernel_emulates() {
    for plan in [V0.plan(), LEGACY.plan()] {
        assert!(plan.messages.len() > 40, "{} functions", plan.messages.len());
        for function in &plan.messages {
            assert!(function.entry.cheap && function.entry.sp_delta >= 0, "{function:?}");
            assert_eq!(function.exit_kind, ExitKind::AfterCall, "{function:?}");
            assert!(!function.exits.is_empty() && function.exits.iter().all(|exit| exit.cheap), "{function:?}");
        }
    }
}

#[test]
fn legacy_symbols_never_get_a_wrong_type() {
    let plan = LEGACY.plan();
    let known: BTreeSet<String> =
        MESSAGES.into_iter().flat_map(|message| [format!("inspect_sample::{message}"), message.to_owned()]).collect();
    let found: Vec<&str> = plan.messages.iter().filter_map(|function| function.message_type.as_deref()).collect();
    assert!(found.iter().all(|message| known.contains(*message)), "{found:?}");
    // Small messages have nothing in their encode functions that names them.
    assert!(found.len() * 3 > plan.messages.len() * 2, "{} of {}", found.len(), plan.messages.len());

    let decode = function(&plan, Operation::Decode, "other::Order", Some("&[u8]"));
    assert_eq!(decode.type_source, TypeSource::ErrorString);
    let encode = function(&plan, Operation::Encode, "Order", Some("alloc::vec::Vec<u8>"));
    assert_eq!(encode.type_source, TypeSource::Callees);
    assert_eq!(place(encode), (BUFFER_OUTPUT, 2, 0, 8, 16));
    let small = plan.messages.iter().find(|function| {
        function.message_type.as_deref() == Some("Ping") && function.buffer_type.as_deref() == Some("&[u8]")
    });
    assert!(small.is_some(), "the name that Ping pushes on its errors");
}

#[test]
fn errors_and_panics_have_their_functions() {
    let plan = LEGACY.plan();
    assert_eq!(plan.panics.len(), 1, "{:?}", plan.panics);
    assert!(plan.errors.iter().any(|function| function.name.contains("DecodeErrorKind")), "{:?}", plan.errors);
    assert!(plan.errors.iter().chain(&plan.panics).all(|function| function.entry.cheap));
}

#[test]
fn finds_probes_and_thread_local_variables() {
    let plan = LEGACY.plan();
    let note = plan.notes.iter().find(|note| note.provider == "sample").unwrap();
    assert_eq!((note.name.as_str(), note.arguments.as_str()), ("start", "8@%rdi"));
    assert!(note.site.cheap);
    let bytes = std::fs::read(LEGACY.path()).unwrap();
    assert_eq!(bytes[note.site.offset as usize], 0x90, "the site is the nop");
    let semaphore = note.semaphore.unwrap();
    assert_eq!(bytes[semaphore.offset as usize..][..2], [0, 0]);
    assert_ne!(semaphore.address, 0);

    let variable = plan.tls.thread_context.unwrap();
    assert_eq!((variable.name.as_str(), variable.size), ("otel_thread_ctx_v1", 8));
    assert!(variable.static_offset.is_some_and(|offset| offset < 0));
    assert!(plan.tls.tokio_context.is_none());
}

#[test]
fn says_what_would_help() {
    let kinds = |plan: &ProbePlan| plan.remarks.iter().map(|remark| remark.kind).collect::<BTreeSet<_>>();
    assert!(kinds(&LEGACY.plan()).contains(&RemarkKind::UnknownType));
    // Symbols with types could not say more, but of calls that are inlined there is none: `merge_length_delimited` of the sample.
    let typed = V0.plan();
    assert_eq!(kinds(&typed).into_iter().filter(|kind| *kind == RemarkKind::Inlined).count(), 1);
    assert!(typed.remarks.iter().all(|remark| remark.kind == RemarkKind::Inlined || remark.remedy.is_none()));
    let stripped = inspect_file(&stripped(&LEGACY.path())).unwrap();
    assert!(stripped.stripped && stripped.is_rust && stripped.messages.is_empty());
    let remark = stripped.remarks.iter().find(|remark| remark.kind == RemarkKind::Stripped).unwrap();
    assert!(remark.remedy.as_deref().is_some_and(|remedy| remedy.contains("strip")));
    let inlined = FAT_LTO.plan();
    assert!(inlined.messages.len() < LEGACY.plan().messages.len() / 2);
    assert!(kinds(&inlined).contains(&RemarkKind::UnknownType), "{:?}", inlined.remarks);
}

#[test]
fn libc_has_its_socket_functions() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains("/libc.so"));
    let plan = inspect_file(libc.expect("the test runs with a shared libc").as_ref()).unwrap();
    let names: BTreeSet<&str> = plan.sockets.iter().map(|function| function.name.as_str()).collect();
    let expected = [
        "close", "connect", "read", "readv", "recv", "recvfrom", "recvmsg", "send", "sendmsg", "sendto", "write",
        "writev",
    ];
    assert_eq!(names, expected.into_iter().collect());
    assert!(!plan.is_rust && plan.messages.is_empty());
}

#[test]
fn renders_both_ways() {
    let plan = LEGACY.plan();
    let table = tracer::inspect::render::table(&plan, 160);
    assert!(table.contains("inspect_sample::Order") && table.contains("behind calls"), "{table}");
    let json: serde_json::Value = serde_json::from_str(&tracer::inspect::render::json(&plan).unwrap()).unwrap();
    assert_eq!(json["messages"].as_array().unwrap().len(), plan.messages.len());
    assert_eq!(json["stripped"], false);
}
