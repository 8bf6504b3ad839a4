//! `#[derive(Span)]` and `#[trace_context]` on every kind of type.
#![allow(clippy::unwrap_used, dead_code, reason = "tests, and types whose fields only derives look at")]

use serde::{Deserialize, Serialize};
use tracer_shim::{Carrier, Context, NoContext, Span, SpanId, TraceContext, TraceId, trace_context};

/// As prost-build makes it from a `.proto` file that has its own `TraceContext`.
mod user_service {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TraceContext {
        #[prost(string, tag = "1")]
        pub trace_id: String,
        #[prost(string, tag = "2")]
        pub span_id: String,
        #[prost(bool, tag = "3")]
        pub sampled: bool,
    }

    #[derive(Clone, PartialEq, prost::Message, tracer_shim::Span)]
    pub struct UserRequest {
        #[prost(uint64, tag = "1")]
        pub user_id: u64,
        #[prost(message, optional, tag = "2")]
        pub trace_context: Option<TraceContext>,
    }
}
use user_service::UserRequest;

/// A message of an old sender or receiver, that knows nothing of the field.
#[derive(Clone, PartialEq, prost::Message)]
struct OldRequest {
    #[prost(uint64, tag = "1")]
    user_id: u64,
}

#[trace_context]
#[derive(Clone, Debug, Default, PartialEq, Span, Serialize, Deserialize)]
struct CrossProcessMsg {
    content: String,
    msg_id: u64,
}

#[trace_context]
#[derive(Clone, Debug, Default, PartialEq, Span, Serialize, Deserialize)]
struct Tuple(u32, String);

#[trace_context]
#[derive(Clone, Debug, Default, PartialEq, Span, Serialize, Deserialize)]
struct Unit;

#[derive(Debug, Default, Span)]
struct Generic<T: Clone, const N: usize>
where
    T: Send,
{
    items: Vec<[T; N]>,
    #[trace(context)]
    header: TraceContext,
}

