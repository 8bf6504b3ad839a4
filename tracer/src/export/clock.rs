//! Wall-clock time of monotonic times.

use std::io;

/// Where the distance between CLOCK_MONOTONIC and wall-clock time comes from.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's clocks, measured again for each batch: CLOCK_REALTIME jumps when it is set.
    System,
    /// Always this many nanoseconds: recorded events carry the offset of their time.
    Fixed(i64),
}

/// Measures, and keeps the last measure while it still holds.
#[derive(Debug)]
pub(super) struct OffsetMeter {
    clock: Clock,
    current: Option<i64>,
}

impl OffsetMeter {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, current: None }
    }

    /// Nanoseconds to add to a monotonic time.
    ///
    /// Both clocks are slewed alike, so the offset changes only in jumps. A measure within its own uncertainty of the one
    /// before is noise, and taking it would move parents and children of different batches against each other.
    pub(super) fn offset_ns(&mut self) -> i64 {
        if let Clock::Fixed(offset) = self.clock {
            return offset;
        }
        let (measured, uncertainty) = measure();
        match self.current {
            Some(current) if current.abs_diff(measured) <= uncertainty => current,
            _ => *self.current.insert(measured),
        }
    }
}

/// The offset by the best of a few tries, and how far off it can be.
fn measure() -> (i64, u64) {
    (0..4)
        .map(|_| {
            let before = read(libc::CLOCK_MONOTONIC);
            let wall = read(libc::CLOCK_REALTIME);
            let after = read(libc::CLOCK_MONOTONIC);
            (wall - before.midpoint(after), after.abs_diff(before))
        })
        .min_by_key(|&(_, uncertainty)| uncertainty)
        .expect("at least one try")
}

fn read(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the whole call.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(result, 0, "these clocks exist on every Linux: {}", io::Error::last_os_error());
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn monotonic_now_plus_offset_is_wall_clock_now() {
        let offset = OffsetMeter::new(Clock::System).offset_ns();
        let before = SystemTime::now();
        let now = read(libc::CLOCK_MONOTONIC) + offset;
        let after = SystemTime::now();
        let ns = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH).map(|d| d.as_nanos() as i64).expect("after 1970")
        };
        let slack = 50_000;
        assert!(ns(before) - slack <= now && now <= ns(after) + slack, "{} {now} {}", ns(before), ns(after));
    }

    #[test]
    fn noise_does_not_move_the_offset_and_a_jump_does() {
        let mut meter = OffsetMeter::new(Clock::System);
        let first = meter.offset_ns();
        for _ in 0..1_000 {
            assert!(meter.offset_ns().abs_diff(first) < 100_000, "the offset wanders");
        }
        meter.current = Some(first - 3_000_000_000);
        assert!(meter.offset_ns().abs_diff(first) < 100_000, "a jump of 3 s was not followed");
    }
}
