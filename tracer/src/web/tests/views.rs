//! What the page is told.

use serde_json::{Value as Json, json};

use super::{batch, filled, process, span};
use crate::model::{Link, Span, SpanContext, SpanKind, Status, TraceId, Value};
use crate::web::store::{Bound, Store};
use crate::web::views::{self, Format, Query};

const MS: u64 = 1_000_000;

fn of(pid: u32, span: Span) -> Span {
    Span { process: process(pid), ..span }
}

fn trace(store: &Store, number: u8) -> Json {
    views::trace(&store.look(), TraceId([number; 16])).unwrap()
}

fn search(store: &Store, query: Json) -> Json {
    let query: Query = serde_json::from_value(query).unwrap();
    views::search(&store.look(), &query).unwrap()
}

fn ids(found: &Json) -> Vec<u8> {
    let rows = found["traces"].as_array().unwrap();
    rows.iter().map(|row| u8::from_str_radix(&row["id"].as_str().unwrap()[..2], 16).unwrap()).collect()
}

/// Of each span on the critical path its number, start and end, and whether it is on the way.
fn critical(store: &Store) -> Vec<(u64, u64, u64, bool)> {
    let trace = trace(store, 1);
    let mut path = Vec::new();
    for span in trace["spans"].as_array().unwrap() {
        let id = u64::from_str_radix(span["id"].as_str().unwrap(), 16).unwrap();
        for part in span["critical"].as_array().unwrap() {
            path.push((id, part[0].as_u64().unwrap(), part[1].as_u64().unwrap(), part[2].as_bool().unwrap()));
        }
    }
    path.sort_by_key(|part| part.1);
    path
}

#[test]
fn children_are_below_their_parents_by_their_start() {
    let store = filled(vec![
        span(1, 3, Some(1), (50, 60)),
        span(1, 4, Some(2), (20, 30)),
        span(1, 1, None, (0, 100)),
        span(1, 2, Some(1), (10, 40)),
        span(1, 5, Some(99), (5, 6)),
    ]);
    let trace = trace(&store, 1);
    let spans = trace["spans"].as_array().unwrap();
    let shape: Vec<_> = spans.iter().map(|span| (span["name"].as_str().unwrap(), span["depth"].as_u64())).collect();
    let wanted = [("span 1", 0), ("span 2", 1), ("span 4", 2), ("span 3", 1), ("span 5", 0)];
    assert_eq!(shape, wanted.map(|(name, depth)| (name, Some(depth))));
    assert_eq!(spans[4]["parent"], Json::Null);
    assert_eq!(spans[4]["parent_id"], "0000000000000063", "it has one that is not here");
}

