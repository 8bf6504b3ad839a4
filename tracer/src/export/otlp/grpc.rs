//! OTLP over gRPC.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::client::{ClientError, Outcome, Partial, chain, read};
use super::settings::{Compression, Settings};

/// Time between signs of life during a request.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct GrpcTransport {
    endpoint: Endpoint,
    client: Option<Grpc<Channel>>,
    metadata: MetadataMap,
    compression: Compression,
    path: PathAndQuery,
}

impl GrpcTransport {
    pub(super) fn new(settings: &Settings) -> Result<Self, ClientError> {
        let mut endpoint = Endpoint::from_shared(settings.endpoint.to_string())
            .and_then(|endpoint| endpoint.user_agent(super::USER_AGENT))
            .map_err(ClientError::Grpc)?
            .connect_timeout(settings.timeout)
            // A connection that died without a word would swallow every request until TCP notices, a quarter of an hour.
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(settings.timeout);
        if settings.endpoint.scheme() == "https" {
            endpoint = endpoint.tls_config(tls(settings)?).map_err(ClientError::Grpc)?;
        }
        Ok(Self {
            endpoint,
            client: None,
            metadata: MetadataMap::from_headers(settings.headers.0.clone()),
            compression: settings.compression,
            path: PathAndQuery::from_static(settings.signal.grpc_path()),
        })
    }

    pub(super) async fn send(&mut self, body: Bytes, timeout: Duration) -> Outcome {
        let mut request = Request::new(body);
        *request.metadata_mut() = self.metadata.clone();
        request.set_timeout(timeout);
        let path = self.path.clone();
        let client = self.client();
        if let Err(error) = client.ready().await {
            return Outcome::Again { error: chain(&error), after: None };
        }
        match client.unary(request, path, OtlpCodec).await {
            Ok(response) => Outcome::Delivered(Partial::of(response.into_inner())),
            Err(status) => outcome(&status),
        }
    }

    /// Made with the first request: it wants the runtime that it will run on.
    fn client(&mut self) -> &mut Grpc<Channel> {
        self.client.get_or_insert_with(|| {
            let client = Grpc::new(self.endpoint.connect_lazy())
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Zstd);
            match self.compression {
                Compression::None => client,
                Compression::Gzip => client.send_compressed(CompressionEncoding::Gzip),
                Compression::Zstd => client.send_compressed(CompressionEncoding::Zstd),
            }
        })
    }
}

fn tls(settings: &Settings) -> Result<ClientTlsConfig, ClientError> {
    let mut tls = ClientTlsConfig::new();
    tls = match &settings.tls.certificate {
        Some(path) => tls.ca_certificate(Certificate::from_pem(read(path)?)),
        None => tls.with_native_roots(),
    };
    if let (Some(certificate), Some(key)) = (&settings.tls.client_certificate, &settings.tls.client_key) {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(tls)
}

fn outcome(status: &Status) -> Outcome {
    let error = format!("{:?}: {}", status.code(), chain(status));
    let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
    // A status with a source was made here: the connection failed and there was no answer.
    let unanswered = std::error::Error::source(status).is_some();
    let retryable = match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::DataLoss
        | Code::Unavailable => true,
        Code::ResourceExhausted => after.is_some(),
        _ => unanswered,
    };
    if retryable { Outcome::Again { error, after } } else { Outcome::Refused(error) }
}

/// Passes encoded requests through.
struct OtlpCodec;

impl Codec for OtlpCodec {
    type Encode = Bytes;
    type Decode = ExportTraceServiceResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for OtlpCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.reserve(item.len());
        dst.put(item);
        Ok(())
    }
}

impl Decoder for OtlpCodec {
    type Item = ExportTraceServiceResponse;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        // A success is a success even when its message is not understood.
        let mut body = src.copy_to_bytes(src.remaining());
        Ok(Some(Self::Item::decode(&mut body).unwrap_or_default()))
    }
}
