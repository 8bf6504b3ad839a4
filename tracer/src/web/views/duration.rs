//! Durations as people write them, and what many of them have in common.

/// Reads `1.5ms`, `200us`, `2s` or `300ns`; a number alone is milliseconds.
pub fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let ns = match unit.trim() {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "" | "ms" => 1e6,
        "s" => 1e9,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    // A float that is too large becomes the largest number.
    Some((number * ns) as u64)
}

/// The value below which `percent` of the values are, and the values' order is changed by that; 0 if there are none.
pub fn percentile(values: &mut [u64], percent: usize) -> u64 {
    if values.is_empty() {
        return 0;
    }
    let place = (values.len() * percent / 100).min(values.len() - 1);
    *values.select_nth_unstable(place).1
}

/// Steps of a scale of durations in each power of ten.
const STEPS: f64 = 8.0;

/// The step that a duration is in.
pub fn step(ns: u64) -> u32 {
    ((ns.max(1) as f64).log10() * STEPS) as u32
}

/// Where a step begins.
pub fn step_start(step: u32) -> u64 {
    10f64.powf(f64::from(step) / STEPS).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::{parse, percentile, step, step_start};

    #[test]
    fn durations_as_people_write_them() {
        let read = [("1.5ms", 1_500_000), ("200us", 200_000), ("2 s", 2_000_000_000), ("300ns", 300), ("7", 7_000_000)];
        for (text, ns) in read {
            assert_eq!(parse(text), Some(ns), "{text}");
        }
        for text in ["", "ms", "1.2.3s", "-1s", "1h", "١ms"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse("99999999999999999999999999s"), Some(u64::MAX));
    }

    #[test]
    fn percentiles_of_few_values() {
        assert_eq!(percentile(&mut [], 50), 0);
        assert_eq!(percentile(&mut [7], 99), 7);
        let mut values: Vec<u64> = (0..100).rev().collect();
        assert_eq!((percentile(&mut values, 50), percentile(&mut values, 99)), (50, 99));
    }

    #[test]
    fn a_duration_is_within_its_step() {
        for ns in [0, 1, 2, 9, 10, 11, 999, 1_000, 1_001, 123_456_789, u64::MAX] {
            let step = step(ns);
            assert!(step_start(step) <= ns.saturating_add(1).max(1), "{ns} is before {step}");
            assert!(ns.saturating_sub(1) < step_start(step + 1), "{ns} is behind {step}");
        }
    }
}