#[derive(Debug, Span)]
enum Event<'a> {
    New { id: u64, trace_context: Option<TraceContext> },
    Cancel(#[trace(inner)] Box<CrossProcessMsg>),
    Raw(&'a str, TraceContext),
    Heartbeat,
}

#[trace_context(tag = 15)]
#[derive(Clone, PartialEq, prost::Message, Span)]
struct Added {
    #[prost(uint64, tag = "1")]
    id: u64,
}

fn context() -> Context {
    Context::new(TraceId::from_bytes([0xab; 16]), SpanId::from_bytes([0xcd; 8]), 1).from_remote()
}

fn round_trip<T>(mut message: T)
where
    T: Carrier + std::fmt::Debug,
    Context: for<'a> TryFrom<&'a T, Error = NoContext>,
{
    message.set_trace_context(context());
    assert_eq!(message.trace_context(), Some(context()), "{message:?}");
    assert_eq!(Context::try_from(&message), Ok(context()));
    assert_eq!(message.create_span("handle").context(), context());
}

#[test]
fn every_kind_of_type_carries_a_context() {
    round_trip(UserRequest::default());
    round_trip(CrossProcessMsg::default());
    round_trip(Tuple::default());
    round_trip(Unit::default());
    round_trip(Generic::<u8, 3>::default());
    round_trip(Event::New { id: 1, trace_context: None });
    round_trip(Event::Cancel(Box::default()));
    round_trip(Event::Raw("x", TraceContext::default()));
    round_trip(Added::default());
}

#[test]
fn a_message_can_be_made_from_a_context_and_says_when_it_has_none() {
    assert_eq!(CrossProcessMsg::from(context()).trace_context(), Some(context()));
    assert_eq!(Generic::<u8, 3>::from(context()).header, TraceContext::from(context()));
    assert_eq!(Context::try_from(&CrossProcessMsg::default()), Err(NoContext));
    let mut heartbeat = Event::Heartbeat;
    heartbeat.set_trace_context(context());
    assert_eq!(heartbeat.trace_context(), None);
    let bad = TraceContext { trace_id: "0".repeat(32), span_id: "zz".to_owned(), sampled: true };
    assert_eq!(Context::try_from(&bad), Err(NoContext));
}

#[test]
fn a_prost_message_carries_the_active_context_in_its_field() {
    let scope = context().attach();
    let request = UserRequest { user_id: 7, trace_context: None };
    let bytes = request.encode_to_vec();
    assert_eq!(bytes.len(), request.encoded_len());
    assert_eq!(bytes.len(), prost::Message::encoded_len(&request) + 2 + 54);
    drop(scope);

    let read = <UserRequest as prost::Message>::decode(&bytes[..]).unwrap();
    let field = read.trace_context.clone().unwrap();
    assert_eq!((field.trace_id, field.span_id, field.sampled), ("ab".repeat(16), "cd".repeat(8), true));
    assert_eq!(<OldRequest as prost::Message>::decode(&bytes[..]).unwrap().user_id, 7);

    assert_eq!(UserRequest::decode(&bytes[..]).unwrap(), read);
    assert_eq!(Context::current(), context());
}

#[test]
fn what_the_sender_filled_in_is_left_alone() {
    let request = UserRequest::from(context());
    for active in [Context::NONE, Context::new(TraceId::from_bytes([1; 16]), SpanId::from_bytes([2; 8]), 1)] {
        let bytes = {
            let _scope = active.attach();
            request.encode_length_delimited_to_vec()
        };
        let mut again = Vec::new();
        request.encode_length_delimited(&mut again).unwrap();
        assert_eq!(again, bytes);
        assert_eq!(<UserRequest as prost::Message>::decode_length_delimited(&bytes[..]).unwrap(), request);
        assert_eq!(UserRequest::decode_length_delimited(&bytes[..]).unwrap(), request);
        assert_eq!(Context::current(), context());
        UserRequest::decode(&[][..]).unwrap();
    }
}

#[test]
fn a_message_that_is_passed_on_says_who_passed_it_on() {
    let received = UserRequest::from(context());
    let here = Context::new(context().trace_id(), SpanId::from_bytes([7; 8]), 1);
    let bytes = {
        let _scope = here.attach();
        received.encode_to_vec()
    };
    assert_eq!(bytes.len(), received.encoded_len());
    let read = UserRequest::decode(&bytes[..]).unwrap();
    assert_eq!(read.trace_context(), Some(here.from_remote()));
}

#[test]
fn with_no_context_the_length_is_the_same_and_old_receivers_read_it() {
    let request = UserRequest { user_id: 7, trace_context: None };
    let bytes = request.encode_to_vec();
    assert_eq!(bytes.len(), request.encoded_len());
    assert_eq!(UserRequest::decode(&bytes[..]).unwrap(), request);
    assert_eq!(<OldRequest as prost::Message>::decode(&bytes[..]).unwrap().user_id, 7);
    assert_eq!(Context::current(), Context::NONE);
}

#[test]
fn a_message_of_an_old_sender_has_no_context() {
    let bytes = prost::Message::encode_to_vec(&OldRequest { user_id: 7 });
    assert_eq!(UserRequest::decode(&bytes[..]).unwrap(), UserRequest { user_id: 7, trace_context: None });
    assert_eq!(Context::current(), Context::NONE);
}

#[test]
fn a_trailer_from_generic_code_is_read_where_the_field_is_empty() {
    fn send<M: tracer_shim::Message>(message: &M) -> Vec<u8> {
        message.encode_to_vec()
    }
    let bytes = {
        let _scope = context().attach();
        send(&UserRequest { user_id: 7, trace_context: None })
    };
    assert_eq!(UserRequest::decode(&bytes[..]).unwrap().user_id, 7);
    assert_eq!(Context::current(), context());
}

#[test]
fn json_carries_the_context_and_messages_without_it_are_read() {
    let _scope = context().attach();
    let message = CrossProcessMsg { content: "hi".to_owned(), msg_id: 1, trace_context: None }.traced();
    let text = serde_json::to_string(&message).unwrap();
    let ids = format!(r#""trace_id":"{}","span_id":"{}","sampled":true"#, "ab".repeat(16), "cd".repeat(8));
    assert_eq!(text, format!(r#"{{"content":"hi","msg_id":1,"_trace_context":{{{ids}}}}}"#));
    assert_eq!(serde_json::from_str::<CrossProcessMsg>(&text).unwrap(), message);
    let old: CrossProcessMsg = serde_json::from_str(r#"{"content":"hi","msg_id":1}"#).unwrap();
    assert_eq!(old.trace_context, None);

    let tuple = Tuple(1, "a".to_owned(), None).traced();
    assert_eq!(serde_json::from_str::<Tuple>(&serde_json::to_string(&tuple).unwrap()).unwrap(), tuple);
    assert_eq!(serde_json::from_str::<Tuple>(r#"[1,"a"]"#).unwrap().trace_context(), None);
    let unit = Unit::default().traced();
    assert_eq!(serde_json::from_str::<Unit>(&serde_json::to_string(&unit).unwrap()).unwrap(), unit);
}

#[cfg(feature = "opentelemetry")]
#[test]
fn messages_and_span_contexts_of_opentelemetry_become_each_other() {
    use opentelemetry::trace::SpanContext;
    let span = SpanContext::from(context());
    assert_eq!(CrossProcessMsg::from(span.clone()).trace_context(), Some(context()));
    let generic = Generic::<u8, 3>::from(span.clone());
    assert_eq!(SpanContext::try_from(&generic), Ok(span.clone()));
    assert_eq!(SpanContext::try_from(&UserRequest::from(span.clone())), Ok(span));
    assert_eq!(SpanContext::try_from(&UserRequest::default()), Err(NoContext));
}