#[test]
fn parents_in_a_ring_and_spans_with_one_id_are_shown_once_each() {
    let store = filled(vec![
        span(1, 1, Some(2), (0, 10)),
        span(1, 2, Some(1), (1, 9)),
        span(1, 3, Some(3), (2, 8)),
        span(1, 4, Some(2), (3, 7)),
        span(1, 4, Some(2), (4, 6)),
    ]);
    let trace = trace(&store, 1);
    let mut names: Vec<_> =
        trace["spans"].as_array().unwrap().iter().map(|span| span["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["span 1", "span 2", "span 3", "span 4", "span 4"]);
}

#[test]
fn the_critical_path_goes_by_what_was_waited_for() {
    // 2 and 3 at the same time, then 4.
    let store = filled(vec![
        span(1, 1, None, (0, 100)),
        span(1, 2, Some(1), (10, 30)),
        span(1, 3, Some(1), (10, 50)),
        span(1, 4, Some(1), (60, 90)),
    ]);
    let wanted = [(1, 0, 10), (3, 10, 50), (1, 50, 60), (4, 60, 90), (1, 90, 100)];
    assert_eq!(critical(&store), wanted.map(|(id, from, to)| (id, from, to, false)));
}

#[test]
fn the_critical_path_follows_a_message_that_outlives_its_sender() {
    // 2 is encoded, 3 decodes it elsewhere, and 4 is done there.
    let store = filled(vec![
        span(1, 1, None, (0, 10)),
        span(1, 2, Some(1), (4, 5)),
        of(2, span(1, 3, Some(2), (20, 22))),
        of(2, span(1, 4, Some(3), (25, 40))),
    ]);
    let wanted = [
        (1, 0, 4, false),
        (2, 4, 5, false),
        (3, 5, 20, true),
        (3, 20, 22, false),
        (4, 22, 25, true),
        (4, 25, 40, false),
    ];
    assert_eq!(critical(&store), wanted);
}

#[test]
fn what_is_done_one_after_the_other_below_a_message_is_critical() {
    // A decode is short, and what belongs to it comes later.
    let store = filled(vec![
        span(1, 1, None, (0, 1)),
        span(1, 2, Some(1), (5, 10)),
        span(1, 3, Some(1), (12, 20)),
        span(1, 4, Some(1), (25, 26)),
    ]);
    let wanted = [
        (1, 0, 1, false),
        (2, 1, 5, true),
        (2, 5, 10, false),
        (3, 10, 12, true),
        (3, 12, 20, false),
        (4, 20, 25, true),
        (4, 25, 26, false),
    ];
    assert_eq!(critical(&store), wanted);
}

proptest::proptest! {
    /// Whatever the parents and times are: every span is shown once, and the path has no two parts at one time.
    #[test]
    fn any_parents_and_times(spans in proptest::collection::vec((1u64..40, 0u64..40, 0u64..1000, 0u64..1000), 1..60)) {
        let spans: Vec<Span> =
            spans.iter().map(|&(id, parent, start, end)| span(1, id, (parent > 0).then_some(parent), (start, end))).collect();
        let count = spans.len();
        let store = filled(spans);
        proptest::prop_assert_eq!(trace(&store, 1)["spans"].as_array().unwrap().len(), count);
        let path = critical(&store);
        let (first, last) = (path.first(), path.last());
        for pair in path.windows(2) {
            proptest::prop_assert!(pair[0].2 <= pair[1].1, "{path:?}");
        }
        if let (Some(first), Some(last)) = (first, last) {
            let covered: u64 = path.iter().map(|part| part.2 - part.1).sum();
            proptest::prop_assert_eq!(covered, last.2 - first.1, "without a gap: {:?}", path);
        }
    }
}

#[test]
fn one_span_has_to_fit_all_that_is_asked() {
    let with = |span: Span, key: &'static str, value: Value| Span { attributes: vec![(key.into(), value)], ..span };
    let failed = |span: Span| Span { status: Status::Error("no".into()), ..span };
    let store = filled(vec![
        span(1, 1, None, (0, 10 * MS)),
        of(2, with(span(1, 2, Some(1), (MS, 3 * MS)), "db.query.text", Value::Str("GET ?".into()))),
        span(2, 3, None, (20 * MS, 120 * MS)),
        failed(with(span(2, 4, Some(3), (30 * MS, 31 * MS)), "tracer.message.size", Value::Int(49))),
        span(3, 5, None, (200 * MS, 201 * MS)),
    ]);
    assert_eq!(ids(&search(&store, json!({}))), [3, 2, 1], "the newest first");
    assert_eq!(ids(&search(&store, json!({ "sort": "longest" }))), [2, 1, 3]);
    assert_eq!(ids(&search(&store, json!({ "min": "5ms", "max": "50ms" }))), [1]);
    assert_eq!(ids(&search(&store, json!({ "error": true }))), [2]);
    assert_eq!(ids(&search(&store, json!({ "service": "svc-2" }))), [1]);
    assert_eq!(
        ids(&search(&store, json!({ "service": "svc-2", "name": "span 1" }))),
        [] as [u8; 0],
        "not the same span"
    );
    assert_eq!(ids(&search(&store, json!({ "attr": "db.query.text" }))), [1]);
    assert_eq!(ids(&search(&store, json!({ "attr": "db.query.text~GET" }))), [1]);
    assert_eq!(ids(&search(&store, json!({ "attr": "tracer.message.size=49" }))), [2]);
    assert_eq!(ids(&search(&store, json!({ "attr": "tracer.message.size=4" }))), [] as [u8; 0]);
    assert_eq!(ids(&search(&store, json!({ "attr": "service.name=svc-2" }))), [1], "what its process has");
    // The durations are those of the span that fits.
    let found = search(&store, json!({ "name": "span 2", "max": "2ms" }));
    assert_eq!(found["traces"][0]["fits"]["duration"], 2 * MS);
    assert_eq!(found["traces"][0]["duration"], 10 * MS);
    assert_eq!(ids(&search(&store, json!({ "name": "span 2", "min": "5ms" }))), [] as [u8; 0]);
    let found = search(&store, json!({ "limit": 1 }));
    assert_eq!((found["found"].as_u64(), ids(&found)), (Some(3), vec![3]));
    let bars: u64 = found["histogram"].as_array().unwrap().iter().map(|bar| bar["count"].as_u64().unwrap()).sum();
    assert_eq!(bars, 3);
    let query: Query = serde_json::from_value(json!({ "min": "long" })).unwrap();
    assert!(views::search(&store.look(), &query).unwrap_err().to_string().contains("1.5ms"));
}

#[test]
fn the_map_has_calls_commands_and_messages() {
    let client = |span: Span, attributes: &[(&'static str, Value)]| Span {
        kind: SpanKind::Client,
        attributes: attributes.iter().map(|(key, value)| ((*key).into(), value.clone())).collect(),
        ..span
    };
    let redis = [
        ("db.system.name", Value::Str("redis".into())),
        ("server.address", Value::Str("10.0.0.1".into())),
        ("network.peer.port", Value::Int(6379)),
    ];
    let store = filled(vec![
        span(1, 1, None, (0, 100)),
        // A message to the second service, which calls the third and asks Redis, whose server is traced as well.
        span(1, 2, Some(1), (10, 20)),
        of(2, span(1, 3, Some(2), (50, 60))),
        of(2, client(span(1, 4, Some(3), (60, 90)), &[])),
        of(3, Span { kind: SpanKind::Server, status: Status::Error("no".into()), ..span(1, 5, Some(4), (70, 80)) }),
        of(2, client(span(1, 6, Some(3), (90, 97)), &redis)),
        of(4, Span { kind: SpanKind::Server, ..client(span(1, 7, Some(6), (92, 95)), &redis[..1]) }),
    ]);
    let map = views::map(&store.look());
    let name = |at: &Json| map["nodes"][at.as_u64().unwrap() as usize]["name"].as_str().unwrap().to_owned();
    let mut edges: Vec<String> = map["edges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|edge| {
            format!(
                "{} {} {}: {} p50 {}, {} failed",
                name(&edge["from"]),
                edge["kind"].as_str().unwrap(),
                name(&edge["to"]),
                edge["count"],
                edge["p50"],
                edge["errors"]
            )
        })
        .collect();
    edges.sort();
    assert_eq!(
        edges,
        [
            "svc-1 messages svc-2: 1 p50 30, 0 failed",
            "svc-2 calls svc-3: 1 p50 30, 1 failed",
            "svc-2 commands redis 10.0.0.1:6379: 1 p50 7, 0 failed",
        ]
    );
}

#[test]
fn latencies_by_operation_and_over_time() {
    let spans =
        (0..100).map(|n| Span { name: "GET".into(), ..span(1, n + 1, None, (n * MS, n * MS + (n + 1) * 1000)) });
    let store = filled(spans.collect());
    let operations = views::operations(&store.look());
    let get = &operations["operations"][0];
    assert_eq!((&get["service"], &get["name"], &get["count"]), (&json!("svc-1"), &json!("GET"), &json!(100)));
    assert_eq!((&get["p50"], &get["max"]), (&json!(51_000), &json!(100_000)));
    let wanted = serde_json::from_value(json!({ "service": "svc-1", "name": "GET" })).unwrap();
    let heat = views::heat_map(&store.look(), &wanted);
    let cells = heat["cells"].as_array().unwrap();
    assert_eq!(cells.iter().map(|cell| cell["count"].as_u64().unwrap()).sum::<u64>(), 100);
    assert!(cells.iter().all(|cell| cell["column"].as_u64() < heat["columns"].as_u64()));
}

#[test]
fn who_waited_for_whom_at_a_redis_server() {
    let seconds = Value::Float;
    let redis = ("db.system.name".into(), Value::Str("redis".into()));
    let context = SpanContext {
        trace_id: TraceId([2; 16]),
        span_id: super::number(9),
        flags: 1,
        remote: true,
        trace_state: "".into(),
    };
    let link = Link {
        context,
        attributes: vec![
            ("tracer.redis.blocked_by".into(), Value::Str("KEYS".into())),
            ("tracer.redis.blocked_by.service".into(), Value::Str("scanner".into())),
            ("tracer.redis.blocked_by.kind".into(), Value::Str("keyspace".into())),
            ("tracer.redis.blocked_by.duration".into(), seconds(0.004)),
        ],
    };
    let waited = Span {
        name: "GET".into(),
        kind: SpanKind::Client,
        attributes: vec![
            redis.clone(),
            ("tracer.redis.queue".into(), seconds(0.005)),
            ("tracer.redis.blocked_by".into(), Value::Str("KEYS of scanner".into())),
            ("tracer.redis.blocked_by.server".into(), Value::Str("fork".into())),
            ("tracer.redis.blocked_by.server.duration".into(), seconds(0.001)),
        ],
        links: vec![link],
        ..span(1, 1, None, (0, 6 * MS))
    };
    let server = |id, parent, name: &'static str, times| Span {
        name: name.into(),
        kind: SpanKind::Server,
        attributes: vec![redis.clone()],
        ..of(9, span(1, id, Some(parent), times))
    };
    let keys = Span { kind: SpanKind::Client, attributes: vec![redis.clone()], ..of(3, span(1, 7, None, (0, 5 * MS))) };
    let store =
        filled(vec![waited, keys, server(8, 7, "KEYS", (MS / 2, 4 * MS)), server(2, 1, "GET", (5 * MS, 6 * MS))]);
    let found = views::redis(&store.look());
    assert_eq!((&found["commands"], &found["explained"], &found["waited"]), (&json!(2), &json!(1), &json!(1)));
    let pair = &found["pairs"][0];
    assert_eq!(
        (&pair["holder"], &pair["held_by"], &pair["kind"]),
        (&json!("scanner"), &json!("KEYS"), &json!("keyspace"))
    );
    assert_eq!((&pair["waiting"], &pair["total"]), (&json!("svc-1"), &json!(4 * MS)));
    assert_eq!((&found["pairs"][1]["holder"], &found["pairs"][1]["held_by"]), (&json!("(server)"), &json!("fork")));
    let moment = &found["moments"][0];
    assert_eq!(moment["queue"], 5 * MS);
    let timeline: Vec<_> = moment["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|slot| (slot["client"].clone(), slot["command"].clone()))
        .collect();
    assert_eq!(timeline, [(json!("svc-3"), json!("KEYS")), (json!("svc-1"), json!("GET"))]);
}

#[test]
fn a_trace_as_a_file_for_others() {
    let store = Store::new(Bound::default());
    // Its batches have clocks of their own.
    store.push(batch(vec![span(1, 1, None, (1_000, 9_000)), span(2, 7, None, (0, 1))]));
    store.push(batch(vec![of(2, Span { status: Status::Error("no".into()), ..span(1, 2, Some(1), (2_000, 3_000)) })]));
    let download = |format| views::download(&store.look(), TraceId([1; 16]), format).unwrap();
    let otlp = download(Format::Otlp);
    let spans = |resource: usize| otlp["resourceSpans"][resource]["scopeSpans"][0]["spans"].as_array().unwrap().clone();
    assert_eq!((spans(0).len(), spans(1).len()), (1, 1), "of this trace only");
    assert_eq!(spans(1)[0]["parentSpanId"], spans(0)[0]["spanId"]);
    let jaeger = download(Format::Jaeger);
    let span = &jaeger["data"][0]["spans"][1];
    assert_eq!(span["references"][0]["spanID"], "0000000000000001");
    assert_eq!(jaeger["data"][0]["processes"][span["processID"].as_str().unwrap()]["serviceName"], "svc-2");
    let perfetto = download(Format::Perfetto);
    let phases: Vec<_> =
        perfetto["traceEvents"].as_array().unwrap().iter().map(|event| event["ph"].as_str().unwrap()).collect();
    assert_eq!(phases, ["M", "M", "X", "X", "s", "f"]);
    assert!(views::download(&store.look(), TraceId([9; 16]), Format::Otlp).is_none());
}
