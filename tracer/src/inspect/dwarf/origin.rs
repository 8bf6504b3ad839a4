//! Whose code it is: line tables name functions without a path, so the source file decides.

/// Whether the path is that of `prost::message`.
pub(super) fn is_message_file(path: &str) -> bool {
    let mut parts = path.rsplit('/');
    if parts.next() != Some("message.rs") || parts.next() != Some("src") {
        return false;
    }
    // A registry has `prost-0.14.1`, a checkout and a vendored copy have `prost`.
    parts.next().and_then(|name| name.strip_prefix("prost")).is_some_and(|rest| {
        rest.is_empty()
            || rest.strip_prefix('-').is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::is_message_file;

    #[test]
    fn knows_the_file_of_the_trait() {
        assert!(is_message_file("/root/.cargo/registry/src/index-1949cf8c6b5b557f/prost-0.14.4/src/message.rs"));
        assert!(is_message_file("/build/vendor/prost/src/message.rs"));
        assert!(!is_message_file("/root/.cargo/registry/src/index/prost-0.14.4/src/encoding.rs"));
        assert!(!is_message_file("/root/.cargo/registry/src/index/prost-types-0.14.4/src/message.rs"));
        assert!(!is_message_file("src/message.rs"));
    }
}
