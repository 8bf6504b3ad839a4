//! Where a task hands a gRPC call to its channel. Its request is encoded by the connection's task, and only here it is seen whose it is.

use crate::inspect::elf::image::Image;
use crate::inspect::elf::symbols::{Symbols, demangle};
use crate::inspect::plan::{FunctionEntry, Remark, RemarkKind};
use crate::inspect::runtime::entries::entries;

/// Of each of these versions of tonic there is one function; more than so many in a file are not planned.
const MAX_CALLS: usize = 8;

/// Part of the mangled names of whatever handles tonic's client: in a path, and in the name of a generic argument.
const CLIENT: [&str; 2] = ["5tonic6client4grpc", "tonic..client..grpc"];

/// Finds them. It has been `<tonic::transport::channel::Channel as tower_service::Service<...>>::call` since tonic 0.4.
pub(in crate::inspect) fn calls(
    image: &Image<'_>,
    symbols: &Symbols<'_>,
    remarks: &mut Vec<Remark>,
) -> Vec<FunctionEntry> {
    let mut found: Vec<(u64, String)> = Vec::new();
    let mut has_client = false;
    for function in symbols.functions() {
        let mangled = symbols.name(function);
        has_client |= CLIENT.iter().any(|part| mangled.contains(part));
        if mangled.contains("tonic") && mangled.contains("transport") && mangled.contains("4call") {
            let name = demangle(mangled);
            let known = found.iter().any(|(address, _)| *address == function.address);
            if is_call(&name) && !known && found.len() < MAX_CALLS {
                found.push((function.address, name));
            }
        }
    }
    if has_client && found.is_empty() {
        remarks.push(Remark {
            kind: RemarkKind::Untraceable,
            subject: Some("gRPC calls".to_owned()),
            text: "the function that makes them is inlined, so it is not known which task makes a call: its request begins a trace, and \
                   its answer ends the flow of the task"
                .to_owned(),
            remedy: Some("build without fat LTO, or use the shim".to_owned()),
        });
    }
    let unseen = "it is not known which task makes a gRPC call";
    entries(image, symbols, found, unseen, remarks)
}

/// Both manglings; what is behind the function's name is a hash or generic.
fn is_call(name: &str) -> bool {
    let rest = name.strip_prefix("<tonic::transport::channel::Channel as tower_service::Service<");
    rest.and_then(|rest| rest.rsplit_once(">>::")).is_some_and(|(_, function)| function == "call")
}

#[cfg(test)]
mod tests {
    use super::is_call;

    #[test]
    fn both_manglings_are_known_and_others_are_left() {
        let name = |request| format!("<tonic::transport::channel::Channel as tower_service::Service<{request}>>::call");
        assert!(is_call(&name("http::request::Request<tonic::body::Body>")));
        assert!(is_call(&name(
            "http::request::Request<http_body_util::combinators::box_body::UnsyncBoxBody<bytes::bytes::Bytes, tonic::status::Status>>"
        )));
        assert!(!is_call(&format!("{}::{{closure#0}}", name("http::request::Request<tonic::body::Body>"))));
        assert!(!is_call("<tonic::transport::channel::Channel as tower_service::Service<R>>::poll_ready"));
        assert!(!is_call("<tonic::transport::channel::service::AddOrigin<T> as tower_service::Service<R>>::call"));
    }
}
