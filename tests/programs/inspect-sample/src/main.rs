//! Encodes and decodes messages in all the ways that prost has, so that the probe planner has something to find.
//!
//! Each way is used from several functions: a function with one caller is inlined there. Prints one line per round: the
//! message, the size of its encoding, and that with the length in front.

use std::arch::{asm, global_asm};
use std::hint::black_box;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::{Bytes, BytesMut};
use prost::{Message, Oneof};

/// Nested, optional.
#[derive(Clone, PartialEq, Message)]
struct TraceContext {
    #[prost(string, tag = "1")]
    trace_id: String,
    #[prost(string, tag = "2")]
    span_id: String,
    #[prost(bool, tag = "3")]
    sampled: bool,
}

/// Nested, repeated; two words that can be passed in registers.
#[derive(Clone, PartialEq, Message)]
struct Leg {
    #[prost(sint64, tag = "1")]
    price: i64,
    #[prost(uint32, tag = "2")]
    quantity: u32,
}

/// The usual kind of message.
#[derive(Clone, PartialEq, Message)]
struct Order {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    symbol: String,
    #[prost(message, repeated, tag = "3")]
    legs: Vec<Leg>,
    #[prost(message, optional, tag = "15")]
    trace_context: Option<TraceContext>,
}

/// So small that a decode returns it in registers.
#[derive(Clone, Copy, PartialEq, Message)]
struct Ping {
    #[prost(uint64, tag = "1")]
    time: u64,
}

/// A float, which is passed in other registers.
#[derive(Clone, Copy, PartialEq, Message)]
struct Price {
    #[prost(double, tag = "1")]
    value: f64,
}

/// Nothing at all.
#[derive(Clone, Copy, PartialEq, Message)]
struct Empty {}

/// A message that is nothing but another one: their addresses are the same.
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(message, required, tag = "1")]
    order: Order,
}

/// One of several kinds.
#[derive(Clone, PartialEq, Oneof)]
enum Body {
    #[prost(message, tag = "1")]
    Order(Order),
    #[prost(bytes = "vec", tag = "2")]
    Raw(Vec<u8>),
}

/// A message with a oneof.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(oneof = "Body", tags = "1, 2")]
    body: Option<Body>,
    #[prost(fixed64, tag = "3")]
    time: u64,
}

/// Another message of a name that is already there.
mod other {
    use prost::Message;

    /// Not the outer one.
    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Order {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(message, optional, tag = "2")]
        pub(super) inner: Option<super::Order>,
    }
}

/// A field of a wire type that does not exist.
const NOT_A_MESSAGE: [u8; 2] = [0x0f, 0xff];

fn order() -> Order {
    let trace_context = Some(TraceContext { trace_id: "t".into(), span_id: "s".into(), sampled: true });
    Order { id: 7, symbol: "ABC".into(), legs: vec![Leg { price: 1, quantity: 2 }], trace_context }
}

/// All ways to encode a message, and then to decode it.
macro_rules! round {
    ($name:ident, $type:ty, $value:expr) => {
        #[inline(never)]
        fn $name() {
            let value: $type = black_box($value);
            let mut vec = Vec::new();
            let mut bytes_mut = BytesMut::new();
            let mut delimited = Vec::new();
            value.encode(&mut vec).expect("a vector grows");
            value.encode(&mut bytes_mut).expect("a buffer grows");
            value.encode_length_delimited(&mut delimited).expect("a vector grows");
            assert_eq!(vec, value.encode_to_vec());
            assert_eq!(delimited, value.encode_length_delimited_to_vec());
            let mut array = [0_u8; 256];
            value.encode(&mut &mut array[..]).expect("the array is large enough");

            let decoded = <$type>::decode(&vec[..]).expect("was encoded");
            assert!(decoded == value);
            assert!(<$type>::decode(Bytes::from(vec.clone())).expect("was encoded") == value);
            assert!(<$type>::decode(&mut &vec[..]).expect("was encoded") == value);
            assert!(<$type>::decode(bytes_mut).expect("was encoded") == value);
            assert!(<$type>::decode_length_delimited(&delimited[..]).expect("was encoded") == value);
            let mut merged = <$type>::default();
            merged.merge(&vec[..]).expect("was encoded");
            merged.merge_length_delimited(&delimited[..]).expect("was encoded");
            black_box(&merged);
            assert!(<$type>::decode(&NOT_A_MESSAGE[..]).is_err());
            println!("{} {} {}", stringify!($type), vec.len(), delimited.len());
        }
    };
}

