//! W3C Trace Context: the `traceparent` and `tracestate` headers, and OpenTelemetry's part of the latter.
//!
//! Consistent probability sampling compares two 56-bit numbers: the trace's randomness (its id's last seven bytes, or `rv`)
//! with a threshold `th`. Every participant that has the same threshold decides alike, and the threshold says how many
//! traces a kept one stands for.

use std::borrow::Cow;

use crate::model::{SpanContext, SpanId, TraceId};

/// Length of a version 00 `traceparent`.
const LENGTH: usize = 55;
/// Flags that are defined: sampled, random trace id. Others must not be passed on.
const KNOWN_FLAGS: u8 = 3;
/// Hexadecimal digits of randomness and threshold.
const DIGITS: usize = 14;
/// One more than the largest randomness.
const RANGE: u64 = 1 << 56;
/// Significant digits of a threshold that was made from a ratio.
const PRECISION: i32 = 4;
/// Most members of a `tracestate`.
const MAX_MEMBERS: usize = 32;
/// Longest `tracestate` that is passed on.
const MAX_STATE: usize = 512;

/// Reads a `traceparent` and, where there is one, a `tracestate`.
///
/// ```
/// use tracer::protocol::traceparent::{format, parse};
/// let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// let context = parse(header, "").expect("valid");
/// assert!(context.is_sampled());
/// assert_eq!(format(&context), header);
/// ```
pub fn parse(traceparent: &str, tracestate: &str) -> Option<SpanContext> {
    let header = traceparent.as_bytes();
    let [v0, v1, b'-', rest @ ..] = header else { return None };
    let version = byte(&[*v0, *v1])?;
    let longer = version > 0 && header.get(LENGTH) == Some(&b'-');
    if version == 0xff || !(header.len() == LENGTH || longer) {
        return None;
    }
    let (trace_id, rest) = rest.split_at_checked(32)?;
    let (span_id, rest) = rest.strip_prefix(b"-")?.split_at_checked(16)?;
    let flags = rest.strip_prefix(b"-")?.get(..2)?;
    if [trace_id, span_id].iter().any(|id| id.iter().any(u8::is_ascii_uppercase)) {
        return None;
    }
    let trace_state = if tracestate.len() <= MAX_STATE { tracestate.trim() } else { "" };
    Some(SpanContext {
        trace_id: TraceId::from_hex(trace_id)?,
        span_id: SpanId::from_hex(span_id)?,
        flags: byte(flags)? & KNOWN_FLAGS,
        remote: true,
        trace_state: Cow::Owned(trace_state.to_owned()),
    })
}

/// Writes a `traceparent` of version 00.
pub fn format(context: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", context.trace_id, context.span_id, context.flags & KNOWN_FLAGS)
}

/// Two lower-case hexadecimal digits.
fn byte(digits: &[u8]) -> Option<u8> {
    let mut value = [0];
    hex::decode_to_slice(digits, &mut value).ok()?;
    (!digits.iter().any(u8::is_ascii_uppercase)).then_some(value[0])
}

/// OpenTelemetry's member of `tracestate`: `ot=th:c;rv:6e6d1a75832a2f`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OtState {
    /// Rejection threshold: traces with less randomness were not kept.
    pub threshold: Option<u64>,
    /// Explicit randomness, where the trace id is not random.
    pub random: Option<u64>,
}

impl OtState {
    /// What is valid in the `ot` member of a `tracestate`.
    pub fn parse(tracestate: &str) -> Self {
        let mut state = Self::default();
        let member = members(tracestate).find_map(|(key, value)| (key == "ot").then_some(value));
        for (key, value) in
            member.into_iter().flat_map(|member| member.split(';')).filter_map(|pair| pair.split_once(':'))
        {
            match key {
                "th" => state.threshold = threshold_digits(value),
                "rv" if value.len() == DIGITS => state.random = threshold_digits(value),
                _ => {}
            }
        }
        state
    }

    /// `tracestate` with this in its `ot` member, which comes first; unknown parts of it are kept, other members too.
    pub fn insert(self, tracestate: &str) -> String {
        let old = members(tracestate).find_map(|(key, value)| (key == "ot").then_some(value)).unwrap_or_default();
        let threshold = self.threshold.map(|threshold| format!("th:{}", format_threshold(threshold)));
        let random = self.random.map(|random| format!("rv:{random:014x}"));
        let others =
            old.split(';').filter(|pair| !pair.is_empty() && !pair.starts_with("th:") && !pair.starts_with("rv:"));
        let parts: Vec<Cow<'_, str>> =
            threshold.into_iter().chain(random).map(Cow::Owned).chain(others.map(Cow::Borrowed)).collect();
        let ot = (!parts.is_empty()).then(|| format!("ot={}", parts.join(";")));
        let rest = members(tracestate).filter(|(key, _)| *key != "ot").map(|(key, value)| format!("{key}={value}"));
        ot.into_iter().chain(rest).take(MAX_MEMBERS).collect::<Vec<_>>().join(",")
    }
}

fn members(tracestate: &str) -> impl Iterator<Item = (&str, &str)> {
    tracestate.split(',').filter_map(|member| member.trim().split_once('='))
}

/// 1 to 14 lower-case hexadecimal digits; zeros at the end are left out.
fn threshold_digits(text: &str) -> Option<u64> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.is_empty() || text.len() > DIGITS || !text.bytes().all(lower) {
        return None;
    }
    let value = u64::from_str_radix(text, 16).ok()?;
    Some(value << (4 * (DIGITS - text.len())))
}

