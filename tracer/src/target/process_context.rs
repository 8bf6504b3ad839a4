//! What a process publishes of itself: the process context of OTEP 4719, version 2.
//!
//! A mapping named `OTEL_CTX` begins with a 32-byte header: `OTEL_CTX`, u32 version, u32 payload size, u64 time of publication
//! (0 while it changes), u64 address of the payload. The payload is a protobuf `ProcessContext` whose field 1 is an OTLP
//! `Resource`. All of it is the target's memory: bounded, checked and never trusted.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use super::Process;

const SIGNATURE: &[u8; 8] = b"OTEL_CTX";
const VERSION: u32 = 2;
/// A larger payload is not believed.
const MAX_PAYLOAD: usize = 64 << 10;

#[derive(Clone, PartialEq, prost::Message)]
struct ProcessContext {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
}

/// Resource attributes that the process publishes; none if it publishes nothing that can be read.
pub fn published_attributes(process: &Process) -> Vec<(String, String)> {
    read(process).unwrap_or_default()
}

fn read(process: &Process) -> Option<Vec<(String, String)>> {
    let memory = File::open(process.file("mem")).ok()?;
    let (start, len) = process.published_context()?;
    if len < 32 {
        return None;
    }
    let mut header = [0; 32];
    memory.read_exact_at(&mut header, start).ok()?;
    let published_at = &header[16..24];
    if &header[..8] != SIGNATURE || header[8..12] != VERSION.to_le_bytes() || published_at == [0; 8] {
        return None;
    }
    let size = u32::from_le_bytes(header[12..16].try_into().ok()?) as usize;
    let address = u64::from_le_bytes(header[24..].try_into().ok()?);
    if size > MAX_PAYLOAD {
        return None;
    }
    let mut payload = vec![0; size];
    memory.read_exact_at(&mut payload, address).ok()?;
    // Changed while it was read: the next try finds it whole.
    let mut again = [0; 8];
    memory.read_exact_at(&mut again, start + 16).ok()?;
    if again != published_at {
        return None;
    }
    let resource = ProcessContext::decode(payload.as_slice()).ok()?.resource?;
    Some(
        resource
            .attributes
            .into_iter()
            .filter_map(|attribute| Some((attribute.key, value(attribute.value?)?)))
            .collect(),
    )
}

fn value(value: AnyValue) -> Option<String> {
    match value.value? {
        any_value::Value::StringValue(text) => Some(text),
        any_value::Value::IntValue(number) => Some(number.to_string()),
        any_value::Value::BoolValue(truth) => Some(truth.to_string()),
        any_value::Value::DoubleValue(number) => Some(number.to_string()),
        _ => None,
    }
}