/// The same twice, so that nothing has only one caller.
macro_rules! rounds {
    ($once:ident, $twice:ident, $type:ty, $value:expr) => {
        round!($once, $type, $value);
        round!($twice, $type, $value);
    };
}

rounds!(order_once, order_twice, Order, order());
rounds!(leg_once, leg_twice, Leg, Leg { price: -1, quantity: 3 });
rounds!(ping_once, ping_twice, Ping, Ping { time: 9 });
rounds!(price_once, price_twice, Price, Price { value: 1.5 });
rounds!(empty_once, empty_twice, Empty, Empty {});
rounds!(envelope_once, envelope_twice, Envelope, Envelope { order: order() });
rounds!(event_once, event_twice, Event, Event { body: Some(Body::Order(order())), time: 3 });
rounds!(raw_once, raw_twice, Event, Event { body: Some(Body::Raw(vec![1, 2])), time: 4 });
rounds!(other_once, other_twice, other::Order, other::Order { name: "n".into(), inner: Some(order()) });

// A variable of each thread under the name that OTEP 4947 gives it.
global_asm!(
    ".section .tbss,\"awT\",@nobits",
    ".globl otel_thread_ctx_v1",
    ".type otel_thread_ctx_v1,@object",
    ".size otel_thread_ctx_v1,8",
    ".balign 8",
    "otel_thread_ctx_v1: .zero 8",
    ".text",
);

/// Counts who listens to the probe `sample:start`.
#[unsafe(link_section = ".probes")]
static SEMAPHORE: AtomicU16 = AtomicU16::new(0);

/// Has a USDT probe, and sets the variable of the thread.
#[inline(never)]
fn start(value: u64) {
    // The linker drops what only a note refers to.
    black_box(SEMAPHORE.load(Ordering::Relaxed));
    // SAFETY: writes eight bytes of thread-local storage that nothing else uses; the rest is a nop and a note about it.
    unsafe {
        asm!(
            "mov fs:[otel_thread_ctx_v1@tpoff], {value}",
            "990: nop",
            ".pushsection .note.stapsdt,\"\",\"note\"",
            ".balign 4",
            ".4byte 992f-991f, 994f-993f, 3",
            "991: .asciz \"stapsdt\"",
            "992: .balign 4",
            "993: .8byte 990b, _.stapsdt.base, {semaphore}",
            ".asciz \"sample\"",
            ".asciz \"start\"",
            ".asciz \"8@%rdi\"",
            "994: .balign 4",
            ".popsection",
            ".ifndef _.stapsdt.base",
            ".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat",
            ".weak _.stapsdt.base",
            ".hidden _.stapsdt.base",
            "_.stapsdt.base: .space 1",
            ".size _.stapsdt.base,1",
            ".popsection",
            ".endif",
            value = in(reg) value,
            semaphore = sym SEMAPHORE,
        );
    }
}

fn main() {
    start(0x0123_4567_89ab_cdef);
    let rounds = [
        order_once,
        order_twice,
        leg_once,
        leg_twice,
        ping_once,
        ping_twice,
        price_once,
        price_twice,
        empty_once,
        empty_twice,
        envelope_once,
        envelope_twice,
        event_once,
        event_twice,
        raw_once,
        raw_twice,
        other_once,
        other_twice,
    ];
    // From now on libc takes the ways of programs with several threads.
    std::thread::spawn(|| ()).join().expect("an empty thread ends well");
    for round in rounds {
        round();
    }
}
