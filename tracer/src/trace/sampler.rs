//! The six standard samplers (`OTEL_TRACES_SAMPLER`), with consistent probability.
//!
//! A ratio sampler keeps a trace when the random part of its id is at or above a threshold, and writes the threshold into
//! `tracestate` (`ot=th:c` for 25%), so that every process that samples the trace decides alike and a backend can count
//! what was left out.
//!
//! ```
//! use tracer::trace::sampler::Sampler;
//! use tracer::model::TraceId;
//!
//! let sampler: Sampler = "parentbased_traceidratio=0.25".parse()?;
//! let decision = sampler.decide(None, TraceId([0xff; 16]));
//! assert!(decision.sampled);
//! assert_eq!(decision.trace_state.as_deref(), Some("ot=th:c"));
//! # Ok::<(), tracer::trace::sampler::SamplerError>(())
//! ```

use std::fmt;
use std::str::FromStr;

use crate::model::{SpanContext, TraceId};

/// Values of the random part of a trace id, which has 56 bits.
const RANDOM_VALUES: u64 = 1 << 56;
/// Hexadecimal digits of a threshold.
const MAX_DIGITS: u32 = 14;
/// Significant digits of a threshold: finer ones would make longer headers, not better estimates.
const PRECISION: u32 = 4;
/// Members that a `tracestate` may have.
const MAX_MEMBERS: usize = 32;

/// Decides which traces are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Whether a parent's flag decides, where there is a parent.
    parent_based: bool,
    root: Root,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Root {
    AlwaysOn,
    AlwaysOff,
    Ratio { ratio: f64, threshold: Threshold },
}

/// What a sampler says of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the span is recorded; it becomes the W3C flag.
    pub sampled: bool,
    /// The `tracestate` of the span where it differs from its parent's (or from none).
    pub trace_state: Option<String>,
}

/// A sampler that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SamplerError {
    /// No such name.
    #[error(
        "unknown sampler {0:?}; use one of always_on, always_off, traceidratio=RATIO, parentbased_always_on, \
         parentbased_always_off, parentbased_traceidratio=RATIO"
    )]
    Name(String),
    /// Not a probability.
    #[error("sampling ratio {0:?} is not a number from 0 to 1, such as 0.1 for every tenth trace")]
    Ratio(String),
    /// An argument where none is taken.
    #[error("sampler {0} takes no argument")]
    NoArgument(String),
}

impl Default for Sampler {
    /// `parentbased_always_on`, the standard's default.
    fn default() -> Self {
        Self { parent_based: true, root: Root::AlwaysOn }
    }
}

impl Sampler {
    /// By the standard's name and argument; a ratio sampler without one keeps everything.
    ///
    /// # Errors
    /// When there is no such sampler or the argument does not fit it.
    pub fn new(name: &str, argument: Option<&str>) -> Result<Self, SamplerError> {
        let (parent_based, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let root = match (root, argument) {
            ("traceidratio", argument) => Root::ratio(argument.unwrap_or("1"))?,
            ("always_on" | "always_off", Some(_)) => {
                return Err(SamplerError::NoArgument(name.to_owned()));
            }
            ("always_on", None) => Root::AlwaysOn,
            ("always_off", None) => Root::AlwaysOff,
            _ => return Err(SamplerError::Name(name.to_owned())),
        };
        Ok(Self { parent_based, root })
    }

    /// Decides by nothing but the parent's context and the trace id, so every process that sees both decides alike.
    pub fn decide(&self, parent: Option<&SpanContext>, trace_id: TraceId) -> Decision {
        if self.parent_based
            && let Some(parent) = parent
        {
            return Decision { sampled: parent.is_sampled(), trace_state: None };
        }
        match self.root {
            Root::AlwaysOn => Decision { sampled: true, trace_state: None },
            Root::AlwaysOff => Decision { sampled: false, trace_state: None },
            Root::Ratio { threshold, .. } => threshold.decide(parent, trace_id),
        }
    }
}

impl FromStr for Sampler {
    type Err = SamplerError;

    /// `NAME` or `NAME=ARGUMENT`.
    fn from_str(text: &str) -> Result<Self, SamplerError> {
        match text.split_once('=') {
            Some((name, argument)) => Self::new(name.trim(), Some(argument.trim())),
            None => Self::new(text.trim(), None),
        }
    }
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.parent_based { "parentbased_" } else { "" })?;
        match self.root {
            Root::AlwaysOn => f.write_str("always_on"),
            Root::AlwaysOff => f.write_str("always_off"),
            Root::Ratio { ratio, .. } => write!(f, "traceidratio={ratio}"),
        }
    }
}

impl Root {
    fn ratio(text: &str) -> Result<Self, SamplerError> {
        match text.parse() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(Self::Ratio { ratio, threshold: Threshold::of(ratio) }),
            _ => Err(SamplerError::Ratio(text.to_owned())),
        }
    }
}

