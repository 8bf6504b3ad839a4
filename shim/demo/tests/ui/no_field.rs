#[derive(tracer_shim::Span)]
struct Order {
    id: u64,
}

#[derive(tracer_shim::Span)]
struct Ping;

fn main() {}
