//! What each path answers.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::Value as Json;

use super::access::{Access, is_own_host, protect};
use crate::model::TraceId;
use crate::web::store::Traces;
use crate::web::{Web, views};

const PAGE: &str = include_str!("../../../../web/static/index.html");
const SCRIPT: &str = include_str!("../page/page.js");
const STYLE: &str = include_str!("../../../../web/static/page.css");
const ICON: &str = include_str!("../../../../web/static/icon.svg");

const STRANGER: &str =
    "This page is for whoever started tracer: open the address that it has printed, with its token.\n";
const FOREIGN_HOST: &str =
    "tracer answers to an IP address or to localhost only, so that no other site can pose as it.\n";

#[derive(Clone)]
struct Guard {
    access: Arc<Access>,
}

/// Everything that the server answers, behind the check of token and host.
pub fn routes(web: Arc<Web>, access: Access) -> Router {
    let guard = Guard { access: Arc::new(access) };
    Router::new()
        .route("/", get(async || text("text/html; charset=utf-8", PAGE)))
        .route("/page.js", get(async || text("text/javascript; charset=utf-8", SCRIPT)))
        .route("/page.css", get(async || text("text/css; charset=utf-8", STYLE)))
        .route("/icon.svg", get(async || text("image/svg+xml", ICON)))
        .route("/api/summary", get(summary))
        .route("/api/operations", get(async |State(web): State<Arc<Web>>| looked(web, views::operations).await))
        .route("/api/map", get(async |State(web): State<Arc<Web>>| looked(web, views::map).await))
        .route("/api/traces", get(search))
        .route("/api/latency", get(latency))
        .route("/api/trace/{id}", get(trace))
        .route("/api/trace/{id}/download", get(download))
        .route("/api/health", get(async |State(web): State<Arc<Web>>| json(&web.report())))
        .route("/api/redis", get(async |State(web): State<Arc<Web>>| looked(web, views::redis).await))
        .with_state(web)
        .layer(middleware::from_fn_with_state(guard, check))
}

/// Lets in who has the token, and protects the answer.
async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let access = &guard.access;
    let token = request
        .uri()
        .query()
        .and_then(|query| query.split('&').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == "token"));
    let by_query = token.is_some_and(|(_, token)| access.is_token(token));
    let mut response = if !is_own_host(request.headers()) {
        (StatusCode::MISDIRECTED_REQUEST, FOREIGN_HOST).into_response()
    } else if !by_query && !access.has_cookie(request.headers()) {
        (StatusCode::UNAUTHORIZED, STRANGER).into_response()
    } else if !matches!(*request.method(), Method::GET | Method::HEAD) {
        StatusCode::METHOD_NOT_ALLOWED.into_response()
    } else {
        next.run(request).await
    };
    if by_query && let Some(cookie) = access.set_cookie() {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    protect(response.headers_mut());
    response
}

async fn summary(State(web): State<Arc<Web>>) -> Response {
    let answer = move || views::summary(&web, web.store.look().whole().count());
    computed(answer).await.map_or_else(IntoResponseError::into, |value| json(&value))
}

async fn search(State(web): State<Arc<Web>>, query: Result<Query<views::Query>, QueryRejection>) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return error.into_response(),
    };
    match computed(move || views::search(&web.store.look(), &query)).await {
        Ok(Ok(found)) => json(&found),
        Ok(Err(error)) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        Err(error) => error.into(),
    }
}

async fn latency(State(web): State<Arc<Web>>, Query(wanted): Query<views::Wanted>) -> Response {
    looked(web, move |traces| views::heat_map(traces, &wanted)).await
}

async fn trace(State(web): State<Arc<Web>>, Path(id): Path<String>) -> Response {
    let Some(id) = TraceId::from_hex(id.as_bytes()) else { return no_trace() };
    match computed(move || views::trace(&web.store.look(), id)).await {
        Ok(Some(trace)) => json(&trace),
        Ok(None) => no_trace(),
        Err(error) => error.into(),
    }
}

#[derive(Deserialize)]
struct As {
    #[serde(rename = "as")]
    format: views::Format,
}

async fn download(State(web): State<Arc<Web>>, Path(id): Path<String>, Query(As { format }): Query<As>) -> Response {
    let Some(id) = TraceId::from_hex(id.as_bytes()) else { return no_trace() };
    match computed(move || views::download(&web.store.look(), id, format)).await {
        Ok(Some(trace)) => {
            let mut response = json(&trace);
            let name = format!("attachment; filename=\"{id}.{}.json\"", format.name());
            if let Ok(name) = HeaderValue::try_from(name) {
                response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
            }
            response
        }
        Ok(None) => no_trace(),
        Err(error) => error.into(),
    }
}

/// Answers with what a view makes of the traces.
async fn looked(web: Arc<Web>, view: impl FnOnce(&Traces) -> Json + Send + 'static) -> Response {
    computed(move || view(&web.store.look())).await.map_or_else(IntoResponseError::into, |value| json(&value))
}

/// A view panicked.
struct IntoResponseError;

impl From<IntoResponseError> for Response {
    fn from(_: IntoResponseError) -> Self {
        (StatusCode::INTERNAL_SERVER_ERROR, "tracer failed to make this view: please report it").into_response()
    }
}

/// Views take long, and nobody else shall wait for them.
async fn computed<T: Send + 'static>(view: impl FnOnce() -> T + Send + 'static) -> Result<T, IntoResponseError> {
    tokio::task::spawn_blocking(view).await.map_err(|_| IntoResponseError)
}

fn no_trace() -> Response {
    (StatusCode::NOT_FOUND, "there is no such trace, or newer ones have taken its place").into_response()
}

fn json(value: &Json) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

fn text(kind: &'static str, content: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], content).into_response()
}
