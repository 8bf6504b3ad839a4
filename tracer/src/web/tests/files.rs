//! Files of OTLP-JSON lines.

use super::{filled, span};
use crate::model::{Status, TraceId, Value};
use crate::web::views::{self, Format};
use crate::web::{Damage, OtlpFile};

fn file(text: &str) -> (tempfile::NamedTempFile, Option<OtlpFile>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let opened = OtlpFile::open(file.path()).unwrap();
    (file, opened)
}

#[test]
fn what_a_download_has_is_read_again() {
    let mut failed = span(1, 2, Some(1), (5, 9));
    failed.status = Status::Error("WRONGTYPE".into());
    failed.attributes = vec![
        ("text".into(), Value::Str("<b>".into())),
        ("int".into(), Value::Int(-(1 << 60))),
        ("float".into(), Value::Float(0.5)),
        ("list".into(), Value::List(vec!["a".into(), "b".into()])),
    ];
    let store = filled(vec![span(1, 1, None, (0, 10)), failed.clone()]);
    let written = views::download(&store.look(), TraceId([1; 16]), Format::Otlp).unwrap().to_string();
    let (_file, opened) = file(&written);
    let mut opened = opened.unwrap();
    let line = opened.next_line().unwrap().unwrap();
    assert_eq!((line.resources.len(), line.spans.len()), (1, 2));
    let read = &line.spans[1];
    assert_eq!((read.span_id, read.parent, &read.status), (failed.span_id, failed.parent, &failed.status));
    assert_eq!(read.end_ns - read.start_ns, 4);
    let texts = |span: &crate::model::Span| -> Vec<String> {
        span.attributes.iter().map(|(key, value)| format!("{key}={}", views::text(value))).collect()
    };
    assert_eq!(texts(read), texts(&failed));
    assert!(opened.next_line().unwrap().is_none());
    assert_eq!(opened.damage(), Damage::default());
}

#[test]
fn what_is_no_request_is_counted_and_the_rest_is_read() {
    let good = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[
        {"traceId":"0101010101010101aaaaaaaaaaaaaaaa","spanId":"0101010101010101","name":"a","startTimeUnixNano":"1","endTimeUnixNano":"2"},
        {"traceId":"00","spanId":"0101010101010101","name":"b"},
        {"traceId":"0101010101010101aaaaaaaaaaaaaaaa","spanId":"0000000000000000","name":"c"}]}]}]}"#
        .replace('\n', "");
    let (_file, opened) = file(&format!("{{\"cut off\n\n{good}\n{{}}\n[]\n"));
    let mut opened = opened.unwrap();
    assert_eq!(opened.next_line().unwrap().unwrap().spans.len(), 1);
    while opened.next_line().unwrap().is_some() {}
    assert_eq!(opened.damage(), Damage { lines: 2, spans: 2 });
}

#[test]
fn something_else_is_no_such_file_and_an_empty_one_has_no_spans() {
    assert!(file("tracer recording 1\n").1.is_none());
    assert!(file("").1.unwrap().next_line().unwrap().is_none());
}
