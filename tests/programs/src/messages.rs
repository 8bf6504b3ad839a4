//! Messages as a trading service has them, and rounds of every prost call on them.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use prost::Message;
use tracer_proto::tracer::TraceContext;

/// A sub-order.
#[derive(Clone, PartialEq, Message)]
pub struct Order {
    /// Number.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Instrument.
    #[prost(string, tag = "2")]
    pub symbol: String,
    /// Legs.
    #[prost(message, repeated, tag = "3")]
    pub legs: Vec<Leg>,
    /// Free text.
    #[prost(bytes = "vec", tag = "4")]
    pub note: Vec<u8>,
    /// Trace header (A4).
    #[prost(message, optional, tag = "15")]
    pub trace_context: Option<TraceContext>,
}

/// Part of an order.
#[derive(Clone, PartialEq, Message)]
pub struct Leg {
    /// Price.
    #[prost(sint64, tag = "1")]
    pub price: i64,
    /// Quantity.
    #[prost(uint32, tag = "2")]
    pub quantity: u32,
}

/// An answer.
#[derive(Clone, PartialEq, Message)]
pub struct Report {
    /// Of which order.
    #[prost(uint64, tag = "1")]
    pub order_id: u64,
    /// Words.
    #[prost(string, repeated, tag = "2")]
    pub text: Vec<String>,
    /// Result.
    #[prost(double, tag = "3")]
    pub price: f64,
}

/// An order whose encoded size depends on `id`.
pub fn order(id: u64) -> Order {
    Order {
        id,
        symbol: "ACME.N".to_owned(),
        legs: (0..id % 4).map(|leg| Leg { price: -100 - leg as i64, quantity: leg as u32 + 1 }).collect(),
        note: vec![7; (id % 40) as usize],
        trace_context: None,
    }
}

/// A report whose encoded size depends on `id`.
pub fn report(id: u64) -> Report {
    Report { order_id: id, text: vec!["filled".to_owned(); 1 + (id % 3) as usize], price: 1.5 }
}

/// One call that the target made and timed itself.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// Name of the method.
    pub operation: &'static str,
    /// Short name of the message type.
    pub message: &'static str,
    /// Bytes of the message, its length prefix not counted.
    pub size: usize,
    /// How long it took, by the target's clock.
    pub nanos: u64,
}

/// An error if nothing was encoded.
#[inline(always)]
fn filled(bytes: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    anyhow::ensure!(!bytes.is_empty(), "an empty message");
    Ok(bytes)
}

macro_rules! timed {
    ($log:expr, $operation:literal, $message:literal, $size:expr, $call:expr) => {{
        let start = Instant::now();
        // What a service does next: it looks at the result.
        let result = $call;
        let nanos = start.elapsed().as_nanos() as u64;
        $log.push(Timed { operation: $operation, message: $message, size: $size, nanos });
        result
    }};
}

macro_rules! round {
    ($name:ident, $salt:literal, $doc:literal) => {
        #[doc = $doc]
        #[inline(never)]
        pub fn $name(id: u64, log: &mut Vec<Timed>) -> anyhow::Result<()> {
            let order = order(id + $salt);
            let size = order.encoded_len();
            let mut vec = Vec::new();
            timed!(log, "encode", "Order", size, order.encode(&mut vec)?);
            let mut bytes = BytesMut::new();
            timed!(log, "encode", "Order", size, order.encode(&mut bytes)?);
            let owned = timed!(log, "encode_to_vec", "Order", size, filled(order.encode_to_vec())?);
            let framed = timed!(
                log,
                "encode_length_delimited_to_vec",
                "Order",
                size,
                filled(order.encode_length_delimited_to_vec())?
            );
            let mut buffer = Vec::new();
            timed!(log, "encode_length_delimited", "Order", size, order.encode_length_delimited(&mut buffer)?);
            let one = timed!(log, "decode", "Order", size, Order::decode(vec.as_slice())?);
            let two = timed!(log, "decode", "Order", size, Order::decode(bytes.freeze())?);
            let three = timed!(
                log,
                "decode_length_delimited",
                "Order",
                size,
                Order::decode_length_delimited(framed.as_slice())?
            );
            let mut four = Order::default();
            timed!(log, "merge", "Order", size, four.merge(owned.as_slice())?);
            anyhow::ensure!(one == order && two == order && three == order && four == order && framed == buffer);

            let report = report(id + $salt);
            let size = report.encoded_len();
            let vec = timed!(log, "encode_to_vec", "Report", size, filled(report.encode_to_vec())?);
            let one = timed!(log, "decode", "Report", size, Report::decode(Bytes::from(vec))?);
            anyhow::ensure!(one == report);
            Ok(())
        }
    };
}

// Three of them: what is called from one place only is inlined there, and then there is nothing to attach to.
round!(round_one, 0, "Every call once.");
round!(round_two, 1, "Every call once, from another place.");
round!(round_three, 2, "Every call once, from a third place.");