/// Traces whose random value is below it are left out: 0 keeps all, [`RANDOM_VALUES`] none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Threshold(u64);

impl Threshold {
    /// Rounded to [`PRECISION`] digits after the leading zeros or `f`s, as the OpenTelemetry collector does it.
    fn of(ratio: f64) -> Self {
        let threshold = RANDOM_VALUES - (ratio * RANDOM_VALUES as f64).round() as u64;
        let digits = MAX_DIGITS.min(PRECISION + leading_digits(ratio).max(leading_digits(1.0 - ratio)));
        let shift = 4 * (MAX_DIGITS - digits);
        let half = (1 << shift) >> 1;
        Self((threshold + half) >> shift << shift)
    }

    fn decide(self, parent: Option<&SpanContext>, trace_id: TraceId) -> Decision {
        let parent_state = parent.map_or("", |parent| parent.trace_state.as_ref());
        let sampled = random_value(parent_state, trace_id) >= self.0;
        let state = with_threshold(parent_state, sampled.then_some(self));
        Decision { sampled, trace_state: (state != parent_state).then_some(state) }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:014x}", self.0);
        match digits.trim_end_matches('0') {
            "" => f.write_str("0"),
            significant => f.write_str(significant),
        }
    }
}

/// Hexadecimal zeros after the point of a number below 1.
fn leading_digits(number: f64) -> u32 {
    if number <= 0.0 {
        return 0;
    }
    (0..MAX_DIGITS).find(|&digits| number * 16f64.powi(digits as i32 + 1) >= 1.0).unwrap_or(MAX_DIGITS)
}

/// `rv` of the `ot` member where the sender gave one, else the last 56 bits of the trace id.
fn random_value(trace_state: &str, trace_id: TraceId) -> u64 {
    let explicit = sub_members(ot_member(trace_state).unwrap_or(""))
        .find_map(|(key, value)| (key == "rv" && value.len() == MAX_DIGITS as usize).then_some(value))
        .and_then(|value| u64::from_str_radix(value, 16).ok());
    explicit.unwrap_or_else(|| {
        let low = trace_id.0.last_chunk().expect("8 of 16 bytes");
        u64::from_be_bytes(*low) % RANDOM_VALUES
    })
}

/// Value of the `ot` member.
fn ot_member(trace_state: &str) -> Option<&str> {
    members(trace_state).find_map(|member| member.strip_prefix("ot="))
}

fn members(trace_state: &str) -> impl Iterator<Item = &str> {
    trace_state.split(',').map(str::trim).filter(|member| !member.is_empty())
}

fn sub_members(ot: &str) -> impl Iterator<Item = (&str, &str)> {
    ot.split(';').filter_map(|member| member.split_once(':'))
}

/// The `tracestate` of a trace whose first span was sampled with this 56-bit threshold.
pub fn threshold_trace_state(threshold: u64) -> String {
    with_threshold("", Some(Threshold(threshold)))
}

