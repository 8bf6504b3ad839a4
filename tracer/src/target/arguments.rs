//! A command line as it may be shown (`--command-args`): which options are there, and hardly any of their values.
//!
//! A credential can be anywhere in a command line: behind an option of any name, in an URL, in a path, in a word of its own. So
//! this is a list of what is shown, and everything else is `?`: the name of the program, names of options, and, of the options
//! in [`PLAIN_OPTIONS`], values that are a small number or one of [`PLAIN_VALUES`].
//!
//! ```
//! use tracer::target::shown_arguments;
//! let arguments = ["/opt/svc", "--port=8080", "--log-level", "debug", "--token=hunter2", "-phunter2", "redis://:hunter2@db/"];
//! let arguments = arguments.map(String::from);
//! assert_eq!(shown_arguments("svc", &arguments), ["svc", "--port=8080", "--log-level", "debug", "--token=?", "-p?", "?"]);
//! ```

/// Most arguments that are shown.
const MAX_ARGUMENTS: usize = 32;
/// Longest name of an option.
const MAX_OPTION: usize = 40;
/// Longest number: no credential worth the name is shorter, and ports are no longer.
const MAX_DIGITS: usize = 5;

/// Last words of the names of options whose plain values are shown.
const PLAIN_OPTIONS: &[&str] = &[
    "backlog",
    "batch",
    "capacity",
    "color",
    "colour",
    "concurrency",
    "connections",
    "count",
    "cpus",
    "interval",
    "jobs",
    "level",
    "limit",
    "port",
    "rate",
    "replicas",
    "retries",
    "shards",
    "size",
    "threads",
    "timeout",
    "workers",
];

/// Words that are shown as values of those options.
const PLAIN_VALUES: &[&str] =
    &["always", "auto", "debug", "error", "false", "info", "never", "no", "off", "on", "trace", "true", "warn", "yes"];

/// The arguments of the program `name`, without what may be a credential.
#[must_use]
pub fn shown_arguments(name: &str, arguments: &[String]) -> Vec<String> {
    let mut shown = Vec::with_capacity(arguments.len().min(MAX_ARGUMENTS));
    // The option before may have its value in this argument.
    let mut plain = false;
    for (index, argument) in arguments.iter().take(MAX_ARGUMENTS).enumerate() {
        if index == 0 {
            // A process can write anything there.
            let program = argument.rsplit('/').next().unwrap_or_default();
            shown.push(if program == name { name.to_owned() } else { HIDDEN.to_owned() });
        } else if argument.starts_with('-') {
            let (text, takes_plain) = option(argument);
            shown.push(text);
            plain = takes_plain;
        } else {
            let value = if plain && is_plain(argument) { argument } else { HIDDEN };
            shown.push(value.to_owned());
            plain = false;
        }
    }
    if arguments.len() > MAX_ARGUMENTS {
        shown.push("...".to_owned());
    }
    shown
}

const HIDDEN: &str = "?";

/// An option, and whether a plain value may follow it.
fn option(argument: &str) -> (String, bool) {
    let Some(long) = argument.strip_prefix("--") else {
        // `-v`, but of `-pSECRET` only the letter, and of `-1234` nothing.
        let mut rest = argument[1..].chars();
        return match rest.next() {
            None => (argument.to_owned(), false),
            Some(letter) if letter.is_ascii_alphabetic() => {
                (if rest.as_str().is_empty() { format!("-{letter}") } else { format!("-{letter}{HIDDEN}") }, false)
            }
            Some(_) => (HIDDEN.to_owned(), false),
        };
    };
    let (name, value) = match long.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (long, None),
    };
    if !is_option_name(name) {
        return (if long.is_empty() { argument.to_owned() } else { format!("--{HIDDEN}") }, false);
    }
    let plain = name.rsplit(['-', '_', '.']).next().is_some_and(|word| PLAIN_OPTIONS.contains(&word));
    match value {
        Some(value) if plain && is_plain(value) => (argument.to_owned(), false),
        Some(_) => (format!("--{name}={HIDDEN}"), false),
        None => (argument.to_owned(), plain),
    }
}

