//! OTLP over HTTP/protobuf.

use std::io::Write;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flate2::write::GzEncoder;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, Identity, Response, StatusCode, Url, redirect};

use super::client::{ClientError, Outcome, Partial, chain, read};
use super::settings::{Compression, Settings};

/// Bytes of a response that are read; a real one has some hundred.
const MAX_RESPONSE_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct HttpTransport {
    client: Client,
    url: Url,
    /// The URL without a password.
    name: String,
    gzip: bool,
}

impl HttpTransport {
    pub(super) fn new(settings: &Settings) -> Result<Self, ClientError> {
        let gzip = settings.compression == Compression::Gzip;
        let mut headers: HeaderMap = settings.headers.0.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        if gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let mut builder = Client::builder()
            .user_agent(super::USER_AGENT)
            .default_headers(headers)
            // A redirected POST would become a GET.
            .redirect(redirect::Policy::none());
        if let Some(path) = &settings.tls.certificate {
            let certificates = Certificate::from_pem_bundle(&read(path)?).map_err(ClientError::Http)?;
            builder = builder.tls_certs_only(certificates);
        }
        if let (Some(certificate), Some(key)) = (&settings.tls.client_certificate, &settings.tls.client_key) {
            let mut pem = read(certificate)?;
            pem.push(b'\n');
            pem.extend(read(key)?);
            builder = builder.identity(Identity::from_pem(&pem).map_err(ClientError::Http)?);
        }
        let client = builder.build().map_err(ClientError::Http)?;
        Ok(Self { client, url: settings.endpoint.clone(), name: settings.name(), gzip })
    }

    pub(super) fn compress(&self, body: Bytes) -> Bytes {
        if !self.gzip {
            return body;
        }
        let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::fast());
        encoder.write_all(&body).expect("a Vec takes everything");
        encoder.finish().expect("a Vec takes everything").into()
    }

    pub(super) async fn send(&self, body: Bytes) -> Outcome {
        let response = match self.client.post(self.url.clone()).body(body).send().await {
            Ok(response) => response,
            Err(error) => {
                return Outcome::Again { error: chain(&error), after: None };
            }
        };
        let status = response.status();
        let after = retry_after(response.headers());
        let body = read_body(response).await;
        if status.is_success() {
            return Outcome::Delivered(Partial::decode(&body));
        }
        let error = format!("{}: {status}{}", self.name, explanation(&body));
        match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Outcome::Again { error, after },
            _ => Outcome::Refused(error),
        }
    }
}

/// The beginning of the body; the status alone decides the outcome, so a body that breaks off is as good as an empty one.
async fn read_body(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() < MAX_RESPONSE_BYTES
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
    body
}

/// Message of the `google.rpc.Status` that the specification wants in the body of an error.
fn explanation(body: &[u8]) -> String {
    match <tonic_types::pb::Status as prost::Message>::decode(body) {
        Ok(status) if !status.message.is_empty() => format!(": {}", status.message),
        _ => String::new(),
    }
}

/// `Retry-After`: seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(SystemTime::now()).ok(),
    }
}