/// The `tracestate` with this `th`, or without one, and all else as it was. A changed member moves to the front.
fn with_threshold(trace_state: &str, threshold: Option<Threshold>) -> String {
    let old = ot_member(trace_state);
    let threshold = threshold.map(|threshold| format!("th:{threshold}"));
    let kept =
        sub_members(old.unwrap_or("")).filter(|(key, _)| *key != "th").map(|(key, value)| format!("{key}:{value}"));
    let new = threshold.into_iter().chain(kept).collect::<Vec<_>>().join(";");
    if old.unwrap_or("") == new {
        return trace_state.to_owned();
    }
    let ot = (!new.is_empty()).then(|| format!("ot={new}"));
    let others = members(trace_state).filter(|member| !member.starts_with("ot=")).map(str::to_owned);
    ot.into_iter().chain(others).take(MAX_MEMBERS).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is the failure of a test")]

    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;
    use crate::model::SpanId;

    fn parent(flags: u8, trace_state: &'static str) -> SpanContext {
        SpanContext {
            trace_id: TraceId([1; 16]),
            span_id: SpanId([2; 8]),
            flags,
            remote: true,
            trace_state: Cow::Borrowed(trace_state),
        }
    }

    fn sampler(text: &str) -> Sampler {
        text.parse().unwrap()
    }

    fn trace_id(random: u64) -> TraceId {
        let mut id = [0xab; 16];
        id[8..].copy_from_slice(&random.to_be_bytes());
        TraceId(id)
    }

    #[test]
    fn thresholds_are_those_of_the_specification() {
        let expected = [
            (1.0, "0"),
            (0.5, "8"),
            (0.25, "c"),
            (0.1, "e666"),
            (0.01, "fd70a"),
            (0.001, "ffbe77"),
            (1.0 / 3.0, "aaab"),
            (0.75, "4"),
        ];
        for (ratio, digits) in expected {
            assert_eq!(Threshold::of(ratio).to_string(), digits, "{ratio}");
        }
        assert_eq!(Threshold::of(0.0).0, RANDOM_VALUES);
    }

    #[test]
    fn roots_are_decided_by_the_sampler_and_children_by_the_flag_of_their_parent() {
        let id = trace_id(RANDOM_VALUES / 2);
        let cases = [
            // sampler, root, child of sampled, child of unsampled
            ("always_on", true, true, true),
            ("always_off", false, false, false),
            ("traceidratio=0.6", true, true, true),
            ("traceidratio=0.4", false, false, false),
            ("parentbased_always_on", true, true, false),
            ("parentbased_always_off", false, true, false),
            ("parentbased_traceidratio=0.6", true, true, false),
            ("parentbased_traceidratio=0.4", false, true, false),
        ];
        for (name, root, of_sampled, of_unsampled) in cases {
            let sampler = sampler(name);
            assert_eq!(sampler.decide(None, id).sampled, root, "{name}");
            assert_eq!(sampler.decide(Some(&parent(1, "")), id).sampled, of_sampled, "{name}");
            assert_eq!(sampler.decide(Some(&parent(2, "")), id).sampled, of_unsampled, "{name}");
            assert_eq!(sampler.to_string(), name);
        }
        assert_eq!(Sampler::default(), sampler("parentbased_always_on"));
    }

    #[test]
    fn the_threshold_is_written_and_erased_and_the_rest_of_tracestate_stays() {
        let quarter = sampler("traceidratio=0.25");
        let kept = trace_id(RANDOM_VALUES - 1);
        let left_out = trace_id(0);
        let state = |id, state| quarter.decide(Some(&parent(1, state)), id).trace_state;
        assert_eq!(quarter.decide(None, kept).trace_state.as_deref(), Some("ot=th:c"));
        assert_eq!(quarter.decide(None, left_out).trace_state, None);
        assert_eq!(state(kept, "ot=th:c"), None);
        assert_eq!(state(kept, "a=1,ot=th:8;x:y,b=2").as_deref(), Some("ot=th:c;x:y,a=1,b=2"));
        assert_eq!(state(left_out, "a=1,ot=th:8;x:y").as_deref(), Some("ot=x:y,a=1"));
        assert_eq!(state(left_out, "ot=th:8").as_deref(), Some(""));
    }

    #[test]
    fn an_explicit_random_value_wins_over_the_trace_id() {
        let half = sampler("traceidratio=0.5");
        let decide = |state, id| half.decide(Some(&parent(1, state)), id).sampled;
        assert!(decide("ot=rv:80000000000000", trace_id(0)));
        assert!(!decide("ot=rv:7fffffffffffff", trace_id(u64::MAX)));
        assert!(decide("ot=rv:bad", trace_id(u64::MAX)), "an invalid one does not count");
    }

    #[test]
    fn wrong_samplers_are_named_with_the_right_ones() {
        let error = |text: &str| text.parse::<Sampler>().unwrap_err().to_string();
        assert!(error("sometimes").contains("\"sometimes\"; use one of always_on, always_off, traceidratio=RATIO"));
        assert!(error("parentbased_").contains("unknown sampler"));
        for ratio in ["1.5", "-0.1", "NaN", "", "ten"] {
            assert!(error(&format!("traceidratio={ratio}")).contains("from 0 to 1"), "{ratio}");
        }
        assert_eq!(error("always_on=1"), "sampler always_on takes no argument");
    }

    #[test]
    fn the_ratio_is_kept_within_what_chance_allows() {
        for ratio in [0.001, 0.01, 0.25, 0.5, 0.9] {
            let sampler = Sampler::new("traceidratio", Some(&ratio.to_string())).unwrap();
            let total = 100_000u64;
            // Golden-ratio steps spread evenly, so the count is far closer than a random one would be.
            let kept = (0..total)
                .filter(|n| sampler.decide(None, trace_id(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8)).sampled)
                .count();
            assert!((kept as f64 - ratio * total as f64).abs() < 20.0, "{ratio}: {kept}");
        }
    }

    proptest! {
        #[test]
        fn a_higher_ratio_keeps_all_that_a_lower_one_keeps(low in 0.0..=1f64, high in 0.0..=1f64, id: [u8; 16]) {
            let (low, high) = (low.min(high), low.max(high));
            let decide = |ratio: f64| Sampler::new("traceidratio", Some(&ratio.to_string())).unwrap().decide(None, TraceId(id)).sampled;
            prop_assert!(!decide(low) || decide(high));
        }

        #[test]
        fn any_tracestate_is_survived(state in ".{0,200}", id: [u8; 16]) {
            let context = SpanContext { trace_state: Cow::Owned(state), ..parent(1, "") };
            let decision = sampler("traceidratio=0.5").decide(Some(&context), TraceId(id));
            let state = decision.trace_state.unwrap_or_else(|| context.trace_state.to_string());
            prop_assert_eq!(ot_member(&state).is_some_and(|ot| sub_members(ot).any(|(key, _)| key == "th")), decision.sampled);
        }
    }
}
