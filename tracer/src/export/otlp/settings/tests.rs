#![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

use super::*;

fn resolve(signal: Signal, flag: Option<&str>, variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let env = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Settings::resolve(signal, flag, &env)
}

fn traces(variables: &[(&str, &str)]) -> Settings {
    resolve(Signal::Traces, None, variables).unwrap()
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";

#[test]
fn endpoints_are_read_as_the_specification_says() {
    type Case = (&'static [(&'static str, &'static str)], Protocol, &'static str);
    let cases: &[Case] = &[
        (&[], Protocol::HttpProtobuf, "http://localhost:4318/v1/traces"),
        (&[(PROTOCOL, "grpc")], Protocol::Grpc, "http://localhost:4317/"),
        (&[(ENDPOINT, "http://c:4318")], Protocol::HttpProtobuf, "http://c:4318/v1/traces"),
        (&[(ENDPOINT, "https://c/otlp/")], Protocol::HttpProtobuf, "https://c/otlp/v1/traces"),
        (&[(ENDPOINT, "https://c/otlp")], Protocol::HttpProtobuf, "https://c/otlp/v1/traces"),
        (&[(TRACES_ENDPOINT, "http://c/x")], Protocol::HttpProtobuf, "http://c/x"),
        (&[(TRACES_ENDPOINT, "http://c")], Protocol::HttpProtobuf, "http://c/"),
        (&[(TRACES_ENDPOINT, "http://a/x"), (ENDPOINT, "http://b")], Protocol::HttpProtobuf, "http://a/x"),
        (&[(TRACES_ENDPOINT, " "), (ENDPOINT, "http://b")], Protocol::HttpProtobuf, "http://b/v1/traces"),
        (&[(ENDPOINT, "http://c:4317")], Protocol::Grpc, "http://c:4317/"),
        (
            &[(ENDPOINT, "http://c:4317"), (PROTOCOL, "http/protobuf")],
            Protocol::HttpProtobuf,
            "http://c:4317/v1/traces",
        ),
        (&[(ENDPOINT, "c:4317")], Protocol::Grpc, "https://c:4317/"),
        (&[(ENDPOINT, "c:4317"), ("OTEL_EXPORTER_OTLP_INSECURE", "true")], Protocol::Grpc, "http://c:4317/"),
        (&[(ENDPOINT, "http://c:1"), (PROTOCOL, "grpc")], Protocol::Grpc, "http://c:1/"),
        (&[(ENDPOINT, "http://c:1"), (PROTOCOL, "http/json")], Protocol::HttpProtobuf, "http://c:1/v1/traces"),
    ];
    for (variables, protocol, url) in cases {
        let settings = traces(variables);
        assert_eq!((settings.protocol, settings.endpoint.as_str()), (*protocol, *url), "{variables:?}");
    }
    let metrics =
        resolve(Signal::Metrics, None, &[(ENDPOINT, "http://c:4318"), (TRACES_ENDPOINT, "http://x/")]).unwrap();
    assert_eq!(metrics.endpoint.as_str(), "http://c:4318/v1/metrics");
}

#[test]
fn the_flag_wins_over_every_endpoint_variable() {
    let variables = [(TRACES_ENDPOINT, "http://a/x"), (ENDPOINT, "http://b")];
    let settings = resolve(Signal::Traces, Some("http://flag:4318"), &variables).unwrap();
    assert_eq!(settings.endpoint.as_str(), "http://flag:4318/v1/traces");
}

#[test]
fn unusable_endpoints_say_what_is_wanted() {
    for value in ["c:4318", "ftp://c", "http://", "unix:///run/otlp", "http://[::"] {
        let error = resolve(Signal::Traces, None, &[(ENDPOINT, value)]).unwrap_err().to_string();
        assert!(error.starts_with(ENDPOINT) && error.contains("http:// or https:// URL"), "{error}");
    }
}

#[test]
fn a_flag_says_whether_to_encrypt() {
    let error = resolve(Signal::Traces, Some("c:4317"), &[]).unwrap_err().to_string();
    assert!(error.starts_with("--export otlp: \"c:4317\" is not an http:// or https:// URL"), "{error}");
}

#[test]
fn headers_are_decoded_and_not_shown() {
    let settings = traces(&[("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20s3cret , x-tenant=a=b,")]);
    assert_eq!(settings.headers.0["authorization"], "Bearer s3cret");
    assert_eq!(settings.headers.0["x-tenant"], "a=b");
    assert!(!format!("{settings:?}").contains("s3cret"));

    let own = traces(&[("OTEL_EXPORTER_OTLP_HEADERS", "a=1"), ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "b=2")]);
    assert_eq!(own.headers.0.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["b"]);

    for wrong in ["a=1,s3cret", "s3 cret=x", "a=%0a", "a=%ff"] {
        let error = resolve(Signal::Traces, None, &[("OTEL_EXPORTER_OTLP_HEADERS", wrong)]).unwrap_err().to_string();
        assert!(error.contains("OTEL_EXPORTER_OTLP_HEADERS: member") && !error.contains("s3"), "{error}");
    }
}

#[test]
fn values_that_make_no_sense_are_ignored() {
    let settings = traces(&[
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "lzma"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon"),
    ]);
    assert_eq!(settings, traces(&[]));
    assert_eq!(settings.timeout, Duration::from_secs(10));
}

#[test]
fn compression_and_timeout_are_taken() {
    let settings = traces(&[("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"), ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250")]);
    assert_eq!((settings.compression, settings.timeout), (Compression::Gzip, Duration::from_millis(250)));
    assert_eq!(
        traces(&[(PROTOCOL, "grpc"), ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")]).compression,
        Compression::Zstd
    );
}

#[test]
fn a_client_certificate_needs_its_key() {
    let error = resolve(Signal::Traces, None, &[("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/k.pem")]).unwrap_err();
    assert!(error.to_string().contains("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE is not"), "{error}");
}
