//! Other sizes of the eBPF maps than the usual ones. They are for tests, which make each map full on purpose:
//! `TRACER_MAP_SIZES=TARGETS=2,LIFECYCLE=4096`.

/// Maps whose size is a limit of the agent. The size of a ring buffer is in bytes, a power of two of at least a page.
const NAMES: [&str; 10] = [
    "LIFECYCLE",
    "TARGETS",
    "EXECUTABLES",
    "PROBES",
    "CALLS",
    "SOCKET_CALLS",
    "SERVERS",
    "SERVED",
    "CONNECTIONS",
    "ADVICE",
];

/// What was asked for is not a list of sizes.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not MAP=SIZE, where MAP is one of {names}", names = NAMES.join(", "))]
pub struct MapSizesError(String);

/// Sizes by the names of maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapSizes(pub(super) Vec<(&'static str, u32)>);

impl std::str::FromStr for MapSizes {
    type Err = MapSizesError;

    fn from_str(text: &str) -> Result<Self, MapSizesError> {
        let size = |part: &str| {
            let (wanted, size) = part.split_once('=')?;
            let name = NAMES.into_iter().find(|name| *name == wanted)?;
            Some((name, size.parse().ok().filter(|size| *size > 0)?))
        };
        let parts = text.split(',').filter(|part| !part.is_empty());
        parts.map(|part| size(part).ok_or_else(|| MapSizesError(part.to_owned()))).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::MapSizes;

    #[test]
    fn sizes_are_read_and_strangers_refused() {
        let sizes: MapSizes = "TARGETS=2,LIFECYCLE=4096".parse().expect("two sizes");
        assert_eq!(sizes.0, [("TARGETS", 2), ("LIFECYCLE", 4096)]);
        assert_eq!("".parse::<MapSizes>().expect("none"), MapSizes::default());
        for wrong in ["TARGETS", "TARGETS=0", "TARGETS=x", "COUNTERS=1"] {
            assert!(wrong.parse::<MapSizes>().is_err(), "{wrong}");
        }
    }
}
