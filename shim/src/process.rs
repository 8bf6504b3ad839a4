//! Who this process is, for readers outside it: the process context of OTEP 4719.
//!
//! It is published at the first message or span, from `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, or by
//! [`init`] with what the program says.

use crate::os::{self, NamedMemory, Sharing};
use crate::sampling;
use prost::Message;
use std::env;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence};

#[derive(Clone, PartialEq, prost::Message)]
struct ProcessContext {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

/// The text case of OTLP's `AnyValue`, the only one used here.
#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(string, optional, tag = "1")]
    string_value: Option<String>,
}

/// The first bytes of the mapping; the payload follows.
#[repr(C)]
struct Header {
    signature: [u8; 8],
    version: u32,
    payload_len: u32,
    published_at: AtomicU64,
    payload: *const u8,
}

const _: () = assert!(size_of::<Header>() == 32);

/// What is published, kept for a forked child.
static PAYLOAD: AtomicPtr<Vec<u8>> = AtomicPtr::new(ptr::null_mut());
static MAPPING: AtomicPtr<NamedMemory> = AtomicPtr::new(ptr::null_mut());
static PUBLISHED: AtomicBool = AtomicBool::new(false);

/// Names this process for the agent and for any other reader of OTEP 4719: the OTLP resource of its spans.
///
/// Without this call the name is that of `OTEL_SERVICE_NAME`, else `unknown_service:` and the executable's. `attributes` go
/// before those of `OTEL_RESOURCE_ATTRIBUTES`. A later call replaces an earlier one.
///
/// ```
/// tracer_shim::init("risk_control", &[("deployment.environment.name", "staging")]);
/// ```
pub fn init(service_name: &str, attributes: &[(&str, &str)]) {
    if !PUBLISHED.swap(true, Ordering::Relaxed) {
        sampling::publish();
    }
    publish(resource(Some(service_name), attributes));
}

/// Publishes the default context unless something has been published.
pub(crate) fn publish_once() {
    if !PUBLISHED.swap(true, Ordering::Relaxed) {
        sampling::publish();
        publish(resource(None, &[]));
    }
}

/// In a forked child: the parent's mappings are not inherited.
pub(crate) fn republish() {
    let payload = PAYLOAD.load(Ordering::Acquire);
    // SAFETY: null, or a vector that `publish` leaked.
    if let Some(payload) = unsafe { payload.as_ref() } {
        MAPPING.store(ptr::null_mut(), Ordering::Relaxed);
        sampling::publish();
        map(payload);
    }
}

fn resource(service_name: Option<&str>, attributes: &[(&str, &str)]) -> Vec<KeyValue> {
    let from_env = env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let from_env = from_env.split(',').filter_map(|pair| pair.split_once('='));
    let from_env =
        from_env.map(|(key, value)| (key.trim().to_owned(), percent_decode(value.trim())));
    let mut all: Vec<(String, String)> = Vec::new();
    let mut add = |key: String, value: String| {
        if !key.is_empty() && all.iter().all(|(known, _)| *known != key) {
            all.push((key, value));
        }
    };
    let name = service_name
        .map(str::to_owned)
        .or_else(|| env::var("OTEL_SERVICE_NAME").ok())
        .filter(|name| !name.is_empty());
    if let Some(name) = name {
        add("service.name".to_owned(), name);
    }
    attributes
        .iter()
        .for_each(|(key, value)| add((*key).to_owned(), (*value).to_owned()));
    from_env.for_each(|(key, value)| add(key, value));
    add("service.name".to_owned(), unknown_service());
    add(
        "telemetry.sdk.name".to_owned(),
        env!("CARGO_PKG_NAME").to_owned(),
    );
    add(
        "telemetry.sdk.version".to_owned(),
        env!("CARGO_PKG_VERSION").to_owned(),
    );
    add("telemetry.sdk.language".to_owned(), "rust".to_owned());
    all.into_iter()
        .map(|(key, value)| KeyValue {
            key,
            value: Some(AnyValue {
                string_value: Some(value),
            }),
        })
        .collect()
}

fn unknown_service() -> String {
    let path = env::current_exe().unwrap_or_default();
    format!(
        "unknown_service:{}",
        path.file_name().unwrap_or_default().to_string_lossy()
    )
}

/// Values of `OTEL_RESOURCE_ATTRIBUTES` are percent-encoded.
fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let mut byte = [0];
        match after.get(..2) {
            Some(digits) if first == b'%' && crate::hex::decode(digits, &mut byte).is_some() => {
                bytes.push(byte[0]);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn publish(resource: Vec<KeyValue>) {
    crate::fork::watch();
    let context = ProcessContext {
        resource: Some(Resource {
            attributes: resource,
        }),
        attributes: Vec::new(),
    };
    // Leaked: a child that forks at any moment must find it whole. It happens once or twice in a process's life.
    let payload = Box::leak(Box::new(context.encode_to_vec()));
    map(payload);
    PAYLOAD.store(payload, Ordering::Release);
}

fn map(payload: &[u8]) {
    let len = size_of::<Header>() + payload.len();
    let Ok(memory) = NamedMemory::new(c"OTEL_CTX", len, Sharing::Private) else {
        return;
    };
    let start = memory.as_ptr();
    let header: *mut Header = start.cast();
    // SAFETY: the new mapping is `len` bytes, page-aligned, and nobody else writes to it. Readers take it as published
    // once the time is set, which is the last store.
    unsafe {
        let body = start.add(size_of::<Header>());
        ptr::copy_nonoverlapping(payload.as_ptr(), body, payload.len());
        header.write(Header {
            signature: *b"OTEL_CTX",
            version: 2,
            payload_len: payload.len() as u32,
            published_at: AtomicU64::new(0),
            payload: body,
        });
        fence(Ordering::SeqCst);
        (*header)
            .published_at
            .store(os::boottime().max(1), Ordering::Release);
    }
    let old = MAPPING.swap(Box::into_raw(Box::new(memory)), Ordering::AcqRel);
    if !old.is_null() {
        // SAFETY: the swap made this thread the only owner of the box that an earlier call made.
        drop(unsafe { Box::from_raw(old) });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn readers_find_the_context() {
        init("first", &[]);
        init("shop", &[("a", "b"), ("service.name", "ignored")]);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.contains("OTEL_CTX")).unwrap();
        assert_eq!(maps.matches("OTEL_CTX").count(), 1, "{maps}");
        let address = usize::from_str_radix(line.split_once('-').unwrap().0, 16).unwrap();
        let header: *const Header = ptr::with_exposed_provenance(address);
        // SAFETY: the mapping that `init` made.
        let (header, payload) = unsafe {
            let header = &*header;
            (
                header,
                std::slice::from_raw_parts(header.payload, header.payload_len as usize),
            )
        };
        assert_eq!((&header.signature, header.version), (b"OTEL_CTX", 2));
        assert!((1..=os::boottime()).contains(&header.published_at.load(Ordering::Acquire)));
        let context = ProcessContext::decode(payload).unwrap();
        let pairs: Vec<_> = context
            .resource
            .unwrap()
            .attributes
            .into_iter()
            .map(|pair| (pair.key, pair.value.unwrap().string_value.unwrap()))
            .collect();
        assert_eq!(
            pairs[..2],
            [
                ("service.name".into(), "shop".into()),
                ("a".into(), "b".into())
            ]
        );
        assert!(maps.contains("tracer_sampling"));
    }

    #[test]
    fn percent_encoding() {
        for (text, expected) in [
            ("a%20b", "a b"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
        ] {
            assert_eq!(percent_decode(text), expected);
        }
    }
}