/// The digits of a threshold: `c` for 25%, `0` for all.
pub fn format_threshold(threshold: u64) -> String {
    let digits = format!("{:014x}", threshold.min(RANGE - 1));
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() { "0".to_owned() } else { digits.to_owned() }
}

/// The threshold that keeps this part of all traces; `None` keeps nothing.
pub fn threshold_for(ratio: f64) -> Option<u64> {
    if ratio.is_nan() || ratio < 1.0 / RANGE as f64 {
        return None;
    }
    if ratio >= 1.0 {
        return Some(0);
    }
    // Digits that are f (or 0) say little: they do not count as significant.
    let zero_digits = |value: f64| (-value.log2()).floor() as i32 / 4;
    let precision = (PRECISION + zero_digits(ratio).max(zero_digits(1.0 - ratio))).clamp(1, DIGITS as i32);
    let exact = ((1.0 - ratio) * RANGE as f64).round() as u64;
    let shift = 4 * (DIGITS as u32 - precision.unsigned_abs());
    let half = if shift == 0 { 0 } else { 1 << (shift - 1) };
    let rounded = ((exact + half) >> shift) << shift;
    Some(if rounded >= RANGE { exact } else { rounded }.min(RANGE - 1))
}

/// Whether a trace is kept: its randomness, explicit or the last 56 bits of its id, is not below the threshold.
pub fn sampled_by_threshold(trace_id: TraceId, random: Option<u64>, threshold: u64) -> bool {
    let [.., a, b, c, d, e, f, g] = trace_id.0;
    random.unwrap_or_else(|| u64::from_be_bytes([0, a, b, c, d, e, f, g])) >= threshold
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn versions_and_flags() {
        for (header, flags) in [
            (format!("00-{TRACE}-{SPAN}-00"), 0),
            (format!("00-{TRACE}-{SPAN}-03"), 3),
            (format!("00-{TRACE}-{SPAN}-ff"), 3),
            (format!("cc-{TRACE}-{SPAN}-01"), 1),
            (format!("cc-{TRACE}-{SPAN}-01-what-the-future-brings"), 1),
        ] {
            let context = parse(&header, "a=b").unwrap();
            assert_eq!(context.flags, flags, "{header}");
            assert!(context.remote);
            assert_eq!(context.trace_state, "a=b");
            assert_eq!(format(&context), format!("00-{TRACE}-{SPAN}-{flags:02x}"), "re-emitted as 00");
        }
    }

    #[test]
    fn refused() {
        let zero = "0".repeat(32);
        for header in [
            String::new(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("cc-{TRACE}-{SPAN}-01.more"),
            format!("00-{TRACE}-{SPAN}-0"),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!("00-{zero}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zero[..16]),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("0A-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}_{SPAN}-01"),
            format!(" 00-{TRACE}-{SPAN}-01"),
        ] {
            assert_eq!(parse(&header, ""), None, "{header}");
        }
    }

    #[test]
    fn ot_member() {
        let state = OtState::parse("vendor=x, ot=th:c;rv:6e6d1a75832a2f;p:8");
        assert_eq!(state, OtState { threshold: Some(0xc0_0000_0000_0000), random: Some(0x6e_6d1a_7583_2a2f) });
        assert_eq!(state.insert("vendor=x,ot=th:8;p:8"), "ot=th:c;rv:6e6d1a75832a2f;p:8,vendor=x");
        assert_eq!(OtState::default().insert("ot=th:8,vendor=x"), "vendor=x");
        for invalid in ["ot=th:", "ot=th:C", "ot=th:123456789abcdef", "ot=rv:1", "other=th:c", "ot", ""] {
            assert_eq!(OtState::parse(invalid), OtState::default(), "{invalid}");
        }
        assert_eq!(OtState::parse("ot=th:0").threshold, Some(0));
    }

    #[test]
    fn thresholds_of_the_specification() {
        for (ratio, digits) in [(1.0, "0"), (0.5, "8"), (0.25, "c"), (0.01, "fd70a"), (0.001, "ffbe77"), (2.0, "0")] {
            assert_eq!(format_threshold(threshold_for(ratio).unwrap()), digits, "{ratio}");
        }
        for nothing in [0.0, -1.0, f64::NAN] {
            assert_eq!(threshold_for(nothing), None);
        }
        assert_eq!(threshold_for(1.0 / RANGE as f64), Some(RANGE - 1));
    }

    #[test]
    fn the_last_seven_bytes_decide() {
        let mut id = TraceId([0xff; 16]);
        id.0[9..].copy_from_slice(&[0xc0, 0, 0, 0, 0, 0, 0]);
        let threshold = threshold_for(0.25).unwrap();
        assert!(sampled_by_threshold(id, None, threshold));
        assert!(!sampled_by_threshold(id, Some(0xbf_ffff_ffff_ffff), threshold));
        id.0[9] = 0xbf;
        assert!(!sampled_by_threshold(id, None, threshold));
    }

    proptest! {
        #[test]
        fn any_text(parent in "\\PC{0,80}", state in "\\PC{0,80}") {
            let _ = parse(&parent, &state);
            let again = OtState::parse(&state).insert(&state);
            prop_assert_eq!(OtState::parse(&again), OtState::parse(&state));
        }

        #[test]
        fn thresholds_keep_what_they_say(ratio in 0.0001f64..1.0) {
            let threshold = threshold_for(ratio).unwrap();
            let kept = (RANGE - threshold) as f64 / RANGE as f64;
            prop_assert!((kept / ratio - 1.0).abs() < 0.001, "{} instead of {}", kept, ratio);
            prop_assert_eq!(threshold_digits(&format_threshold(threshold)), Some(threshold));
        }
    }
}
