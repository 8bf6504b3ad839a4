#![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

use super::*;

fn no_env(_: &str) -> Option<String> {
    None
}

fn env<'a>(variables: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
    |name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
}

fn file(text: &str) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tracer.yaml");
    std::fs::write(&path, text).unwrap();
    Config::from_file(&path)
}

fn chain(error: ConfigError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

#[test]
fn a_file_says_what_the_flags_say() {
    let config = file(
        "name: risk_control\npid: [17, 18]\nexport: [terminal, 'file:/tmp/spans.jsonl', 'otlp:http://c:4318', otlp]\n\
         sampler: parentbased_traceidratio=0.5\nsocket-probe: off\nquery-text: full\nslow-query: 250\nduration: 10\n\
         resource-attributes: {deployment.environment.name: test}\nmax-queue-size: 1000\n\
         spool: /var/lib/tracer\nspool-size: 1000000\n",
    )
    .unwrap();
    let expected = Config {
        name: vec!["risk_control".into()],
        pid: vec![17, 18],
        export: vec![
            ExportTarget::Terminal,
            ExportTarget::File("/tmp/spans.jsonl".into()),
            ExportTarget::Otlp(Some("http://c:4318".into())),
            ExportTarget::Otlp(None),
        ],
        sampler: Some("parentbased_traceidratio=0.5".parse().unwrap()),
        socket_probe: Some(SocketProbe::Off),
        query_text: Some(QueryText::Full),
        slow_query: Some(250),
        duration: Some(10),
        resource_attributes: BTreeMap::from([("deployment.environment.name".into(), "test".into())]),
        max_queue_size: NonZeroUsize::new(1_000),
        spool: Some("/var/lib/tracer".into()),
        spool_size: NonZeroU64::new(1_000_000),
        ..Config::default()
    };
    assert_eq!(config, expected);
    assert_eq!(file("pid: 17").unwrap().pid, [17]);
}

#[test]
fn an_empty_file_says_nothing() {
    assert_eq!(file("").unwrap(), Config::default());
    assert_eq!(file("# later\n").unwrap(), Config::default());
}

#[test]
fn wrong_files_are_refused_with_place_and_remedy() {
    let cases = [
        ("name: a\nsampller: always_on\n", "unknown field `sampller`, expected one of `name`", "line 2 column 1"),
        ("name: a\nsampler: sometimes\n", "unknown sampler \"sometimes\"; use one of always_on", "line 2 column 10"),
        ("export:\n  - terminal\n  - jaeger\n", "use terminal, file:PATH, otlp, otlp:URL or none", "line 3 column 5"),
        ("pid: [one]\n", "invalid type: string \"one\", expected u32", "line 1 column 7"),
        ("name: [a\n", "did not find expected ',' or ']'", "line 2 column 1"),
        ("max-queue-size: 0\n", "expected a nonzero usize", "line 1 column 17"),
    ];
    for (text, message, place) in cases {
        let error = chain(file(text).unwrap_err());
        assert!(
            error.contains("tracer.yaml is not valid") && error.contains(message) && error.contains(place),
            "{error}"
        );
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = chain(Config::from_file(Path::new("/nowhere/tracer.yaml")).unwrap_err());
    assert_eq!(
        error,
        "cannot read the configuration file /nowhere/tracer.yaml: No such file or directory (os error 2)"
    );
}

#[test]
fn flags_win_over_environment_and_environment_over_file() {
    let file =
        file("name: [a]\nsampler: always_off\nduration: 1\nmax-queue-size: 10\nresource-attributes: {a: x, b: x}")
            .unwrap();
    let (environment, warnings) = Config::from_environment(&env(&[
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "20"),
    ]));
    assert_eq!(warnings, Vec::<String>::new());
    let flags = Config {
        name: vec!["b".into()],
        sampler: Some("always_on".parse().unwrap()),
        resource_attributes: BTreeMap::from([("a".into(), "y".into())]),
        ..Config::default()
    };
    let merged = flags.over(environment).over(file);
    assert_eq!(merged.name, ["b"]);
    assert_eq!(merged.sampler, Some("always_on".parse().unwrap()));
    assert_eq!(merged.max_queue_size, NonZeroUsize::new(20));
    assert_eq!(merged.duration, Some(1));
    assert_eq!(merged.resource_attributes, BTreeMap::from([("a".into(), "y".into()), ("b".into(), "x".into())]));
}

#[test]
fn senseless_variables_are_ignored_with_a_warning() {
    let (config, warnings) = Config::from_environment(&env(&[
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_SCHEDULE_DELAY", ""),
        ("OTEL_TRACES_EXPORTER", "zipkin,console"),
    ]));
    assert_eq!(config, Config { export: vec![ExportTarget::Terminal], ..Config::default() });
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings[0].contains("unknown sampler \"sometimes\""), "{warnings:?}");

    let (config, warnings) = Config::from_environment(&env(&[
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "half"),
    ]));
    assert_eq!(config.sampler, Some("parentbased_traceidratio=1".parse().unwrap()));
    assert!(warnings[0].contains("sampling ratio \"half\""), "{warnings:?}");
}

#[test]
fn spans_go_to_the_terminal_unless_something_else_is_said() {
    let nothing = Config::default();
    assert_eq!(nothing.export_targets(&no_env), [ExportTarget::Terminal]);
    let collector = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c")];
    assert_eq!(nothing.export_targets(&env(&collector)), [ExportTarget::Otlp(None)]);
    let file = Config { export: vec!["file:a".parse().unwrap()], ..Config::default() };
    assert_eq!(file.export_targets(&env(&collector)), [ExportTarget::File("a".into())]);
    for wrong in ["file:", "jaeger", "terminal:x", ""] {
        assert!(wrong.parse::<ExportTarget>().is_err(), "{wrong}");
    }
}

#[test]
fn an_exporter_that_cannot_start_says_why() {
    let config = Config { export: vec!["file:/nowhere/spans.jsonl".parse().unwrap()], ..Config::default() };
    let Err(error) = config.exporters(&no_env) else { panic!("a file in a directory that does not exist") };
    let error = format!("{error:#}");
    assert!(error.contains("/nowhere/spans.jsonl") && error.contains("No such file"), "{error}");
}

#[test]
fn counters_go_where_spans_go() {
    let with = |export: &str| Config { export: vec![export.parse().unwrap()], ..Config::default() };
    let env = env(&[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m/x")]);
    assert!(with("terminal").metrics_client(&env).unwrap().is_none());
    let endpoint = |config: Config| config.metrics_client(&env).unwrap().unwrap().endpoint();
    assert_eq!(endpoint(with("otlp")), "http://m/x");
    assert_eq!(endpoint(with("otlp:http://c:4318")), "http://c:4318/v1/metrics");
}
