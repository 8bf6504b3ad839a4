//! Takes the time of a command apart.

/// When things happened to a command, in nanoseconds of one clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    /// The client began to send it.
    pub start_ns: u64,
    /// The client had sent it: its bytes were there for the server.
    pub sent_ns: u64,
    /// The server began to read it.
    pub read_ns: u64,
    /// The server began to execute it.
    pub begun_ns: u64,
    /// The server had executed it, and what it read with it.
    pub done_ns: u64,
    /// The server began to write its reply.
    pub write_ns: u64,
    /// The client had the reply.
    pub end_ns: u64,
    /// The command's part of the bytes that the server read at once, of 1: the measure by which the execution of a
    /// pipeline is divided.
    pub share: f64,
    /// It waits in the server by design: what lies between its execution and its reply is service.
    pub parks: bool,
}

/// The parts of a command's time, in nanoseconds. They add up to its duration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// On the way, and in the system calls of both sides.
    pub network_ns: u64,
    /// There to be read, or executed and not yet answered: others had the thread.
    pub queue_ns: u64,
    /// Executed.
    pub service_ns: u64,
}

/// A piece of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Its start.
    pub start_ns: u64,
    /// Its end.
    pub end_ns: u64,
}

impl Interval {
    /// Its length.
    pub fn len_ns(self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}

/// The parts, and the two intervals in which the command waited for others.
pub fn split(times: &Times) -> (Split, [Interval; 2]) {
    // Each time within those around it: clocks of two CPUs may differ by a little, and input may be damaged.
    let end = times.end_ns.max(times.start_ns);
    let within = |time: u64, from: u64| time.clamp(from, end);
    let read = within(times.read_ns, times.start_ns);
    let arrived = times.sent_ns.clamp(times.start_ns, read);
    let begun = within(times.begun_ns, read);
    let done = within(times.done_ns, begun);
    let write = within(times.write_ns, done);
    let execution = done - begun;
    let share = if times.share.is_finite() { times.share.clamp(0.0, 1.0) } else { 1.0 };
    let own = (execution as f64 * share).round() as u64;
    let own = own.min(execution);
    let after = if times.parks { 0 } else { write - done };
    let service_ns = if times.parks { write - begun } else { own };
    let queue_ns = (read - arrived) + if times.parks { 0 } else { execution - own } + after;
    let network_ns = (end - times.start_ns) - service_ns - queue_ns;
    let waits =
        [Interval { start_ns: arrived, end_ns: read }, Interval { start_ns: done, end_ns: done.saturating_add(after) }];
    (Split { network_ns, queue_ns, service_ns }, waits)
}

#[cfg(test)]
mod tests {
    use super::{Split, Times, split};

    fn times(of: [u64; 7]) -> Times {
        let [start_ns, sent_ns, read_ns, begun_ns, done_ns, write_ns, end_ns] = of;
        Times { start_ns, sent_ns, read_ns, begun_ns, done_ns, write_ns, end_ns, share: 1.0, parks: false }
    }

    #[test]
    fn a_command_behind_another() {
        let (parts, waits) = split(&times([0, 10, 500, 502, 512, 600, 640]));
        assert_eq!(parts, Split { network_ns: 10 + 2 + 40, queue_ns: 490 + 88, service_ns: 10 });
        assert_eq!(waits.map(|wait| (wait.start_ns, wait.end_ns)), [(10, 500), (512, 600)]);
    }

    #[test]
    fn a_command_that_is_read_before_its_send_returns_has_not_waited() {
        let (parts, _) = split(&times([0, 50, 20, 22, 32, 33, 60]));
        assert_eq!((parts.queue_ns, parts.service_ns), (1, 10));
    }

    #[test]
    fn a_quarter_of_a_pipeline_waits_for_the_rest_of_it() {
        let times = Times { share: 0.25, ..times([0, 10, 10, 10, 410, 410, 420]) };
        assert_eq!(split(&times).0, Split { network_ns: 20, queue_ns: 300, service_ns: 100 });
    }

    #[test]
    fn a_parked_command_is_served_while_it_waits() {
        let times = Times { parks: true, ..times([0, 10, 10, 10, 12, 5_000, 5_010]) };
        assert_eq!(split(&times).0, Split { network_ns: 20, queue_ns: 0, service_ns: 4_990 });
    }

    proptest::proptest! {
        #[test]
        fn the_parts_always_add_up(of: [u64; 7], share: f64, parks: bool) {
            let times = Times { share, parks, ..times(of) };
            let (parts, waits) = split(&times);
            let duration = times.end_ns.max(times.start_ns) - times.start_ns;
            proptest::prop_assert_eq!(parts.network_ns + parts.queue_ns + parts.service_ns, duration);
            for wait in waits {
                proptest::prop_assert!(wait.len_ns() <= parts.queue_ns);
            }
        }
    }
}
