//! Spans in a real third-party collector, by gRPC and by HTTP, are those of the file.
#![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

use std::collections::BTreeMap;
use std::path::Path;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use tracer::cli::config::Config;
use tracer::export::{Clock, Options, Pipeline};
use tracer::model::{
    Link, ProcessId, Resource, Span, SpanContext, SpanEvent, SpanId, SpanKind, Status, TraceId, Value,
};
use tracer_tests::rotel::{self, Collector, Sink};
use tracer_tests::{DEADLINE, wait_for};

/// Several requests' worth.
const SPANS: u32 = 10_000;
const PROCESSES: u32 = 3;

fn process(n: u32) -> ProcessId {
    ProcessId { pid: 100 + n % PROCESSES, start_time: 5 }
}

fn resource(n: u32) -> Resource {
    let attributes = vec![
        ("service.name".into(), Value::Str(format!("service-{n}").into())),
        ("process.pid".into(), Value::Int(i64::from(100 + n))),
        ("process.command_args".into(), Value::List(vec!["service".into(), "--订单".into()])),
    ];
    Resource { process: process(n), attributes }
}

fn span(n: u32) -> Span {
    use SpanKind::{Client, Consumer, Internal, Producer, Server};
    let trace_id = TraceId([1 + (n / 100 % 200) as u8; 16]);
    let id = SpanId((u64::from(n) + 1).to_be_bytes());
    let every = |step: u32| n.is_multiple_of(step);
    let context = |id| SpanContext { trace_id, span_id: id, flags: 1, remote: true, trace_state: "ot=th:c".into() };
    Span {
        process: process(n),
        trace_id,
        span_id: id,
        parent: (!every(4)).then(|| SpanId(u64::from(n).to_be_bytes())),
        parent_remote: n % 8 == 1,
        flags: (n % 4) as u8,
        trace_state: if every(2) { "".into() } else { "ot=th:fd70a,other=1".into() },
        name: format!("SPAN {}", "x".repeat(n as usize % 200)).into(),
        kind: [Internal, Server, Client, Producer, Consumer][n as usize % 5],
        start_ns: u64::from(n) * 1_000,
        end_ns: u64::from(n) * 1_001 + 7,
        attributes: vec![
            ("db.query.text".into(), Value::Str("HMSET myhash field1 ? \"\u{1}\n".into())),
            ("tracer.message.type".into(), Value::Str("pkg.Order".into())),
            ("int".into(), Value::Int(i64::MIN + i64::from(n))),
            // Thirds would differ in the last digit: serde_json does not read every number exactly.
            ("float".into(), Value::Float(f64::from(n) / 8.0)),
            ("bool".into(), Value::Bool(every(2))),
        ],
        status: [Status::Unset, Status::Ok, Status::Error("WRONGTYPE".into())][n as usize % 3].clone(),
        links: every(7).then(|| Link { context: context(id), attributes: Vec::new() }).into_iter().collect(),
        events: every(5)
            .then(|| SpanEvent {
                time_ns: u64::from(n),
                name: "decode".into(),
                attributes: vec![("size".into(), Value::Int(120))],
            })
            .into_iter()
            .collect(),
    }
}

/// Every span by its id, with its resource, scope and schema, whatever the requests it came in.
fn spans_by_id(requests: Vec<ExportTraceServiceRequest>) -> BTreeMap<Vec<u8>, String> {
    let mut spans = BTreeMap::new();
    for resource in requests.into_iter().flat_map(|request| request.resource_spans) {
        for scope in resource.scope_spans {
            for span in scope.spans {
                let text = format!("{:?} {:?} {} {span:?}", resource.resource, scope.scope, scope.schema_url);
                let before = spans.insert(span.span_id, text);
                assert!(before.is_none(), "a span came twice");
            }
        }
    }
    spans
}

/// A pipeline as the command line makes it in this environment.
fn start(target: &str, env: &[(&str, &str)]) -> Pipeline {
    let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let config = Config { export: vec![target.parse().unwrap()], ..Config::default() };
    let options = Options { clock: Clock::Fixed(1_767_323_045_000_000_000), ..config.pipeline_options() };
    let pipeline = Pipeline::start(options, config.exporters(&env).unwrap()).unwrap();
    let handle = pipeline.handle();
    (0..PROCESSES).for_each(|n| handle.resource(resource(n)));
    pipeline
}

/// Ends it, with all spans exported.
async fn finish(pipeline: Pipeline) {
    let report = pipeline.shutdown(DEADLINE).await;
    let stats = &report.exporters[0];
    assert_eq!((stats.accepted, stats.exported), (u64::from(SPANS), u64::from(SPANS)), "{stats:?}");
}

/// Exports all spans.
async fn export(target: &str, env: &[(&str, &str)]) {
    let pipeline = start(target, env);
    (0..SPANS).for_each(|n| pipeline.handle().span(span(n)));
    finish(pipeline).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_by_grpc_and_http_what_is_in_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::start().await.unwrap();
    let program = rotel::agent(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    let collector = Collector::start(&program, directory.path(), sink.address).unwrap();

    let path = directory.path().join("spans.jsonl");
    export(&format!("file:{}", path.display()), &[]).await;
    let lines = std::fs::read_to_string(&path).unwrap();
    let in_file = spans_by_id(lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect());
    assert_eq!(in_file.len(), SPANS as usize);

    let (grpc, http) = (format!("http://{}", collector.grpc), format!("http://{}", collector.http));
    for (protocol, url) in [("grpc", &grpc), ("http/protobuf", &http)] {
        for compression in ["none", "gzip"] {
            let env = [("OTEL_EXPORTER_OTLP_PROTOCOL", protocol), ("OTEL_EXPORTER_OTLP_COMPRESSION", compression)];
            export(&format!("otlp:{url}"), &env).await;
            let received = spans_by_id(sink.take(SPANS as usize).unwrap());
            for (id, span) in &in_file {
                assert_eq!(received.get(id), Some(span), "{protocol} {compression}");
            }
            assert_eq!(received.len(), in_file.len(), "{protocol} {compression}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_was_away_gets_what_came_meanwhile() {
    let program = rotel::agent(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    for protocol in ["grpc", "http/protobuf"] {
        let directory = tempfile::tempdir().unwrap();
        let sink = Sink::start().await.unwrap();
        let collector = Collector::start(&program, directory.path(), sink.address).unwrap();
        let (grpc, http) = (collector.grpc, collector.http);
        let url = if protocol == "grpc" { grpc } else { http };
        let pipeline = start(&format!("otlp:http://{url}"), &[("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)]);

        let before = SPANS / 10;
        (0..before).for_each(|n| pipeline.handle().span(span(n)));
        let mut received = sink.take(before as usize).unwrap();
        drop(collector);
        (before..SPANS).for_each(|n| pipeline.handle().span(span(n)));
        wait_for("a failed attempt", || (pipeline.stats()[0].retries > 0).then_some(()));
        let _collector = Collector::start_at(&program, directory.path(), sink.address, grpc, http).unwrap();
        finish(pipeline).await;
        received.extend(sink.take((SPANS - before) as usize).unwrap());
        assert_eq!(spans_by_id(received).len(), SPANS as usize, "{protocol}");
    }
}
