//! Who this process is, for readers outside it: the process context of OTEP 4719.
//!
//! It is published at the first message or span, from `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, or by
//! [`init`] with what the program says.

use crate::os::{self, NamedMemory, Sharing};
use crate::sampling;
use prost::Message;
use std::env;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

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

/// What the mapping holds. The payload is elsewhere.
#[repr(C)]
struct Header {
    signature: AtomicU64,
    version: AtomicU32,
    payload_len: AtomicU32,
    /// Zero while the rest changes.
    published_at: AtomicU64,
    payload: AtomicPtr<u8>,
}

const _: () = assert!(size_of::<Header>() == 32);

/// What is published, kept for a forked child.
static PAYLOAD: AtomicPtr<Vec<u8>> = AtomicPtr::new(ptr::null_mut());
static HEADER: AtomicPtr<Header> = AtomicPtr::new(ptr::null_mut());
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
        HEADER.store(ptr::null_mut(), Ordering::Relaxed);
        sampling::publish();
        announce(payload);
    }
}

fn resource(service_name: Option<&str>, attributes: &[(&str, &str)]) -> Vec<KeyValue> {
    let from_env = env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let from_env = from_env.split(',').filter_map(|pair| pair.split_once('='));
    let from_env = from_env.map(|(key, value)| (key.trim().to_owned(), percent_decode(value.trim())));
    let mut all: Vec<(String, String)> = Vec::new();
    let mut add = |key: String, value: String| {
        if !key.is_empty() && all.iter().all(|(known, _)| *known != key) {
            all.push((key, value));
        }
    };
    let name =
        service_name.map(str::to_owned).or_else(|| env::var("OTEL_SERVICE_NAME").ok()).filter(|name| !name.is_empty());
    if let Some(name) = name {
        add("service.name".to_owned(), name);
    }
    attributes.iter().for_each(|(key, value)| add((*key).to_owned(), (*value).to_owned()));
    from_env.for_each(|(key, value)| add(key, value));
    add("service.name".to_owned(), unknown_service());
    add("telemetry.sdk.name".to_owned(), env!("CARGO_PKG_NAME").to_owned());
    add("telemetry.sdk.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    add("telemetry.sdk.language".to_owned(), "rust".to_owned());
    all.into_iter().map(|(key, value)| pair(key, value)).collect()
}

fn pair(key: String, value: String) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { string_value: Some(value) }) }
}

fn unknown_service() -> String {
    let path = env::current_exe().unwrap_or_default();
    format!("unknown_service:{}", path.file_name().unwrap_or_default().to_string_lossy())
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
        resource: Some(Resource { attributes: resource }),
        // OTEP 4947 wants readers of the thread context to find this here.
        attributes: vec![pair("threadlocal.schema_version".to_owned(), "tls_v1".to_owned())],
    };
    // Leaked: readers may be at the old one, and a child that forks at any moment must find it whole. It happens once or
    // twice in a process's life.
    let payload = Box::leak(Box::new(context.encode_to_vec()));
    PAYLOAD.store(payload, Ordering::Release);
    announce(payload);
}

/// Lets readers find `payload`.
fn announce(payload: &'static [u8]) {
    let Some((header, is_new)) = header() else {
        return;
    };
    // Whoever takes the time out writes. Another thread that publishes at this very moment is done in no time.
    let mut tries = 0..1000;
    while !is_new && header.published_at.swap(0, Ordering::Acquire) == 0 && tries.next().is_some() {
        std::thread::yield_now();
    }
    fence(Ordering::SeqCst);
    header.payload_len.store(payload.len() as u32, Ordering::Relaxed);
    header.payload.store(payload.as_ptr().cast_mut(), Ordering::Relaxed);
    fence(Ordering::SeqCst);
    header.published_at.store(os::boottime().max(1), Ordering::Release);
}

/// The header of this process, and whether it has just been made.
fn header() -> Option<(&'static Header, bool)> {
    let known = HEADER.load(Ordering::Acquire);
    // SAFETY: null, or a mapping that was made below and is kept for good.
    if let Some(header) = unsafe { known.as_ref() } {
        return Some((header, false));
    }
    let memory = NamedMemory::new(c"OTEL_CTX", size_of::<Header>(), Sharing::Private).ok()?;
    let new: *mut Header = memory.as_ptr().cast();
    // SAFETY: the new mapping is large enough, page-aligned and zeroed; atomics may hold any value.
    let fresh = unsafe { &*new };
    fresh.signature.store(u64::from_ne_bytes(*b"OTEL_CTX"), Ordering::Relaxed);
    fresh.version.store(2, Ordering::Relaxed);
    match HEADER.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            memory.leak();
            Some((fresh, true))
        }
        // SAFETY: as above; another thread was faster, and this mapping goes.
        Err(other) => unsafe { other.as_ref() }.map(|header| (header, false)),
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
        let header = unsafe { &*header };
        let (payload, len) = (header.payload.load(Ordering::Acquire), header.payload_len.load(Ordering::Acquire));
        // SAFETY: what the header tells of, which is never freed.
        let payload = unsafe { std::slice::from_raw_parts(payload, len as usize) };
        assert_eq!(header.signature.load(Ordering::Acquire).to_ne_bytes(), *b"OTEL_CTX");
        assert_eq!(header.version.load(Ordering::Acquire), 2);
        assert!((1..=os::boottime()).contains(&header.published_at.load(Ordering::Acquire)));
        let context = ProcessContext::decode(payload).unwrap();
        let resource = context.resource.unwrap().attributes;
        assert_eq!(resource[..2], [("service.name", "shop"), ("a", "b")].map(|(k, v)| pair(k.into(), v.into())));
        assert!(maps.contains("tracer_sampling"));
        assert_eq!(context.attributes, [pair("threadlocal.schema_version".into(), "tls_v1".into())]);
    }

    #[test]
    fn percent_encoding() {
        for (text, expected) in [("a%20b", "a b"), ("%", "%"), ("%4", "%4"), ("%zz%41", "%zzA")] {
            assert_eq!(percent_decode(text), expected);
        }
    }
}
