//! What a message costs with the shim and without: ns per call, the best of many rounds that take turns.
//!
//! `cargo bench -p tracer-shim`. With an agent attached to the process the shim's rows are those of a traced message.
#![allow(missing_docs, reason = "derived types of a benchmark")]

use std::hint::black_box;
use std::time::Instant;
use tracer_shim::Context;

#[derive(Clone, PartialEq, prost::Message)]
struct Order {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    symbol: String,
    #[prost(double, tag = "3")]
    price: f64,
    #[prost(uint32, tag = "4")]
    lots: u32,
}

const ROUNDS: usize = 200;
const CALLS: u32 = 5_000;

/// Best nanoseconds per call of each of `f`, measured in turns so that a noisy moment hurts all alike.
fn best<const N: usize>(mut f: [&mut dyn FnMut(); N]) -> [f64; N] {
    let mut best = [f64::MAX; N];
    for _ in 0..ROUNDS {
        for (f, best) in f.iter_mut().zip(&mut best) {
            let start = Instant::now();
            f();
            *best = best.min(start.elapsed().as_nanos() as f64 / f64::from(CALLS));
        }
    }
    best
}

fn repeat(mut f: impl FnMut()) -> impl FnMut() {
    move || (0..CALLS).for_each(|_| f())
}

fn row(name: &str, [plain, shim]: [f64; 2]) {
    println!("{name:<28} prost {plain:6.1} ns   shim {shim:6.1} ns   {:+6.1} ns   x{:.2}", shim - plain, shim / plain);
}

fn main() {
    let order = Order { id: 4_711, symbol: "ACME".to_owned(), price: 12.5, lots: 300 };
    let context = Context::from_hex(&"1".repeat(32), &"2".repeat(16), true);
    let _scope = context.expect("the digits are valid").attach();
    let (mut a, mut b) = (Vec::with_capacity(256), Vec::with_capacity(256));
    row(
        "encode",
        best([
            &mut repeat(|| {
                a.clear();
                prost::Message::encode(black_box(&order), &mut a).expect("a vector grows");
                black_box(&a);
            }),
            &mut repeat(|| {
                b.clear();
                tracer_shim::Message::encode(black_box(&order), &mut b).expect("a vector grows");
                black_box(&b);
            }),
        ]),
    );
    row(
        "encode_to_vec",
        best([
            &mut repeat(|| drop(black_box(prost::Message::encode_to_vec(black_box(&order))))),
            &mut repeat(|| drop(black_box(tracer_shim::Message::encode_to_vec(black_box(&order))))),
        ]),
    );
    let plain = prost::Message::encode_to_vec(&order);
    let traced = tracer_shim::Message::encode_to_vec(&order);
    row(
        "decode",
        best([
            &mut repeat(|| drop(black_box(<Order as prost::Message>::decode(black_box(&plain[..]))))),
            &mut repeat(|| drop(black_box(<Order as tracer_shim::Message>::decode(black_box(&traced[..]))))),
        ]),
    );
    row(
        "decode, prost with header",
        best([
            &mut repeat(|| drop(black_box(<Order as prost::Message>::decode(black_box(&plain[..]))))),
            &mut repeat(|| drop(black_box(<Order as prost::Message>::decode(black_box(&traced[..]))))),
        ]),
    );
    row(
        "decode, no header",
        best([
            &mut repeat(|| drop(black_box(<Order as prost::Message>::decode(black_box(&plain[..]))))),
            &mut repeat(|| drop(black_box(<Order as tracer_shim::Message>::decode(black_box(&plain[..]))))),
        ]),
    );
    row(
        "span guard",
        best([
            &mut repeat(|| _ = black_box(0)),
            &mut repeat(|| {
                let span = tracer_shim::span("work");
                black_box(&span);
            }),
        ]),
    );
    row(
        "attach guard",
        best([
            &mut repeat(|| _ = black_box(0)),
            &mut repeat(|| {
                let scope = Context::NONE.attach();
                black_box(&scope);
            }),
        ]),
    );
}