/// Words of lower-case letters: what is random has digits or capitals in it.
fn is_option_name(name: &str) -> bool {
    (1..=MAX_OPTION).contains(&name.len())
        && name
            .split(['-', '_', '.'])
            .all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase()))
}

fn is_plain(value: &str) -> bool {
    let number = (1..=MAX_DIGITS).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit());
    number || PLAIN_VALUES.contains(&value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::shown_arguments;

    fn shown(arguments: &[&str]) -> String {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        shown_arguments("svc", &arguments).join(" ")
    }

    #[test]
    fn values_are_hidden_in_all_the_ways_in_which_they_are_given() {
        for (arguments, expected) in [
            (&["svc", "--password=S3CRET"][..], "svc --password=?"),
            (&["svc", "--password", "S3CRET"], "svc --password ?"),
            (&["svc", "-pS3CRET"], "svc -p?"),
            (&["svc", "-p", "S3CRET"], "svc -p ?"),
            (&["svc", "-p", "12345"], "svc -p ?"),
            (&["svc", "--pin", "1234"], "svc --pin ?"),
            (&["svc", "--S3CRET"], "svc --?"),
            (&["svc", "--S3CRET=1"], "svc --?"),
            (&["svc", "-S3CRET"], "svc -S?"),
            (&["svc", "-", "--", "-5"], "svc - -- ?"),
            (&["svc", "mysql://u:S3CRET@h/db", "http://h/?token=S3CRET"], "svc ? ?"),
            (&["svc", "PASSWORD=S3CRET", "serve"], "svc ? ?"),
            (&["svc", "--db-url=postgres://u:S3CRET@h/db"], "svc --db-url=?"),
            (&["svc", "--header", "Authorization: Bearer S3CRET"], "svc --header ?"),
            (&["S3CRET", "x"], "? ?"),
            (&["/tmp/S3CRET/svc"], "svc"),
            (&["svc: user S3CRET"], "?"),
        ] {
            assert_eq!(shown(arguments), expected, "{arguments:?}");
        }
    }

    #[test]
    fn plain_values_of_plain_options_are_shown() {
        assert_eq!(
            shown(&["./svc", "--metrics-port", "9090", "--log-level=info", "--worker_threads=8", "-v"]),
            "svc --metrics-port 9090 --log-level=info --worker_threads=8 -v"
        );
        assert_eq!(
            shown(&["svc", "--port=S3CRET", "--port", "123456", "--port", "-v", "80"]),
            "svc --port=? --port ? --port -v ?"
        );
        assert!(shown(&["svc"; 100]).ends_with(" ..."));
    }

    proptest! {
        #[test]
        fn a_random_word_is_never_shown(
            token in "[a-z]{0,8}[A-Z0-9][A-Za-z0-9]{5,20}",
            form in 0..9,
            option in "[a-z]{1,8}(-[a-z]{1,8}){0,2}",
        ) {
            let arguments = match form {
                0 => vec![format!("--{option}={token}")],
                1 => vec![format!("--{option}"), token.clone()],
                2 => vec![format!("-p{token}")],
                3 => vec![token.clone()],
                4 => vec![format!("redis://:{token}@host/0")],
                5 => vec![format!("--{token}")],
                6 => vec![format!("{option}={token}")],
                7 => vec![format!("--{option}:{token}")],
                _ => vec![format!("--port={token}"), "--port".to_owned(), token.clone()],
            };
            let arguments: Vec<String> = std::iter::once("svc".to_owned()).chain(arguments).collect();
            let text = shown_arguments("svc", &arguments).join(" ");
            prop_assert!(!text.contains(&token), "{}", text);
        }
    }
}
