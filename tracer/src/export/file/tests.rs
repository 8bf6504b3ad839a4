#![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;

use super::*;
use crate::export::testing::{OFFSET, batch, full_span, resource, span};
use crate::export::{Clock, Options, Pipeline};

async fn export(file: FileExporter, spans: u8) -> crate::export::ExportReport {
    let options = Options { clock: Clock::Fixed(OFFSET), ..Options::default() };
    let pipeline = Pipeline::start(options, vec![Box::new(file)]).unwrap();
    let handle = pipeline.handle();
    handle.resource(resource());
    for id in 1..=spans {
        handle.span(span(1, id));
    }
    pipeline.shutdown(Duration::from_secs(10)).await
}

#[test]
fn a_line_is_otlp_json() {
    let request = convert::request(&[batch(vec![full_span()])]);
    insta::assert_snapshot!(serde_json::to_string_pretty(&request).unwrap());
    let line = serde_json::to_string(&request).unwrap();
    assert_eq!(serde_json::from_str::<ExportTraceServiceRequest>(&line).unwrap(), request);
}

#[tokio::test]
async fn spans_are_in_the_file_when_the_pipeline_has_shut_down() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spans.jsonl");
    std::fs::write(&path, "from before").unwrap();
    let report = export(FileExporter::create(&path).unwrap(), 100).await;
    assert_eq!((report.exporters[0].accepted, report.exporters[0].exported), (100, 100));
    let spans: Vec<_> = std::fs::read_to_string(&path)
        .unwrap()
        .lines()
        .flat_map(|line| serde_json::from_str::<ExportTraceServiceRequest>(line).unwrap().resource_spans)
        .flat_map(|resource| resource.scope_spans)
        .flat_map(|scope| scope.spans)
        .collect();
    let expected = convert::request(&[batch((1..=100).map(|id| span(1, id)).collect())]);
    assert_eq!(spans, expected.resource_spans[0].scope_spans[0].spans);
}

#[tokio::test]
async fn a_full_disk_is_counted() {
    let path = PathBuf::from("/dev/full");
    // A device, which `create` refuses.
    let file = File::options().write(true).open(&path).unwrap();
    let report = export(FileExporter { path, file }, 10).await;
    let stats = &report.exporters[0];
    assert_eq!((stats.accepted, stats.exported, stats.dropped(Cause::WriteFailed)), (10, 0, 10));
    assert!(stats.last_error.as_ref().unwrap().contains("No space left"), "{stats:?}");
}

#[test]
fn a_half_written_line_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spans.jsonl");
    let mut lines = Lines::new(File::create(&path).unwrap(), Arc::new(Tally::new("file".into())));
    lines.push(&"first", 1);
    lines.flush();
    lines.file.write_all(b"\"hal").unwrap();
    lines.cut();
    lines.push(&"third", 1);
    lines.flush();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "\"first\"\n\"third\"\n");
}

#[test]
fn a_file_that_cannot_be_created_is_named_with_a_remedy() {
    let error = FileExporter::create(Path::new("/nowhere/spans.jsonl")).unwrap_err();
    assert!(error.to_string().starts_with("cannot write /nowhere/spans.jsonl"), "{error}");
}
